// No media through the HTTP tier: a minute of video between two browsers adds next to nothing to the gateway's byte counters.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage, received } from './lib/chromium.js';
import { startDev } from './lib/cluster.js';

const SECONDS = 60;
// The event streams' pings and who is speaking.
const SIGNALING_BYTES = 100_000;
const MEDIA_BYTES = 2_000_000;

let cluster;
let browser;

before(async () => {
  cluster = await startDev();
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

test('a minute of video adds nothing to the bytes that the gateway carries', { timeout: 180_000 }, async (t) => {
  const ann = await CallPage.join(await newPage(browser), cluster, 'minute', 'ann');
  const ben = await CallPage.join(await newPage(browser), cluster, 'minute', 'ben');
  await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);

  const measure = async () => ({ gateway: await cluster.gatewayBytes(), media: (await received(ann.page)).videoBytes });
  const before = await measure();
  await pause(SECONDS * 1000);
  const after = await measure();

  const gateway = after.gateway - before.gateway;
  const media = after.media - before.media;
  t.diagnostic(`in ${SECONDS} s: ${gateway} bytes through the gateway, ${media} bytes of video received by one participant`);
  assert.ok(before.gateway > 0, 'the gateway counts');
  assert.ok(gateway < SIGNALING_BYTES, `${gateway} bytes through the gateway`);
  assert.ok(media > MEDIA_BYTES, `${media} bytes of video`);
});
