// A call of several people with LiveKit's SDK, and what each of them saw, heard and was told while something happened to the system.

import { setTimeout as pause } from 'node:timers/promises';
import { newPage } from './chromium.js';
import { watchContinuity } from './continuity.js';
import { LivekitClient } from './livekit.js';
import { until } from './wait.js';

export const NAMES = ['ann', 'ben', 'cleo', 'dan'];

// Four encoders and twelve decoders share the machine with the system under test. Silence is sent as well, so that its absence tells.
const OPTIONS = { publishDefaults: { dtx: false, simulcast: false, videoEncoding: { maxBitrate: 250_000, maxFramerate: 20 } } };
const CAPTURE = { resolution: { width: 320, height: 180, frameRate: 20 } };

// What an application, and with it a person, notices.
const NOTICED = ['disconnected', 'restarting', 'left', 'joined', 'unsubscribed', 'subscribed', 'published', 'unpublished', 'muted', 'unmuted'];

export class Call {
  /** Everybody connects, publishes and sees and hears everybody else. `pages` has those for whom not a new page of the browser shall do. */
  static async begin(fleet, browser, site, room, { names = NAMES, pages = {} } = {}) {
    const call = new Call();
    call.room = room;
    call.clients = await Promise.all(names.map(async (identity) => {
      const page = pages[identity] ?? await newPage(browser, undefined, watchContinuity);
      const client = await LivekitClient.connect(page, site, fleet, room, identity, OPTIONS);
      await page.evaluate(async (capture) => {
        const { localParticipant } = window.client.room;
        await localParticipant.setCameraEnabled(true, capture);
        await localParticipant.setMicrophoneEnabled(true);
      }, CAPTURE);
      return client;
    }));
    await call.flows();
    return call;
  }

  client(identity) { return this.clients.find((one) => one.identity === identity); }

  /** Waits until all pictures and sounds of everybody have come for a second. */
  flows({ seconds = 30, but = [] } = {}) {
    return until(`all of ${this.room} see and hear each other`, async () => {
      for (const { identity, page } of this.clients) {
        const lately = await page.evaluate(() => window.continuity.lately(1_000));
        for (const { identity: other } of this.clients) {
          if (other === identity) continue;
          if (!(lately[`video ${other}`] >= 4)) throw new Error(`${identity} got ${lately[`video ${other}`] ?? 0} pictures of ${other} in a second`);
          if (!but.includes(`audio ${other}`) && !(lately[`audio ${other}`] >= 10)) throw new Error(`${identity} heard ${other} ${lately[`audio ${other}`] ?? 0} times in a second`);
        }
      }
      return true;
    }, { seconds, everyMs: 250 });
  }

  /** Begins to look; `happens` is then done, which may say when (`{at}`, the first of several), and afterwards watched until all flows again and for `afterMs` more. Gives a [`Watched`]. */
  async watch(happens, { afterMs = 1_500, ...options } = {}) {
    const before = await this.#each(() => [window.client.events.length, window.watched.connections.length]);
    const since = Date.now();
    const given = await happens();
    const [first] = [given].flat();
    const fault = typeof first === 'object' ? first.at : since;
    // What has not stopped yet flows: the first second after a fault proves nothing.
    await pause(1_000);
    const failure = await this.flows(options).then(() => null, (error) => error);
    await pause(afterMs);
    const seen = await this.#each((from) => window.continuity.since(from), since);
    const events = await this.#each(() => window.client.events);
    const connections = await this.#each(() => window.watched.connections.length);
    const answers = await this.#each(() => window.watched.answers);
    return new Watched({
      fault,
      failure,
      streams: this.clients.flatMap(({ identity }, index) => Object.entries(seen[index]).map(([key, one]) => ({ viewer: identity, key, ...one }))),
      events: this.clients.flatMap(({ identity }, index) => events[index].slice(before[index][0]).map((event) => ({ client: identity, ...event }))),
      answers: Object.fromEntries(this.clients.map(({ identity }, index) => [identity, answers[index]])),
      connections: this.clients.map((_, index) => connections[index] - before[index][1]),
    });
  }

