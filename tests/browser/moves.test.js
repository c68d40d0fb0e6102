// Whole systems lose parts under live calls of four, with LiveKit's unmodified SDK: the calls go on. Limits are loose, for a busy machine;
// `tests/bench moves` has the tight ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { until } from './lib/wait.js';
import { begin, call, callStage, fleet } from './lib/call-stage.js';

const LEASE_MS = 2_000;

callStage({ seed: 7 });

/** Nobody was told of anything, no page was left without a picture, and all go on with the peer connections that they had. */
function unnoticed(t, watched, { picture, sound = Infinity }) {
  t.diagnostic(watched.line);
  if (watched.failure || watched.gap('video') > picture) t.diagnostic(`streams\n${watched.table}\n${fleet.lines()}`);
  assert.ifError(watched.failure);
  assert.deepEqual(watched.noticed, []);
  assert.deepEqual(watched.connections, watched.connections.map(() => 0), 'new peer connections');
  assert.ok(watched.gap('video') <= picture, `a picture stood still for ${watched.gap('video')} ms`);
  assert.ok(watched.gap('audio') <= sound, `a sound stood still for ${watched.gap('audio')} ms`);
}

/** What is known of everybody, and what was set, is as it was. */
async function settings(room) {
  await call.client('ann').mute(true);
  await call.client('ben').page.evaluate(() => window.client.room.localParticipant.setMetadata('of ben'));
  await call.client('ben').page.evaluate(() => window.client.room.localParticipant.setName('Ben'));
  // Cleo does not want dan's sound.
  await call.client('cleo').page.evaluate(() => (
    [...window.client.room.remoteParticipants.values()].find(({ identity }) => identity === 'dan').getTrackPublication('microphone').setSubscribed(false)
  ));
  const response = await fetch(`${fleet.url}/v1/rooms/${room}`, {
    method: 'PATCH',
    headers: { Authorization: `Bearer ${await fleet.adminToken(room)}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ metadata: 'of the room' }),
  });
  assert.equal(response.status, 200, await response.text());
  return until('all know it', async () => {
    const rosters = await call.rosters();
    for (const [who, roster] of Object.entries(rosters)) {
      assert.equal(roster.ben.metadata, 'of ben', who);
      assert.equal(roster.ben.name, 'Ben', who);
      assert.ok(Object.values(roster.ann.tracks).some(({ source, isMuted }) => source === 'microphone' && isMuted), who);
    }
    assert.ok(Object.values(rosters.cleo.dan.tracks).some(({ source, isSubscribed }) => source === 'microphone' && !isSubscribed));
    for (const { page, identity } of call.clients) assert.equal(await page.evaluate(() => window.client.room.metadata), 'of the room', identity);
    return rosters;
  });
}

const SILENT = ['audio ann', 'audio dan'];

test('a killed worker: the call goes on at another node, with all that was known and set', { timeout: 120_000 }, async (t) => {
  const room = 'killed';
  await begin(room);
  const known = await settings(room);
  const node = await fleet.nodeOf(room);
  const { generation } = await fleet.where(room);
  const watched = await call.watch(() => fleet.killWorker(node), { but: SILENT });
  unnoticed(t, watched, { picture: 5_000 });
  assert.ok((await fleet.where(room)).generation > generation);
  assert.deepEqual(await call.rosters(), known);
  for (const { page, identity } of call.clients) assert.equal(await page.evaluate(() => window.client.room.metadata), 'of the room', identity);
  await call.data('ann', 'cleo', true);
  await call.data('ben', 'dan', false);
  const why = await fleet.signalbox('rooms', 'why', room);
  t.diagnostic(why);
  // What is changed after the move is told and takes effect.
  await call.client('ann').mute(false);
  await call.flows({ but: ['audio dan'] });
  assert.ok((await fleet.metric('signalbox_gateway_moves_total', 'crash')) >= 4, 'counted');
});

test('a lost machine: the call goes on within the lease and a little; continued later, it says nothing to anyone', { timeout: 120_000 }, async (t) => {
  const room = 'lost';
  await begin(room);
  const node = await fleet.nodeOf(room);
  const { generation } = await fleet.where(room);
  let thaw;
  const watched = await call.watch(async () => {
    const frozen = await fleet.freeze(node);
    ({ thaw } = frozen);
    return frozen;
  });
  unnoticed(t, watched, { picture: LEASE_MS + 5_000 });
  const sent = await node.network.sent();
  thaw();
  await until('the node takes rooms again', async () => (await fleet.views()).find(({ node: id }) => id === node.id).live);
  await pause(1_000);
  assert.equal(await node.network.sent() - sent, 0, 'datagrams of the node that was stopped');
  const now = await fleet.where(room);
  assert.ok(now.node !== node.id && now.generation > generation, JSON.stringify(now));
  await call.flows();
});

test('a node is drained: nobody notices, and it hosts nothing', { timeout: 120_000 }, async (t) => {
  const room = 'drained';
  await begin(room);
  const node = await fleet.nodeOf(room);
  const watched = await call.watch(async () => { t.diagnostic(await fleet.signalbox('drain', node.id, '--wait', '--deadline', '30s')); });
  unnoticed(t, watched, { picture: 1_500, sound: 1_500 });
  assert.notEqual((await fleet.nodeOf(room)).id, node.id);
  await until('the node hosts nothing', async () => (await fleet.views()).find(({ node: id }) => id === node.id).load.participants === 0);
  await call.data('ann', 'cleo', true);
  await call.data('ben', 'dan', false);
  assert.match(await fleet.signalbox('rooms', 'why', room), /drain/);
});

test('a node that is asked to end moves its calls away first', { timeout: 120_000 }, async (t) => {
  const room = 'ended';
  await begin(room);
  const node = await fleet.nodeOf(room);
  const watched = await call.watch(async () => {
    node.process.kill('SIGTERM');
    const how = await Promise.race([node.process.ended, pause(40_000)]);
    assert.equal(how, 0, node.process.lines());
  });
  unnoticed(t, watched, { picture: 1_500, sound: 1_500 });
});

test('a killed gateway: no picture stands still, and its clients are back at another one', { timeout: 120_000 }, async (t) => {
  await begin('gateway');
  const gateway = fleet.gateways[0];
  const watched = await call.watch(() => gateway.process.kill());
  unnoticed(t, watched, { picture: 1_000, sound: 1_000 });
  assert.ok(watched.resumed >= 1, 'it served somebody');
  assert.ok(watched.signalingBackAfter < 3_000, `signaling was back after ${watched.signalingBackAfter} ms`);
  await until('all are back', async () => (await Promise.all(call.clients.map(({ page }) => page.evaluate(() => window.client.room.state)))).every((state) => state === 'connected'), { seconds: 5 });
  await call.client('ann').mute(true);
  await until('all are told', async () => Object.values(await call.rosters()).every(({ ann }) => Object.values(ann.tracks).some(({ isMuted }) => isMuted)), { seconds: 5 });
});

test('a killed orchestrator is not noticed by anyone, and who joins is served', { timeout: 120_000 }, async (t) => {
  await begin('orchestrator');
  const [orchestrator] = fleet.orchestrators;
  const watched = await call.watch(() => orchestrator.process.kill());
  unnoticed(t, watched, { picture: 1_000, sound: 1_000 });
  assert.equal(watched.resumed, 0);
  assert.ok((await fleet.where('another')).node);
});

test('with a twentieth of all datagrams lost, a killed worker costs little, and a drain less', { timeout: 120_000 }, async (t) => {
  const room = 'lossy';
  await begin(room);
  await fleet.lossy(true);
  try {
    const node = await fleet.nodeOf(room);
    unnoticed(t, await call.watch(() => fleet.killWorker(node)), { picture: 8_000 });
    await fleet.serving();
    const next = await fleet.nodeOf(room);
    unnoticed(t, await call.watch(() => fleet.signalbox('drain', next.id, '--wait', '--deadline', '30s')), { picture: 4_000 });
  } finally {
    await fleet.lossy(false);
  }
});
