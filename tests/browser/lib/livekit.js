// Drives the application of livekit-page/, and serves its files: the SDK's own bundle, as npm installed it, and two small files.

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { grows, until } from './wait.js';

const FILES = {
  '/': ['../livekit-page/index.html', 'text/html'],
  '/client.js': ['../livekit-page/client.js', 'text/javascript'],
  '/livekit-client.umd.js': ['../node_modules/livekit-client/dist/livekit-client.umd.js', 'text/javascript'],
  '/livekit-client.e2ee.worker.js': ['../node_modules/livekit-client/dist/livekit-client.e2ee.worker.js', 'text/javascript'],
};

/** Serves the application on a free port of 127.0.0.1: `{url, close()}`. */
export async function serveLivekitPage() {
  const server = createServer(async (request, response) => {
    const [file, type] = FILES[request.url.split('?')[0]] ?? [];
    if (!file) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8` }).end(await readFile(new URL(file, import.meta.url)));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    close() {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}

export class LivekitClient {
  constructor(page, identity) {
    this.page = page;
    this.identity = identity;
  }

  /** Opens the application, with these options of the SDK's `Room`, and connects it; with a `key`, encrypted end to end. */
  static async connect(page, site, cluster, room, identity, options = {}, key = '') {
    await page.goto(`${site.url}?${new URLSearchParams({ options: JSON.stringify(options), key })}`);
    await page.waitForFunction(() => window.client);
    const client = new LivekitClient(page, identity);
    await client.#run('connect', cluster.webSocketUrl, await cluster.token(room, identity));
    return client;
  }

  #run(name, ...args) {
    return this.page.evaluate(([method, values]) => window.client[method](...values).then(() => null), [name, args]);
  }

  publish() { return this.#run('publish'); }
  /** Publishes the camera alone: as the SDK's `VideoCaptureOptions` and `TrackPublishOptions` say. */
  publishCamera(capture, publish) {
    return this.page.evaluate(
      (options) => window.client.room.localParticipant.setCameraEnabled(true, ...options).then(() => null),
      [capture, publish],
    );
  }

  mute(on) { return this.#run('mute', on); }
  send(text, reliable) { return this.#run('send', text, reliable); }
  leave() { return this.#run('leave'); }

  events() { return this.page.evaluate(() => window.client.events); }
  data() { return this.page.evaluate(() => window.client.data); }

  /** What this client knows about `identity` and its tracks, or null. */
  knows(identity) {
    return this.page.evaluate((who) => {
      const participant = [...window.client.room.remoteParticipants.values()].find((one) => one.identity === who);
      return participant ? [...participant.trackPublications.values()].map(({ kind, isMuted, source }) => ({ kind, isMuted, source })) : null;
    }, identity);
  }

  /** The counters of `identity`, or of whoever's identity begins with it and a dash. */
  async from(name) {
    const all = await this.page.evaluate(() => window.client.stats());
    const identity = Object.keys(all).find((one) => one === name || one.startsWith(`${name}-`));
    return all[identity] ?? { frameWidth: 0, framesDecoded: 0, videoBytes: 0, audioPackets: 0, audioEnergy: 0 };
  }

  /** Waits for an event, which may have come already. */
  saw(type, identity, kind) {
    return until(`${this.identity} is told: ${type} ${identity ?? ''} ${kind ?? ''}`, async () => (
      (await this.events()).find((event) => event.type === type && (!identity || event.identity === identity) && (!kind || event.kind === kind))
    ));
  }

  /** Waits until picture and sound of `name` keep arriving. */
  async seesAndHears(name) {
    const frames = await grows(`${this.identity}: frames of ${name}`, async () => (await this.from(name)).framesDecoded, 15);
    await grows(`${this.identity}: sound of ${name}`, async () => (await this.from(name)).audioEnergy, 1e-6);
    return frames;
  }
}
