// Several parts of a whole system are lost at once, or many rooms move: what can go on goes on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { startFleet } from './lib/fleet.js';
import { SmallRooms } from './lib/small-rooms.js';
import { until } from './lib/wait.js';
import { begin, call, callStage, end, fleet } from './lib/call-stage.js';

const ROOMS = 50;
const RATE = 5;

callStage({ nodes: 3 });

function goesOn(t, watched, picture) {
  t.diagnostic(watched.line);
  if (watched.failure || watched.gap('video') > picture) t.diagnostic(`streams\n${watched.table}\n${fleet.lines()}`);
  assert.ifError(watched.failure);
  assert.deepEqual(watched.noticed, []);
  assert.ok(watched.gap('video') <= picture, `a picture stood still for ${watched.gap('video')} ms`);
}

test('two nodes are lost together: the call goes on at the third', { timeout: 120_000 }, async (t) => {
  const room = 'two-nodes';
  await begin(room);
  const node = await fleet.nodeOf(room);
  const other = fleet.nodes.find((one) => one !== node);
  goesOn(t, await call.watch(() => Promise.all([fleet.killWorker(node), fleet.killWorker(other)])), 6_000);
});

test('a gateway is lost together with the node: nobody is disconnected for good, and all are back', { timeout: 120_000 }, async (t) => {
  const room = 'gateway-and-node';
  await begin(room);
  const node = await fleet.nodeOf(room);
  const gateway = fleet.gateways[0];
  const watched = await call.watch(() => {
    gateway.process.kill();
    return fleet.killWorker(node);
  }, { afterMs: 3_000 });
  t.diagnostic(watched.line);
  if (watched.failure) t.diagnostic(`streams\n${watched.table}\n${fleet.lines()}`);
  assert.ifError(watched.failure);
  // What the lost gateway alone knew is gone with it: those who were its clients may have to join anew, and the rest sees that.
  assert.deepEqual(watched.events.filter(({ type }) => type === 'disconnected'), []);
  assert.equal(Object.keys((await call.rosters()).ann).length, 4);
});

test('the target of a move is lost during the move: the call goes on', { timeout: 120_000 }, async (t) => {
  const room = 'target';
  await begin(room);
  const node = await fleet.nodeOf(room);
  const watched = await call.watch(async () => {
    await fleet.signalbox('drain', node.id);
    const target = await until('the room is on its way', async () => {
      const at = await fleet.nodeOf(room);
      return at !== node && at;
    }, { everyMs: 5 });
    await fleet.killWorker(target);
  }, { afterMs: 3_000 });
  t.diagnostic(watched.line);
  if (watched.failure) t.diagnostic(`streams\n${watched.table}\n${fleet.lines()}`);
  assert.ifError(watched.failure);
  assert.deepEqual(watched.events.filter(({ type }) => type === 'disconnected'), []);
  assert.notEqual(await fleet.nodeOf(room), node);
});

test('the only node there is loses its worker: the call goes on at the next one, at the same address', { timeout: 120_000 }, async (t) => {
  // Behind a network, so that its port stays the same.
  const alone = await startFleet({ nodes: 1, gateways: 1, orchestrators: 1, seed: 7 });
  try {
    await begin('alone', {}, alone);
    const watched = await call.watch(() => alone.killWorker(alone.nodes[0]));
    if (watched.failure) t.diagnostic(`streams\n${watched.table}\n${alone.lines()}`);
    goesOn(t, watched, 7_000);
  } finally {
    await end();
    await alone.stop();
  }
});

