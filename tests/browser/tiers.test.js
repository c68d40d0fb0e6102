// The three tiers as separate processes over PostgreSQL, with two media nodes.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage, received } from './lib/chromium.js';
import { startTiers } from './lib/cluster.js';
import { until } from './lib/wait.js';

const ROOMS = Array.from({ length: 16 }, (_, number) => `tiers-${number}`);

let cluster;
let browser;
let places;

before(async () => {
  [cluster, browser] = await Promise.all([startTiers({ nodes: 2 }), launchChromium()]);
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

test('rooms are spread over both nodes, and each has one place', { timeout: 60_000 }, async (t) => {
  places = new Map(await Promise.all(ROOMS.map(async (room) => [room, await cluster.where(room)])));
  const perNode = new Map();
  for (const { node } of places.values()) perNode.set(node, (perNode.get(node) ?? 0) + 1);
  t.diagnostic(`rooms per node: ${[...perNode.values()].join(' and ')}`);
  assert.equal(perNode.size, 2);
  for (const room of ROOMS) assert.deepEqual(await cluster.where(room), places.get(room));
});

test('participants of one room meet on its node, on either node', { timeout: 150_000 }, async () => {
  const [first] = ROOMS;
  const second = ROOMS.find((room) => places.get(room).node !== places.get(first).node);
  for (const room of [first, second]) {
    const ann = await CallPage.join(await newPage(browser), cluster, room, 'ann');
    const ben = await CallPage.join(await newPage(browser), cluster, room, 'ben');
    await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
    const { ip, port } = places.get(room);
    for (const { page, name } of [ann, ben]) {
      const from = await until(`${name} has a nominated candidate pair`, async () => (await received(page)).from);
      assert.deepEqual(from, [`${ip}:${port}`], `${name} in ${room}`);
      await page.context().close();
    }
  }
});

test('the processes end by themselves when they are asked to', { timeout: 90_000 }, async () => {
  await browser.close();
  assert.deepEqual(new Set(await cluster.stop()), new Set([0]));
});
