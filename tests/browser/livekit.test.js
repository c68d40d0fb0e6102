// The unmodified npm livekit-client against the gateway's LiveKit protocol.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newPage, received } from './lib/chromium.js';
import { LivekitClient } from './lib/livekit.js';
import { browser, cluster, site, stage } from './lib/stage.js';
import { until } from './lib/wait.js';

const room = 'livekit';
let ann;
let ben;
let cleo;

const connect = async (identity) => LivekitClient.connect(await newPage(browser), site, cluster, room, identity);

stage();

test('two clients connect, publish camera and microphone, and see and hear each other', { timeout: 120_000 }, async (t) => {
  ann = await connect('ann');
  ben = await connect('ben');
  await ann.saw('joined', 'ben');
  await Promise.all([ann.publish(), ben.publish()]);
  const [a, b] = await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
  t.diagnostic(`frames decoded: ann ${a} of ben, ben ${b} of ann`);
});

test('the camera is published with simulcast layers', { timeout: 60_000 }, async () => {
  const layers = await ann.page.evaluate(() => {
    const camera = window.client.room.localParticipant.getTrackPublication('camera');
    return camera.track.sender.getParameters().encodings.map(({ rid }) => rid);
  });
  assert.ok(layers.length > 1, `layers: ${layers}`);
  const known = await ben.page.evaluate(() => {
    const [publisher] = window.client.room.remoteParticipants.values();
    return publisher.getTrackPublication('camera').simulcasted;
  });
  assert.equal(known, true);
});

test('sound is sent with redundancy', { timeout: 60_000 }, async () => {
  // Statistics tell of Opus either way; what the sender has agreed on tells the difference.
  const codecs = await ann.page.evaluate(() => {
    const { track } = window.client.room.localParticipant.getTrackPublication('microphone');
    return track.sender.getParameters().codecs.map(({ mimeType }) => mimeType);
  });
  assert.equal(codecs[0], 'audio/red');
});

test('a speaker is reported', { timeout: 60_000 }, async () => {
  await ben.saw('speaks', 'ann');
});

test('muting and unmuting are reported, and the sound comes back', { timeout: 120_000 }, async () => {
  await ann.mute(true);
  await ben.saw('muted', 'ann', 'audio');
  assert.ok((await ben.knows('ann')).some(({ source, isMuted }) => source === 'microphone' && isMuted));
});

test('a late joiner gets the state of the room and its media', { timeout: 120_000 }, async () => {
  cleo = await connect('cleo');
  const tracks = await until('cleo knows ann', () => cleo.knows('ann'));
  assert.deepEqual(tracks.map(({ source, isMuted }) => [source, isMuted]).sort(), [['camera', false], ['microphone', true]]);
  await cleo.seesAndHears('ben');
  await until('cleo sees ann', async () => (await cleo.from('ann')).framesDecoded > 15);
  await ann.mute(false);
  await Promise.all([ben.saw('unmuted', 'ann', 'audio'), cleo.saw('unmuted', 'ann', 'audio')]);
  await Promise.all([ben.seesAndHears('ann'), cleo.seesAndHears('ann')]);
});

for (const reliable of [true, false]) {
  test(`${reliable ? 'reliable' : 'lossy'} data arrives both ways with its sender's identity`, { timeout: 60_000 }, async () => {
    for (const [from, to] of [[ann, ben], [ben, ann]]) {
      const text = `${reliable} from ${from.identity}`;
      await from.send(text, reliable);
      const got = await until(`${to.identity} gets "${text}"`, async () => {
        // Lossy may mean lost.
        if (!reliable) await from.send(text, reliable);
        return (await to.data()).find((one) => one.text === text);
      });
      assert.equal(got.from, from.identity);
      assert.equal(got.reliable, reliable);
    }
  });
}

test('a closed WebSocket is resumed without a new peer connection, and media goes on', { timeout: 120_000 }, async () => {
  const before = await received(ann.page);
  await ann.page.evaluate(() => window.watched.sockets.at(-1).close());
  await ann.saw('resuming');
  await ann.saw('reconnected');
  await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
  assert.equal((await received(ann.page)).connections, before.connections);
  const types = (await ann.events()).map(({ type }) => type);
  assert.ok(!types.includes('restarting'), `events: ${types}`);
  assert.ok(!(await ben.events()).some(({ type, identity }) => type === 'left' && identity === 'ann'));
  // The resumed signaling works both ways.
  await ann.mute(true);
  await until('ben is told of the mute', async () => (await ben.knows('ann')).some(({ kind, isMuted }) => kind === 'audio' && isMuted));
  await ben.mute(true);
  await until('ann is told of the mute', async () => (await ann.knows('ben')).some(({ kind, isMuted }) => kind === 'audio' && isMuted));
});

test('who leaves is gone for the others', { timeout: 60_000 }, async () => {
  await cleo.leave();
  await Promise.all([ann.saw('left', 'cleo'), ben.saw('left', 'cleo')]);
  assert.equal(await ann.knows('cleo'), null);
});

test('a wrong token is refused with a reason', { timeout: 60_000 }, async () => {
  const page = await newPage(browser);
  await page.goto(site.url);
  const reason = await page.evaluate(
    (url) => window.client.connect(url, 'not.a.token').then(() => null, (error) => `${error.status} ${error.message}`),
    cluster.webSocketUrl,
  );
  assert.match(reason, /^401 /);
});
