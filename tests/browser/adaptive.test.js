// Nobody sends what nobody watches: sizes and visibility of tiles decide what the publisher encodes, with LiveKit's SDK and on the page
// alike; and a second codec is sent as long as somebody can decode no other.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { newPage, videoStatistics } from './lib/chromium.js';
import { LivekitClient } from './lib/livekit.js';
import { browser, cluster, site, stage } from './lib/stage.js';
import { grows, stopsGrowing, until } from './lib/wait.js';

const CAMERA = { resolution: { width: 1280, height: 720, frameRate: 15 } };
const SMALL = { width: 160, height: 90 };
const LARGE = { width: 1280, height: 720 };
// What nobody watches any more is sent on for some seconds, in case somebody looks again.
const PATIENT = { seconds: 45 };

stage();

/** Frames that a page has encoded so far, by RID, in one codec or in all. */
async function encoded(page, codec = '') {
  const entries = await videoStatistics(page, 'outbound-rtp');
  const wanted = entries.filter(({ mimeType = '' }) => mimeType.toLowerCase().endsWith(codec));
  return Object.fromEntries(wanted.map(({ rid = '', framesEncoded }) => [rid, framesEncoded]));
}

const encodes = (page, rid) => grows(`frames encoded of ${rid}`, async () => (await encoded(page))[rid], 5, PATIENT);
const encodesNo = (page, rid) => stopsGrowing(`the encoding of ${rid}`, async () => (await encoded(page))[rid], 2_500, PATIENT);

/** The picture that a page receives: its width, and how many bytes and frames there have been. */
async function picture(page) {
  const entries = await videoStatistics(page, 'inbound-rtp');
  const [{ frameWidth = 0, framesDecoded = 0, bytesReceived = 0, mimeType = '' } = {}] = entries;
  return { frameWidth, framesDecoded, bytesReceived, mimeType: mimeType.toLowerCase() };
}

/** Waits until a page keeps getting pictures of this width. Until the network is known, and while a layer starts, it may get others. */
async function gets(page, width) {
  let seen;
  await until(`pictures are ${width} wide`, async () => {
    const { frameWidth, framesDecoded } = await picture(page);
    if (frameWidth !== width) seen = framesDecoded;
    seen ??= framesDecoded;
    if (frameWidth !== width || framesDecoded < seen + 10) throw new Error(`frame ${framesDecoded} is ${frameWidth} wide`);
    return true;
  }, PATIENT);
}

const getsNothing = (page) => stopsGrowing('what is received', async () => (await picture(page)).bytesReceived, 2_500, PATIENT);

/** Shows the first remote picture at a size, or, null, nowhere. */
function show(page, size) {
  return page.evaluate(async (wanted) => {
    let video;
    while (!(video = document.querySelector('video'))) await new Promise((resume) => { setTimeout(resume, 20); });
    video.style.cssText = wanted ? `width: ${wanted.width}px; height: ${wanted.height}px` : 'display: none';
  }, size);
}

/** Asserts that publisher and viewers follow what is shown; `show` shows somebody's picture to a viewer at a size. */
async function follows(publisher, { small, full, hidden }, show, widths) {
  await Promise.all([show(small, SMALL), show(full, LARGE), show(hidden, null)]);
  await Promise.all([gets(small, widths.small), gets(full, widths.full), getsNothing(hidden), encodes(publisher, 'q'), encodes(publisher, 'f')]);

  // The middle one is in between, but nobody watches it.
  await encodesNo(publisher, 'h');
  await Promise.all([gets(small, widths.small), gets(full, widths.full), encodes(publisher, 'q'), encodes(publisher, 'f')]);

  // Nobody needs the larger layers any more.
  await show(full, SMALL);
  await gets(full, widths.small);
  await Promise.all([encodesNo(publisher, 'f'), encodesNo(publisher, 'h'), encodes(publisher, 'q')]);
  await Promise.all([gets(small, widths.small), gets(full, widths.small), getsNothing(hidden)]);

  // Nobody needs anything.
  await Promise.all([show(small, null), show(full, null)]);
  await Promise.all([getsNothing(small), getsNothing(full), ...['q', 'h', 'f'].map((rid) => encodesNo(publisher, rid))]);

  // And back.
  await Promise.all([show(hidden, LARGE), show(small, SMALL)]);
  await Promise.all([gets(hidden, widths.full), gets(small, widths.small), getsNothing(full), encodes(publisher, 'f')]);
}

