// The time from the click on "Join the room" until the first picture of somebody else is up.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage, received } from './lib/chromium.js';
import { startDev } from './lib/cluster.js';

const JOINS = 10;
// A regression guard, not a goal: the machine that runs this may be slow and busy.
const LIMIT_MS = 5_000;

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

test('the first picture is up soon after the click', { timeout: 180_000 }, async (t) => {
  const host = await CallPage.join(await newPage(browser), cluster, 'first-frame', 'host');
  const times = [];
  for (let join = 0; join < JOINS; join += 1) {
    const page = await newPage(browser);
    const guest = await CallPage.open(page, cluster, 'first-frame', `guest${join}`);
    times.push(await page.evaluate(async () => {
      const clicked = performance.now();
      document.getElementById('join').click();
      while (!window.watched.pictureIsUp()) await new Promise((resume) => { setTimeout(resume, 4); });
      return performance.now() - clicked;
    }));
    assert.ok((await guest.from('host')).framesDecoded > 0 || (await received(page)).framesDecoded > 0);
    await guest.leave();
    await page.context().close();
    await host.sawLeave(`guest${join}`);
  }
  const sorted = times.map(Math.round).sort((a, b) => a - b);
  const median = (sorted[JOINS / 2 - 1] + sorted[JOINS / 2]) / 2;
  t.diagnostic(`from the click to the first picture: median ${median} ms of ${JOINS} (${sorted.join(', ')})`);
  assert.ok(median < LIMIT_MS, `median ${median} ms`);
});