  /** What everybody knows of everybody, with the publisher's own knowledge: `{client: {identity: …}}`. */
  async rosters() {
    const rosters = await this.#each(() => window.client.roster());
    return Object.fromEntries(this.clients.map(({ identity }, index) => [identity, rosters[index]]));
  }

  /** Sends a message each way between two, and waits until both have come. */
  async data(from, to, reliable) {
    for (const [sender, receiver] of [[from, to], [to, from]]) {
      const text = `${reliable} ${sender} ${Date.now()}`;
      await this.client(sender).send(text, reliable);
      await until(`${receiver} gets "${text}"`, async () => {
        // Lossy may mean lost.
        if (!reliable) await this.client(sender).send(text, reliable);
        return (await this.client(receiver).data()).find((one) => one.text === text && one.from === sender && one.reliable === reliable);
      }, { seconds: 10 });
    }
  }

  /** All go, without a word, as a browser does that is closed. */
  async end() {
    await Promise.all(this.clients.map(({ page }) => page.close()));
  }

  #each(run, argument) {
    return Promise.all(this.clients.map(({ page }) => page.evaluate(run, argument)));
  }
}

/** What happened to a call. Times are in milliseconds. */
export class Watched {
  constructor(all) { Object.assign(this, all); }

  /** The longest time that any picture (`video`) or sound (`audio`) stood still. */
  gap(kind) { return Math.max(...this.#of(kind).map(({ longest }) => longest)); }

  /** From the fault until the last of the pictures (or sounds) that it stopped was there again; 0: it stopped none. */
  backAfter(kind, leastGap = 250) {
    const stopped = this.#of(kind).filter(({ longest }) => longest >= leastGap);
    return Math.max(0, ...stopped.map(({ back }) => (back === null ? Infinity : back - this.fault)));
  }

  /** What applications were told that a person would notice: `client type identity kind`. */
  get noticed() {
    return this.events.filter(({ type }) => NOTICED.includes(type)).map(({ client, type, identity, kind }) => [client, type, identity, kind].filter(Boolean).join(' '));
  }

  /**
   * From the fault until the last client whose signaling broke has got a message on another WebSocket; 0: none broke. The SDK's event comes later: it
   * waits for two seconds before it looks at its peer connections.
   */
  get signalingBackAfter() {
    const back = [...this.clientsTold('resuming')].map((client) => this.answers[client].find((at) => at > this.fault) ?? Infinity);
    return Math.max(0, ...back.map((at) => at - this.fault));
  }

  clientsTold(type) { return new Set(this.events.filter((event) => event.type === type).map(({ client }) => client)); }

  /** How many clients have resumed their signaling, whereof an application is told, but nobody sees anything. */
  get resumed() { return this.clientsTold('resuming').size; }

  /** One line for a person. */
  get line() {
    const others = this.noticed.length > 0 ? `; noticed: ${this.noticed.join(', ')}` : '';
    return `pictures: longest gap ${ms(this.gap('video'))}, moving again after ${ms(this.backAfter('video'))}; sound: longest gap ${ms(this.gap('audio'))}; `
      + `${this.resumed} resumed, ${this.connections.reduce((sum, count) => sum + count, 0)} new peer connections${others}${this.failure ? `; ${this.failure.message}` : ''}`;
  }

  /** A line for each stream. */
  get table() {
    return this.streams.map(({ viewer, key, longest, from, back }) => (
      `${viewer.padEnd(5)} ${key.padEnd(11)} stood still for ${ms(longest).padStart(8)}, from ${ms(from - this.fault).padStart(8)} to ${back === null ? 'the end' : ms(back - this.fault)}`
    )).join('\n');
  }

  #of(kind) { return this.streams.filter(({ key }) => key.startsWith(kind)); }
}

const ms = (value) => `${Math.round(value)} ms`;