test(`${ROOMS} rooms are drained one by one, and it was said how long that takes`, { timeout: 120_000 }, async (t) => {
  const [node, ...others] = fleet.nodes;
  // So that all of them are placed on one.
  for (const { id } of others) await fleet.signalbox('drain', id, '--rate', '100', '--wait');
  const rooms = await SmallRooms.open(fleet, ROOMS);
  for (const { id } of others) await fleet.signalbox('undrain', id);
  try {
    const begun = Date.now();
    const said = [];
    const drained = fleet.signalbox('drain', node.id, '--rate', String(RATE), '--wait').then((text) => ({ text, at: Date.now() }));
    await until('it is done', async () => {
      const drain = await fleet.drainOf(node);
      // Until it has begun, the answer is about the one before.
      const isThisOne = drain.age_ms <= Date.now() - begun;
      if (isThisOne) said.push({ at: Date.now(), ...drain });
      return isThisOne && drain.state === 'done';
    }, { everyMs: 250 }).catch((error) => { throw new Error(`${error.message}\n${fleet.lines()}`); });
    const { text, at } = await drained;
    t.diagnostic(`${ROOMS} rooms in ${at - begun} ms; ${text.trim().split('\n').at(-1)}`);
    const errors = said.filter(({ state, eta_ms: eta }) => state === 'running' && eta !== undefined).map((one) => ({ off: one.at + one.eta_ms - at, left: one.rooms_left }));
    t.diagnostic(`left, and how wrong the time was: ${errors.map(({ left, off }) => `${left}: ${Math.round(off)} ms`).join(', ')}`);
    assert.ok(errors.length >= 3, 'a time was said while it went on');
    assert.ok(errors.every(({ off }) => Math.abs(off) < 5_000), 'the time was right to within some seconds');
    assert.ok(at - begun >= 1_000 * (ROOMS / RATE) * 0.7, 'not faster than asked for');
    await rooms.areWhole(node);
  } finally {
    await rooms.close();
  }
});

test('orchestrators that are killed one after the other do not stop a drain: another one carries it on', { timeout: 120_000 }, async (t) => {
  const [node, ...others] = fleet.nodes;
  for (const { id } of others) await fleet.signalbox('drain', id, '--rate', '100', '--wait');
  const rooms = await SmallRooms.open(fleet, 12);
  for (const { id } of others) await fleet.signalbox('undrain', id);
  const left = async () => (await fleet.drainOf(node)).rooms_left;
  try {
    await fleet.signalbox('drain', node.id, '--rate', '2');
    // It goes on while only one of them runs, so that this one carries it, and is the next that is killed.
    for (const orchestrator of fleet.orchestrators) {
      const before = await until('the drain goes on', async () => {
        const count = await left();
        return count < rooms.all.length && count;
      }, { everyMs: 50 });
      assert.ok(before > 3, `${before} are left`);
      const killed = Date.now();
      orchestrator.process.kill();
      await until('it is carried on', async () => await left() < before - 1, { everyMs: 50 });
      t.diagnostic(`carried on after ${Date.now() - killed} ms, ${before} were left`);
      assert.equal((await fleet.drainOf(node)).state, 'running');
      await fleet.startAgain(orchestrator);
    }
    await until('it is done', async () => (await fleet.drainOf(node)).state === 'done');
    await rooms.areWhole(node);
  } finally {
    await rooms.close();
  }
});

test('a drain that is cancelled half way leaves each room where it is', { timeout: 120_000 }, async () => {
  const [node, ...others] = fleet.nodes;
  // Before they are moved, as what a node says of its load is some time old.
  await until('the rooms of other tests are closed', async () => (await fleet.views()).every(({ load }) => load.rooms === 0), { seconds: 60 });
  for (const { id } of others) await fleet.signalbox('drain', id, '--rate', '100', '--wait');
  const rooms = await SmallRooms.open(fleet, 10);
  for (const { id } of others) await fleet.signalbox('undrain', id);
  try {
    await fleet.signalbox('drain', node.id, '--rate', '2');
    await until('half of them have moved', async () => (await fleet.drainOf(node)).rooms_left <= 5, { everyMs: 50 });
    await fleet.signalbox('undrain', node.id);
    const { rooms_left: left, state } = await fleet.drainOf(node);
    assert.equal(state, 'cancelled');
    await pause(1_500);
    const places = await rooms.places();
    assert.equal(places.filter((id) => id === node.id).length, left);
    assert.ok(left > 0 && left < 10, `${left} are left`);
    await rooms.areWhole();
  } finally {
    await rooms.close();
  }
});
