// A lost and a drained node, as other clients than LiveKit's SDK in Chromium notice them: Signalbox's own page, and Firefox, which cannot be moved in place.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { Call } from './lib/call.js';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage, received } from './lib/chromium.js';
import { networkAddress } from './lib/cluster.js';
import { watchContinuity } from './lib/continuity.js';
import { launchFirefox } from './lib/firefox.js';
import { startFleet } from './lib/fleet.js';
import { serveLivekitPage } from './lib/livekit.js';
import { watchMedia } from './lib/media-watch.js';
import { until } from './lib/wait.js';

let fleet;
let browser;
let site;

before(async () => {
  [fleet, browser, site] = await Promise.all([startFleet({ mediaIp: networkAddress() }), launchChromium(), serveLivekitPage()]);
});

afterEach(() => fleet.repair());

after(async () => {
  await browser?.close();
  await site?.close();
  await fleet?.stop();
});

/** From `since` on, the longest time without a picture that a page got of anyone, when it began to be over. */
const gapOf = ({ page }, since) => page.evaluate((from) => {
  const [video] = Object.entries(window.continuity.since(from)).filter(([key]) => key.startsWith('video'));
  return video[1];
}, since);

for (const [what, lose, limit] of [
  ['a killed worker', (node) => fleet.killWorker(node), 6_000],
  ['a drain', async (node) => {
    await fleet.signalbox('drain', node.id, '--wait', '--deadline', '30s');
    await fleet.signalbox('undrain', node.id);
  }, 2_500],
]) {
  test(`${what}: pages go on with the peer connection that they have, and see nobody leave`, { timeout: 90_000 }, async (t) => {
    const room = `page-${limit}`;
    const join = async (name) => CallPage.join(await newPage(browser, undefined, watchContinuity), fleet, room, name);
    const pages = await Promise.all(['ann', 'ben'].map(join));
    const [ann, ben] = pages;
    try {
      await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
      await Promise.all(pages.map(({ page }) => until('a picture was noted', () => page.evaluate(() => Object.keys(window.continuity.lately(1_000)).length > 0))));
      const before = await Promise.all(pages.map(({ page }) => received(page)));
      const identities = await Promise.all(pages.map((one) => one.identity()));
      const node = await fleet.nodeOf(room);
      const [since, left] = [Date.now(), []];
      // A tile that goes and comes back would not be seen by looking afterwards.
      await ann.page.exposeFunction('noteLeft', (who) => left.push(who));
      await ann.page.evaluate(() => new MutationObserver((changes) => changes.forEach(({ removedNodes }) => removedNodes.forEach((one) => {
        if (one.dataset?.participant) window.noteLeft(one.dataset.participant);
      }))).observe(document.body, { childList: true, subtree: true }));
      await lose(node);
      await until('the room is elsewhere', async () => (await fleet.nodeOf(room)) !== node || what !== 'a drain');
      await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
      const gaps = await Promise.all(pages.map((one) => gapOf(one, since)));
      t.diagnostic(`pictures stood still for ${gaps.map(({ longest }) => `${Math.round(longest)} ms`).join(' and ')}`);
      assert.deepEqual(left, []);
      assert.deepEqual(await Promise.all(pages.map((one) => one.identity())), identities);
      const now = await Promise.all(pages.map(({ page }) => received(page)));
      assert.deepEqual(now.map(({ connections }) => connections), before.map(({ connections }) => connections), 'peer connections');
      assert.ok(gaps.every(({ longest }) => longest < limit), fleet.lines());
    } finally {
      await Promise.all(pages.map(({ page }) => page.context().close()));
    }
  });
}

test('Firefox joins anew after a killed worker, and only Firefox does', { timeout: 120_000 }, async (t) => {
  const firefox = await launchFirefox();
  try {
    const page = await firefox.newPage();
    for (const script of [watchMedia, watchContinuity]) await page.evaluateOnNewDocument(script);
    const call = await Call.begin(fleet, browser, site, 'firefox', { names: ['ann', 'ben', 'fox'], pages: { fox: page } });
    const node = await fleet.nodeOf('firefox');
    const watched = await call.watch(() => fleet.killWorker(node), { afterMs: 500 });
    t.diagnostic(watched.line);
    if (watched.failure) t.diagnostic(`streams\n${watched.table}\n${fleet.lines()}`);
    assert.ifError(watched.failure);
    assert.deepEqual(watched.events.filter(({ type }) => type === 'disconnected'), []);
    assert.deepEqual([...watched.clientsTold('restarting')], ['fox']);
    const seen = watched.streams.filter(({ viewer, key }) => viewer === 'fox' && key.startsWith('video'));
    assert.equal(seen.length, 2);
    assert.ok(seen.every(({ back }) => back !== null && back - watched.fault < 8_000), watched.table);
    await call.end();
  } finally {
    await firefox.close();
  }
});
