// The page at the gateway's `/`, in calls of two and three.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage, received } from './lib/chromium.js';
import { startDev } from './lib/cluster.js';
import { stopsGrowing, until } from './lib/wait.js';

const room = 'page';
let cluster;
let browser;
let ann;
let ben;
let cleo;

before(async () => {
  cluster = await startDev();
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

test('two pages see and hear each other', { timeout: 120_000 }, async (t) => {
  ann = await CallPage.join(await newPage(browser), cluster, room, 'ann');
  ben = await CallPage.join(await newPage(browser), cluster, room, 'ben');
  const [a, b] = await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
  t.diagnostic(`frames decoded: ann ${a} of ben, ben ${b} of ann`);
});

test('who is speaking is shown', { timeout: 60_000 }, async () => {
  await Promise.all([ann.page.waitForSelector('[data-participant^="ben-"][data-speaking="true"]'), ben.shows('ann', { video: 'on' })]);
});

test('a picture for which there is no room is shown as paused, until it goes on', { timeout: 60_000 }, async (t) => {
  const tell = (paused) => ann.page.evaluate(async (isPaused) => {
    const [[who, { video: [{ track }] }]] = Object.entries(await window.signalbox.stats());
    const { participantId: participant } = document.querySelector(`[data-participant="${who}"]`).dataset;
    const message = { id: '0', type: 'stream_states', streams: [{ participant, track, paused: isPaused }] };
    window.watched.sockets.at(-1).onmessage({ data: JSON.stringify(message) });
  }, paused);
  await tell(true);
  await ann.shows('ben', { video: 'paused' });
  const note = await ann.page.textContent('[data-participant^="ben-"] .tile-note');
  assert.match(note, /connection is too slow/);
  if (process.env.SIGNALBOX_SCREENSHOTS) await ann.page.screenshot({ path: `${process.env.SIGNALBOX_SCREENSHOTS}/call-paused.png` });
  t.diagnostic(note);
  await tell(false);
  await ann.shows('ben', { video: 'on' });
});

test('a third participant meets the two others', { timeout: 120_000 }, async () => {
  cleo = await CallPage.join(await newPage(browser), cluster, room, 'cleo');
  await Promise.all([
    cleo.seesAndHears('ann'), cleo.seesAndHears('ben'), ann.seesAndHears('cleo'), ben.seesAndHears('cleo'), ann.seesAndHears('ben'),
  ]);
});

test('a muted microphone is silent and is shown as muted, until it is on again', { timeout: 120_000 }, async () => {
  await ann.shows('ben', { muted: false });
  await ben.toggleMicrophone();
  await Promise.all([ann.shows('ben', { muted: true }), cleo.shows('ben', { muted: true })]);
  // A beep every second: silence for longer than that is silence.
  await stopsGrowing('the sound of ben', async () => (await ann.from('ben')).audioEnergy.toFixed(9));
  await ben.toggleMicrophone();
  await ann.shows('ben', { muted: false });
  await ann.seesAndHears('ben');
});

test('a lost event stream comes back without a new peer connection, and media goes on', { timeout: 120_000 }, async () => {
  const sockets = () => ann.page.evaluate(() => window.watched.sockets.length);
  const count = await sockets();
  await ann.page.evaluate(() => window.watched.sockets.at(-1).close());
  await until('ann opens another event stream', async () => (await sockets()) > count);
  await ann.state('joined');
  await ann.seesAndHears('ben');
  assert.equal((await received(ann.page)).connections, 1);
  // The new stream carries events.
  await cleo.toggleMicrophone();
  await ann.shows('cleo', { muted: true });
});

test('who leaves is gone for the others, whose call goes on', { timeout: 120_000 }, async () => {
  await cleo.leave();
  await Promise.all([ann.sawLeave('cleo'), ben.sawLeave('cleo')]);
  await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
});

test('who closes the page is gone for the others', { timeout: 60_000 }, async () => {
  await ben.page.close({ runBeforeUnload: false });
  await ann.sawLeave('ben');
});

test('a slot that is free again carries the next one', { timeout: 120_000 }, async () => {
  const lines = async () => ann.page.evaluate(() => window.signalbox.pc.getTransceivers().length);
  const before = await lines();
  const dora = await CallPage.join(await newPage(browser), cluster, room, 'dora');
  await Promise.all([ann.seesAndHears('dora'), dora.seesAndHears('ann')]);
  assert.equal(await lines(), before);
});

test('no page had an uncaught error', () => {
  for (const one of [ann, ben, cleo]) assert.deepEqual(one.page.errors, []);
});
