// What a publisher says in header extensions and in repeated sound reaches the viewer: agreed on in SDP, and of use to the receiver.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium, newPage } from './lib/chromium.js';
import { startDev } from './lib/cluster.js';
import { LivekitClient, serveLivekitPage } from './lib/livekit.js';
import { until } from './lib/wait.js';

const CAPTURE_TIME = 'http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time';
const DEPENDENCY_DESCRIPTOR = 'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';
const BOTH = [
  'urn:ietf:params:rtp-hdrext:sdes:mid',
  'http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01',
  'http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time',
  CAPTURE_TIME,
];
const WANTED = {
  audio: [...BOTH, 'urn:ietf:params:rtp-hdrext:ssrc-audio-level'],
  video: [...BOTH, 'urn:3gpp:video-orientation', 'http://www.webrtc.org/experiments/rtp-hdrext/playout-delay', DEPENDENCY_DESCRIPTOR],
};
const MIN_PLAYOUT_DELAY = 0.4;
// Of how many pictures it is looked at what they depend on: several of each layer.
const RUN = 20;
const [WIDTH, HEIGHT] = [640, 360];
// From 1900, where NTP begins, to 1970.
const NTP_MS = 2_208_988_800_000;

let cluster;
let browser;
let site;
let publisher;
let viewer;

before(async () => {
  // No page can ask a sender for a delay.
  const trial = `WebRTC-ForceSendPlayoutDelay/min_ms:${1000 * MIN_PLAYOUT_DELAY},max_ms:900/`;
  [cluster, browser, site] = await Promise.all([startDev(), launchChromium([`--force-fieldtrials=${trial}`]), serveLivekitPage()]);
  [publisher, viewer] = [await connect('publisher'), await connect('viewer')];
  await publisher.page.evaluate(publish, [WIDTH, HEIGHT]);
  await viewer.seesAndHears('publisher');
});

after(async () => {
  await browser?.close();
  await site?.close();
  await cluster?.stop();
});

async function connect(identity) {
  const page = await newPage(browser);
  await page.context().addInitScript(notePictures);
  await page.context().addInitScript(negotiateMore, [CAPTURE_TIME, DEPENDENCY_DESCRIPTOR]);
  return LivekitClient.connect(page, site, cluster, 'extensions', identity);
}

/** Runs inside a page: header extensions that Chromium knows and does not use unless it is asked to. */
function negotiateMore(uris) {
  for (const name of ['createOffer', 'createAnswer']) {
    const make = RTCPeerConnection.prototype[name];
    RTCPeerConnection.prototype[name] = function described(...args) {
      for (const transceiver of this.getTransceivers()) {
        const known = transceiver.getHeaderExtensionsToNegotiate();
        transceiver.setHeaderExtensionsToNegotiate(known.map((one) => (uris.includes(one.uri) ? { ...one, direction: 'sendrecv' } : one)));
      }
      return make.apply(this, args);
    };
  }
}

/** Runs inside a page: keeps what is known of each received picture in `window.pictures`. */
function notePictures() {
  const note = `onrtctransform = ({ transformer: { readable, writable } }) => readable.pipeThrough(new TransformStream({
    transform(frame, controller) {
      const { frameId, dependencies, temporalIndex } = frame.getMetadata();
      postMessage({ type: frame.type, frameId, dependencies, temporalIndex });
      controller.enqueue(frame);
    },
  })).pipeTo(writable)`;
  window.pictures = [];
  const { createAnswer } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.createAnswer = function noted(...args) {
    for (const { receiver } of this.getTransceivers()) {
      if (receiver.track.kind !== 'video' || receiver.transform) continue;
      const worker = new Worker(URL.createObjectURL(new Blob([note])));
      worker.onmessage = ({ data }) => window.pictures.push(data);
      receiver.transform = new RTCRtpScriptTransform(worker);
    }
    return createAnswer.apply(this, args);
  };
}

/** Runs inside a page: publishes a microphone, and a camera that is held upright. */
async function publish([width, height]) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  const track = new window.MediaStreamTrackGenerator({ kind: 'video' });
  const writer = track.writable.getWriter();
  let count = 0;
  setInterval(() => {
    count += 1;
    context.fillStyle = `hsl(${(count * 5) % 360} 50% 50%)`;
    context.fillRect(0, 0, width, height);
    writer.write(new VideoFrame(canvas, { timestamp: performance.now() * 1000, rotation: 90 }));
  }, 66);
  const { localParticipant } = window.client.room;
  await localParticipant.publishTrack(track, { source: 'camera', videoCodec: 'vp9', scalabilityMode: 'L1T3', backupCodec: false });
  await localParticipant.setMicrophoneEnabled(true);
}

/** The parts of a page's descriptions about media of a kind that it sends or receives, as it and the node have agreed on them. */
async function agreed(page, kind, type, direction) {
  const descriptions = await page.evaluate(() => window.watched.connections.flatMap((one) => [one.localDescription, one.remoteDescription])
    .filter(Boolean).map(({ type: what, sdp }) => ({ type: what, sdp })));
  const parts = descriptions.filter((one) => one.type === type).flatMap(({ sdp }) => sdp.split(/\r\n(?=m=)/).slice(1));
  const [part] = parts.filter((one) => one.startsWith(`m=${kind} `) && one.includes(`\r\na=${direction}\r\n`));
  return part.split('\r\n');
}

/** What the viewer's receiver of a kind knows: its statistics, and what its last packet said. */
function receiver(kind) {
  return viewer.page.evaluate(async (wanted) => {
    const tracks = [...window.client.room.remoteParticipants.values()].flatMap((one) => [...one.trackPublications.values()]);
    const { track } = tracks.find((one) => one.kind === wanted);
    const statistics = [...(await track.receiver.getStats()).values()].find(({ type }) => type === 'inbound-rtp');
    const [{ audioLevel, captureTimestamp } = {}] = track.receiver.getSynchronizationSources();
    return { ...statistics, audioLevel, captureTimestamp, now: Date.now() };
  }, kind);
}

