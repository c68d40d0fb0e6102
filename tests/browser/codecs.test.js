// Every codec passes through: one client publishes in it, another decodes it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newPage } from './lib/chromium.js';
import { LivekitClient } from './lib/livekit.js';
import { browser, cluster, site, stage } from './lib/stage.js';
import { grows } from './lib/wait.js';

stage();

for (const codec of ['vp8', 'h264', 'vp9', 'av1']) {
  test(`a picture in ${codec.toUpperCase()} is decoded at the far end`, { timeout: 120_000 }, async (t) => {
    const connect = async (identity) => LivekitClient.connect(await newPage(browser), site, cluster, codec, identity);
    const [publisher, viewer] = [await connect('publisher'), await connect('viewer')];
    await publisher.page.evaluate(
      (videoCodec) => window.client.room.localParticipant
        .setCameraEnabled(true, { resolution: { width: 640, height: 360, frameRate: 15 } }, { videoCodec, backupCodec: false })
        .then(() => null),
      codec,
    );
    const frames = await grows(`frames in ${codec}`, async () => (await viewer.from('publisher')).framesDecoded, 15);
    const decoded = await viewer.page.evaluate(async () => {
      const [participant] = window.client.room.remoteParticipants.values();
      const report = await participant.getTrackPublication('camera').track.receiver.getStats();
      const inbound = [...report.values()].find((entry) => entry.type === 'inbound-rtp');
      return { mimeType: report.get(inbound.codecId).mimeType, size: `${inbound.frameWidth}x${inbound.frameHeight}` };
    });
    t.diagnostic(`${frames} frames, ${decoded.size}`);
    assert.equal(decoded.mimeType.toLowerCase(), `video/${codec}`);
    await Promise.all([publisher.leave(), viewer.leave()]);
    await Promise.all([publisher.page.context().close(), viewer.page.context().close()]);
  });
}
