// End-to-end encryption of LiveKit's SDK: the node forwards, chooses layers and finds key frames without the key.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newPage } from './lib/chromium.js';
import { LivekitClient } from './lib/livekit.js';
import { browser, cluster, site, stage } from './lib/stage.js';
import { grows, until } from './lib/wait.js';

const WIDTH = 960;
const CAMERA = { resolution: { width: WIDTH, height: 540, frameRate: 15 } };
const SMALL_CAMERA = { resolution: { width: 320, height: 180, frameRate: 15 } };
const KEY = 'known to those who may see';
const PATIENT = { seconds: 45 };

stage();

async function publish(client, camera, options) {
  // A browser that has other work would encode a smaller picture, and less than all layers of it.
  await client.publishCamera(camera, { backupCodec: false, degradationPreference: 'maintain-resolution', ...options });
  await client.mute(false);
}

/** Asks for a layer of what `from` publishes: 0 is the lowest. */
function wantQuality(client, from, quality) {
  return client.page.evaluate(([identity, wanted]) => {
    const publisher = [...window.client.room.remoteParticipants.values()].find((one) => one.identity === identity);
    publisher.getTrackPublication('camera').setVideoQuality(wanted);
  }, [from, quality]);
}

/** Waits until frames of a width that fits go on to be decoded. */
async function decodes(client, from, what, fits) {
  let seen;
  await until(`frames that are ${what}`, async () => {
    const { frameWidth, framesDecoded } = await client.from(from);
    if (!fits(frameWidth)) seen = undefined;
    else seen ??= framesDecoded;
    if (seen === undefined || framesDecoded < seen + 10) throw new Error(`frame ${framesDecoded} is ${frameWidth} wide`);
    return true;
  }, PATIENT);
}

// The SDK encrypts no AV1.
for (const codec of ['vp8', 'h264', 'vp9']) {
  test(`${codec.toUpperCase()}: whoever has the key sees and hears, in every layer, and nobody else does`, { timeout: 180_000 }, async (t) => {
    const join = async (identity, key) => LivekitClient.connect(await newPage(browser), site, cluster, `secret-${codec}`, identity, {}, key);
    const [ann, ben] = [await join('ann', KEY), await join('ben', KEY)];
    // The made-up camera is one for all pages: opened for both at once, it may give the larger picture to neither.
    await publish(ann, CAMERA, { videoCodec: codec });
    await publish(ben, SMALL_CAMERA, { videoCodec: codec, simulcast: false });
    await Promise.all([ann.seesAndHears('ben'), ben.seesAndHears('ann')]);
    await Promise.all([ann.saw('encrypted', 'ann'), ann.saw('encrypted', 'ben'), ben.saw('encrypted', 'ann'), ben.saw('encrypted', 'ben')]);

    await decodes(ben, 'ann', 'of the top layer', (width) => width === WIDTH);
    await wantQuality(ben, 'ann', 0);
    await decodes(ben, 'ann', 'of the lowest layer', (width) => width > 0 && width <= WIDTH / 2);
    await wantQuality(ben, 'ann', 2);
    await decodes(ben, 'ann', 'of the top layer', (width) => width === WIDTH);

    // Who comes late needs a key frame, and who has another key gets all the same packets.
    const [late, stranger] = [await join('late', KEY), await join('stranger', 'another key')];
    await late.seesAndHears('ann');
    await grows('what the stranger gets', async () => (await stranger.from('ann')).videoBytes, 50_000);
    await stranger.saw('encryption error', 'ann');
    const { framesDecoded, audioPackets, audioEnergy } = await stranger.from('ann');
    assert.equal(framesDecoded, 0);
    assert.ok(audioPackets > 0);
    assert.ok(audioEnergy < 1e-6, `audible: ${audioEnergy}`);

    for (const reliable of [true, false]) {
      const text = `secret, ${reliable}`;
      await until(`ben reads "${text}"`, async () => {
        await ann.send(text, reliable);
        return (await ben.data()).some((one) => one.text === text && one.from === 'ann');
      }, { everyMs: 300 });
    }
    assert.deepEqual(await stranger.data(), []);
    for (const client of [ann, ben, late]) {
      assert.deepEqual((await client.events()).filter(({ type }) => type === 'encryption error'), [], client.identity);
    }
    t.diagnostic(`frames decoded: with the key ${(await ben.from('ann')).framesDecoded}, late ${(await late.from('ann')).framesDecoded}, without 0`);
    await Promise.all([ann, ben, late, stranger].map(({ page }) => page.context().close()));
  });
}