test('LiveKit’s SDK: what is encoded and sent follows what is shown', { timeout: 240_000 }, async () => {
  const options = { adaptiveStream: true, dynacast: true };
  const connect = async (identity) => LivekitClient.connect(await newPage(browser), site, cluster, 'adaptive', identity, options);
  const publisher = await connect('publisher');
  await publisher.publishCamera(CAMERA, { videoCodec: 'vp8' });
  const viewers = { small: (await connect('small')).page, full: (await connect('full')).page, hidden: (await connect('hidden')).page };
  await follows(publisher.page, viewers, show, { small: 320, full: 1280 });
  await Promise.all([publisher.page, ...Object.values(viewers)].map((page) => page.context().close()));
});

test('the page: what is encoded and sent follows what is shown', { timeout: 240_000 }, async () => {
  const join = async (name, on) => {
    const page = await newPage(browser, { width: 1600, height: 900 });
    const call = await CallPage.open(page, cluster, 'adaptive-page', name);
    // One camera is enough for a machine that has to encode it three times.
    if (!on) await page.keyboard.press('v');
    await page.click('#join');
    await call.state('joined');
    return call;
  };
  const publisher = await join('publisher', true);
  const viewers = { small: (await join('small', false)).page, full: (await join('full', false)).page, hidden: (await join('hidden', false)).page };
  const showTile = (page, size) => page.evaluate(async (wanted) => {
    let tile;
    while (!(tile = document.querySelector('[data-participant^="publisher-"]'))) await new Promise((resume) => { setTimeout(resume, 20); });
    tile.style.cssText = wanted ? `width: ${wanted.width}px; height: ${wanted.height}px; flex: none` : 'display: none';
  }, size);
  await follows(publisher.page, viewers, showTile, { small: 320, full: 1280 });
  for (const { page } of [publisher]) assert.deepEqual(page.errors, []);
  await Promise.all([publisher.page, ...Object.values(viewers)].map((page) => page.context().close()));
});

/** A page whose browser does not know a codec. */
async function pageWithout(codec) {
  const page = await newPage(browser);
  await page.context().addInitScript((unknown) => {
    const { setRemoteDescription } = RTCPeerConnection.prototype;
    RTCPeerConnection.prototype.setRemoteDescription = async function without(description) {
      await setRemoteDescription.call(this, description);
      if (description.type !== 'offer') return;
      const codecs = RTCRtpReceiver.getCapabilities('video').codecs.filter(({ mimeType }) => mimeType.toLowerCase() !== unknown);
      for (const one of this.getTransceivers()) if (one.receiver.track.kind === 'video') one.setCodecPreferences(codecs);
    };
  }, codec);
  return page;
}

test('a backup codec is sent as long as somebody can decode no other', { timeout: 180_000 }, async () => {
  const options = { dynacast: true };
  const connect = async (page, identity) => LivekitClient.connect(page, site, cluster, 'backup', identity, options);
  const publisher = await connect(await newPage(browser), 'publisher');
  await publisher.publishCamera(
    { resolution: { width: 640, height: 360, frameRate: 15 } },
    { videoCodec: 'vp9', scalabilityMode: 'L1T3', backupCodec: { codec: 'vp8' } },
  );
  const able = await connect(await newPage(browser), 'able');
  const decodes = async ({ page, identity }, codec) => {
    await until(`${identity} gets ${codec}`, async () => (await picture(page)).mimeType === `video/${codec}`, PATIENT);
    await grows(`frames of ${identity}`, async () => (await picture(page)).framesDecoded, 15, PATIENT);
  };
  await decodes(able, 'vp9');
  assert.deepEqual(await encoded(publisher.page, 'vp8'), {}, 'nobody needs the backup');

  const unable = await connect(await pageWithout('video/vp9'), 'unable');
  await Promise.all([decodes(unable, 'vp8'), decodes(able, 'vp9')]);
  assert.ok((await videoStatistics(publisher.page, 'outbound-rtp')).length > 1);

  await unable.leave();
  const inBackup = async () => Object.values(await encoded(publisher.page, 'vp8')).reduce((sum, frames) => sum + frames, 0);
  await stopsGrowing('the backup', inBackup, 2_500, PATIENT);
  await decodes(able, 'vp9');
  await Promise.all([publisher, able, unable].map(({ page }) => page.context().close()));
});
