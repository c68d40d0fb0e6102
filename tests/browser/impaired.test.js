// A viewer behind a bad network, in each codec: its capacity falls and comes back, then packets are lost.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { defineBusyCamera } from './lib/busy-camera.js';
import { launchChromium, newPage } from './lib/chromium.js';
import { startDev } from './lib/cluster.js';
import { LivekitClient, serveLivekitPage } from './lib/livekit.js';
import { Viewing } from './lib/viewing.js';
import { until } from './lib/wait.js';

const HIGH = { down: { capacity_bps: 3_000_000, delay_ms: 25 }, up: { delay_ms: 25 } };
const LOW = { down: { capacity_bps: 400_000, delay_ms: 25 }, up: { delay_ms: 25 } };
const LOSSY = { down: { loss: 0.05, delay_ms: 50 }, up: { loss: 0.05, delay_ms: 50 } };
const LOW_SECONDS = 9;
const LOSSY_SECONDS = 8;

// The SDK sends three simulcast layers from 960 pixels on, and Chromium a third spatial layer only if the smallest has 240 by 135. AV1 takes too
// long to encode for a picture of that size: it has two layers.
const CODECS = [
  { codec: 'vp8', width: 960, height: 540, fps: 15 },
  { codec: 'h264', width: 960, height: 540, fps: 15 },
  { codec: 'vp9', width: 960, height: 540, fps: 15 },
  { codec: 'av1', width: 640, height: 360, fps: 12 },
];

let cluster;
let browser;
let site;

before(async () => {
  [cluster, browser, site] = await Promise.all([startDev({ seed: 7 }), launchChromium(), serveLivekitPage()]);
});

after(async () => {
  await browser?.close();
  await site?.close();
  await cluster?.stop();
});

async function connect(room, identity) {
  const page = await newPage(browser);
  await page.addInitScript(defineBusyCamera);
  return LivekitClient.connect(page, site, cluster, room, identity);
}

function publish(publisher, settings) {
  return publisher.page.evaluate(async ({ codec, width, height, fps }) => {
    const preset = (share, maxBitrate) => new window.LivekitClient.VideoPreset(width / share, height / share, maxBitrate, fps);
    await window.client.room.localParticipant.publishTrack(window.busyCamera(width, height, fps), {
      source: 'camera', videoCodec: codec, backupCodec: false, simulcast: true, degradationPreference: 'maintain-resolution',
      videoEncoding: { maxBitrate: 1_000_000, maxFramerate: fps },
      videoSimulcastLayers: [preset(4, 120_000), preset(2, 350_000)],
    });
  }, settings);
}

for (const settings of CODECS) {
  const { codec, width, fps } = settings;
  test(`${codec.toUpperCase()}: less when the capacity falls, all again when it is back, and repaired when packets are lost`, { timeout: 110_000 }, async (t) => {
    const [publisher, viewer] = [await connect(codec, 'publisher'), await connect(codec, 'viewer')];
    await publish(publisher, settings);
    await until('a picture is decoded', async () => (await viewer.from('publisher')).framesDecoded > 0);
    const viewing = await Viewing.begin(viewer, cluster.network);
    const atTheTop = (seconds) => until(`${width} pixels are seen`, () => viewing.points.at(-1).width === width, { seconds });
    try {
      await viewing.impair(HIGH);
      await atTheTop(20);
      await pause(3_000);

      const drop = viewing.now;
      await viewing.impair(LOW);
      await pause(LOW_SECONDS * 1_000);
      const recovery = viewing.now;
      await viewing.impair(HIGH);
      await atTheTop(20);
      const back = viewing.now;
      await pause(1_000);

      const loss = viewing.now;
      await viewing.impair(LOSSY);
      await pause(LOSSY_SECONDS * 1_000);
      const end = viewing.now;

      // A probe for more room may be more than there is, for some milliseconds: two seconds of it are not.
      for (let second = drop + 2; second + 2 <= recovery; second += 1) {
        const sent = viewing.sent(second, second + 2);
        assert.ok(sent < LOW.down.capacity_bps, `${Math.round(sent)} bits per second ${Math.round(second - drop)} s after the drop`);
      }
      const low = viewing.between(drop + 3, recovery);
      assert.ok(low.every(({ width: seen }) => seen < width), `a smaller picture: ${low.map((point) => point.width)}`);
      assert.ok(viewing.grew('frames', drop + 3, recovery) > 3 * (LOW_SECONDS - 3), 'the picture goes on');
      // One outage, right after the drop; a frame that comes through in the middle of it makes two freezes of it.
      const outage = viewing.freezes(drop, drop + 4).reduce((sum, length) => sum + length, 0);
      assert.ok(outage < 3, `${outage} s frozen after the drop`);
      // Later at most one: a larger picture was tried, and its key picture was too much for the network after all.
      const later = viewing.freezes(drop + 4, loss).filter((length) => length > 0.5);
      assert.ok(later.length <= 1 && later.every((length) => length < 1), `frozen for ${later} s later`);
      assert.ok(back - recovery <= 15, `back after ${back - recovery} s`);

      assert.deepEqual(viewing.freezes(loss + 1, end).filter((length) => length > 0.5), []);
      const decoded = viewing.grew('frames', loss, end) / (end - loss);
      assert.ok(decoded > 0.6 * fps, `${decoded} frames per second under loss`);
      const buffer = viewing.jitterBuffer(loss + 1, end);
      assert.ok(buffer < 0.6, `${buffer} s in the jitter buffer`);
      assert.ok(viewing.grew('nacks', loss, end) > 0, 'packets were asked for again');
      t.diagnostic(`frozen for ${outage.toFixed(1)} s after the drop; back at ${width} pixels after ${(back - recovery).toFixed(1)} s; under loss ${decoded.toFixed(1)} fps, jitter buffer ${Math.round(buffer * 1000)} ms`);
    } finally {
      await viewing.stop();
      t.diagnostic(`${codec}: sent, width, decoded, jitter buffer\n${viewing.table()}`);
      await publisher.page.context().close();
      await viewer.page.context().close();
    }
  });
}