for (const kind of ['audio', 'video']) {
  test(`${kind}: its header extensions are agreed on with publisher and viewer`, { timeout: 60_000 }, async () => {
    // The answers say what both sides do: the node's to the publisher, and the viewer's.
    for (const { page } of [publisher, viewer]) {
      const lines = await agreed(page, kind, 'answer', 'recvonly');
      const extensions = lines.filter((line) => line.startsWith('a=extmap:')).map((line) => line.split(' ')[1]);
      assert.deepEqual(WANTED[kind].filter((uri) => !extensions.includes(uri)), [], 'missing');
    }
  });
}

test('Opus is agreed on with redundancy and with its own error correction', { timeout: 60_000 }, async () => {
  for (const { page } of [publisher, viewer]) {
    const lines = await agreed(page, 'audio', 'answer', 'recvonly');
    const number = (format) => lines.find((line) => line.startsWith('a=rtpmap:') && line.endsWith(` ${format}`)).match(/\d+/)[0];
    const [opus, red] = [number('opus/48000/2'), number('red/48000/2')];
    assert.match(lines.find((line) => line.startsWith(`a=fmtp:${opus} `)), /useinbandfec=1/);
    assert.ok(lines.includes(`a=fmtp:${red} ${opus}/${opus}`), 'redundant Opus');
  }
});

test('sound arrives with what was sent before', { timeout: 60_000 }, async () => {
  const before = await receiver('audio');
  await until('most packets bring a copy of which there is no need', async () => {
    const { packetsReceived, packetsDiscarded } = await receiver('audio');
    const received = packetsReceived - before.packetsReceived;
    const copies = packetsDiscarded - before.packetsDiscarded;
    if (received < 50 || copies < received / 2) throw new Error(`${copies} copies in ${received} packets`);
    return true;
  });
});

test('the level of the sound is known to the viewer and moves', { timeout: 60_000 }, async () => {
  const levels = new Set();
  await until('three different levels', async () => {
    const { audioLevel } = await receiver('audio');
    if (audioLevel === undefined) throw new Error('no level');
    levels.add(audioLevel);
    return levels.size >= 3 && Math.max(...levels) > 0.01;
  }, { everyMs: 30 });
});

for (const kind of ['audio', 'video']) {
  test(`${kind}: when it was captured is known to the viewer`, { timeout: 60_000 }, async () => {
    const { captureTimestamp, now } = await until('a time', async () => {
      const one = await receiver(kind);
      return one.captureTimestamp && one;
    });
    const ago = now + NTP_MS - captureTimestamp;
    assert.ok(ago > -1_000 && ago < 10_000, `captured ${ago} ms ago`);
  });
}

test('a picture of a camera that is held upright is turned by the viewer', { timeout: 60_000 }, async () => {
  const { frameWidth, frameHeight } = await receiver('video');
  assert.ok(frameWidth > frameHeight, `sent as it is, not turned: ${frameWidth} by ${frameHeight}`);
  const shown = await viewer.page.evaluate(() => {
    const { videoWidth, videoHeight } = document.querySelector('video');
    return { videoWidth, videoHeight };
  });
  assert.deepEqual(shown, { videoWidth: frameHeight, videoHeight: frameWidth });
});

test('a picture is shown with the delay that its publisher asks for', { timeout: 60_000 }, async () => {
  let before = await receiver('video');
  await until('pictures wait for so long', async () => {
    const now = await receiver('video');
    if (now.jitterBufferEmittedCount < before.jitterBufferEmittedCount + 15) return false;
    const delay = (now.jitterBufferTargetDelay - before.jitterBufferTargetDelay) / (now.jitterBufferEmittedCount - before.jitterBufferEmittedCount);
    before = now;
    if (delay < 0.9 * MIN_PLAYOUT_DELAY) throw new Error(`${delay} s`);
    return true;
  });
});

test('what each picture depends on is known to the viewer', { timeout: 60_000 }, async () => {
  // A packet that is lost, or a way that is too narrow for a while, leaves pictures out or brings a key frame, which depends on nothing: then
  // it is looked for the next run that is whole.
  const received = await until('a run of pictures of all three layers, of which each one\'s dependencies were received', async () => {
    const all = await viewer.page.evaluate(() => window.pictures);
    const since = all.slice(Math.max(all.findLastIndex(({ type }) => type === 'key'), 0));
    // Some come several times: the node looks for more bandwidth with packets that it has sent before.
    const pictures = new Map(since.map((picture) => [picture.frameId, picture]));
    const run = [...pictures.values()].slice(1).slice(-RUN);
    const layers = new Set(run.map(({ temporalIndex }) => temporalIndex));
    const isWhole = run.every(({ dependencies }) => dependencies?.every((one) => pictures.has(one)));
    if (run.length < RUN || layers.size < 3 || !isWhole) throw new Error(JSON.stringify(since.slice(-RUN - 1)));
    return pictures;
  });
  for (const picture of [...received.values()].slice(-RUN)) {
    const { frameId, dependencies, temporalIndex } = picture;
    const depends = dependencies.map((one) => received.get(one));
    assert.ok(depends.length > 0 && depends.every((one) => one.frameId < frameId), `on earlier ones: ${JSON.stringify(picture)}`);
    assert.ok(depends.every((one) => one.temporalIndex <= temporalIndex), `on none of a layer above: ${JSON.stringify(picture)}`);
  }
});
