// Participants without a peer connection: ffmpeg and GStreamer, with the very command lines that the join answers, in calls with the page.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage } from './lib/chromium.js';
import { KEY, SECRET, startDev } from './lib/cluster.js';
import { binary } from './lib/processes.js';
import { decodedFrames, freePorts, Shell } from './lib/shell.js';
import { until } from './lib/wait.js';

const ROOM = 'srtp';
const VP8_AND_OPUS = [{ kind: 'video', codec: 'vp8' }, { kind: 'audio', codec: 'opus' }];

let cluster;
let browser;
let ann;
const shells = [];

before(async () => {
  cluster = await startDev();
  browser = await launchChromium();
  ann = await CallPage.join(await newPage(browser), cluster, ROOM, 'ann');
});

after(async () => {
  await Promise.all(shells.map((shell) => shell.stop()));
  await browser?.close();
  await cluster?.stop();
});

/** Joins without a peer connection; gives the reply. */
async function join(identity, body) {
  const response = await fetch(`${cluster.url}/v1/rooms/${ROOM}/join`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${await cluster.token(ROOM, identity)}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ transport: 'srtp', ...body }),
  });
  const reply = await response.json();
  assert.equal(response.status, 201, reply.detail);
  return reply;
}

/** Runs a script as a person would who pastes it. */
async function paste(script) {
  const shell = await Shell.run(script);
  shells.push(shell);
  return shell;
}

/** Leaves, as a client that says so. */
async function leave(reply, identity) {
  const url = `${cluster.url}/v1/rooms/${ROOM}/participants/${reply.participant.id}`;
  const response = await fetch(url, { method: 'DELETE', headers: { Authorization: `Bearer ${await cluster.token(ROOM, identity)}` } });
  assert.equal(response.status, 204);
}

/** Publishes with a line of the reply, until the page has seen (and heard) it; then leaves, and the page sees that too. */
async function publishes(identity, tool, body) {
  const reply = await join(identity, { subscribe: false, ...body });
  const line = reply.examples[tool].publish;
  assert.ok(line, `${tool} has a line for it`);
  const shell = await paste(line);
  const wait = body.publish.length > 1 ? ann.seesAndHears(identity) : ann.seesFrames(identity);
  const frames = await wait.catch((error) => { throw new Error(`${error.message}\n${shell.output()}`); });
  await leave(reply, identity);
  await ann.sawLeave(identity);
  await shell.stop();
  return frames;
}

/** Records what the page publishes with lines of the reply; gives the decoded frames. */
async function records(identity, tool, body = {}) {
  const reply = await join(identity, { receive_port: await freePorts(4), ...body });
  assert.equal(reply.receive.length, 2, 'a stream for the camera and one for the microphone');
  const shell = await paste(reply.examples[tool].receive);
  const enough = 200_000;
  await until(`${tool} has recorded ${enough} bytes`, () => shell.size('received.mkv', enough), { seconds: 60 })
    .catch((error) => { throw new Error(`${error.message}\n${shell.output()}`); });
  await leave(reply, identity);
  await shell.interrupt();
  return { video: await decodedFrames(shell.path('received.mkv'), 'v'), audio: await decodedFrames(shell.path('received.mkv'), 'a') };
}

test('ffmpeg publishes with the line of the reply, and a browser decodes it', { timeout: 120_000 }, async (t) => {
  t.diagnostic(`frames decoded: ${await publishes('vp8cam', 'ffmpeg', { publish: VP8_AND_OPUS })}`);
});

test('ffmpeg publishes H.264, and a browser decodes it', { timeout: 120_000 }, async (t) => {
  t.diagnostic(`frames decoded: ${await publishes('h264cam', 'ffmpeg', { publish: [{ kind: 'video', codec: 'h264' }] })}`);
});

test('GStreamer publishes with the line of the reply, and a browser decodes it', { timeout: 120_000 }, async (t) => {
  t.diagnostic(`frames decoded: ${await publishes('gstcam', 'gstreamer', { publish: VP8_AND_OPUS })}`);
});

test('GStreamer publishes encrypted with AES-GCM, and a browser decodes it', { timeout: 120_000 }, async (t) => {
  const body = { publish: [{ kind: 'video', codec: 'vp8' }], suite: 'AEAD_AES_128_GCM' };
  t.diagnostic(`frames decoded: ${await publishes('gcmcam', 'gstreamer', body)}`);
});

test('a browser publishes, and ffmpeg records it from the SDP of the reply', { timeout: 120_000 }, async (t) => {
  const { video, audio } = await records('ffrec', 'ffmpeg');
  t.diagnostic(`decoded from the recording: ${video} pictures, ${audio} frames of sound`);
  assert.ok(video >= 15 && audio >= 50, `${video} pictures, ${audio} frames of sound`);
});

test('a browser publishes, and GStreamer records it', { timeout: 120_000 }, async (t) => {
  const { video, audio } = await records('gstrec', 'gstreamer');
  t.diagnostic(`decoded from the recording: ${video} pictures, ${audio} frames of sound`);
  assert.ok(video >= 15 && audio >= 50, `${video} pictures, ${audio} frames of sound`);
});

test('the lines of the README are a call', { timeout: 120_000 }, async (t) => {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const block = readme.split('```').find((part) => part.startsWith('sh\n') && part.includes('"transport":"srtp"'));
  const lines = block.replace(/^sh\n/, '')
    .replaceAll('cargo run --release -- token', `${binary('signalbox')} token --key ${KEY} --secret ${SECRET}`)
    .replaceAll('http://127.0.0.1:7880', cluster.url);
  assert.ok(lines.includes(cluster.url));
  const page = await CallPage.join(await newPage(browser), cluster, 'daily', 'ben');
  const shell = await paste(lines);
  const frames = await page.seesAndHears('camera').catch((error) => { throw new Error(`${error.message}\n${shell.output()}`); });
  t.diagnostic(`frames decoded: ${frames}`);
});
