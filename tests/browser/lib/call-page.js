// The page that Signalbox serves, used as a person uses it: by its fields, buttons and keys. What arrives is read from its
// `window.signalbox.stats()`, which counts per publisher.
//
// It drives Playwright's and Puppeteer's pages alike, and so uses only what both of them have.

import { grows, until } from './wait.js';

const NOTHING = { framesDecoded: 0, videoBytes: 0, audioPackets: 0, audioEnergy: 0 };

export class CallPage {
  constructor(page, name) {
    this.page = page;
    this.name = name;
  }

  /** Opens the lobby with room and name filled in, and waits for camera and microphone. */
  static async open(page, cluster, room, name) {
    await page.goto(cluster.page(room, name));
    await page.waitForSelector('.preview[data-video="on"]');
    return new CallPage(page, name);
  }

  /** Opens the lobby and joins. */
  static async join(page, cluster, room, name) {
    const call = await CallPage.open(page, cluster, room, name);
    await page.click('#join');
    await call.state('joined');
    return call;
  }

  /** Waits until the page is in a state: lobby, joining, joined, lost, left. */
  state(wanted) {
    return until(`${this.name} is ${wanted}`, async () => {
      const [state, message] = await this.page.evaluate(() => [document.body.dataset.state, document.getElementById('message').textContent]);
      if (state !== wanted) throw new Error(`${state}: ${message}`);
      return true;
    });
  }

  async leave() {
    await this.page.click('#leave');
    await this.state('left');
  }

  /** The microphone's key: off when it was on, and back. */
  toggleMicrophone() {
    return this.page.keyboard.press('m');
  }

  /** The identity that the page made from the name. */
  async identity() {
    return this.page.evaluate(() => document.querySelector('[data-participant][data-local="true"]').dataset.participant);
  }

  /** The counters of a participant; a name stands for the guest whose identity begins with it. */
  async from(name) {
    const all = await this.page.evaluate(() => window.signalbox.stats());
    const identity = Object.keys(all).find((one) => isOf(one, name));
    if (!identity) return NOTHING;
    const sum = (entries, counter) => entries.reduce((total, entry) => total + entry[counter], 0);
    const { video, audio } = all[identity];
    return {
      framesDecoded: sum(video, 'framesDecoded'),
      videoBytes: sum(video, 'bytesReceived'),
      audioPackets: sum(audio, 'packetsReceived'),
      audioEnergy: sum(audio, 'totalAudioEnergy'),
    };
  }

  /** Waits until picture and sound of `name` keep arriving: frames decoded, and sound that is not silence. Gives the frames so far. */
  async seesAndHears(name) {
    const frames = await this.seesFrames(name);
    await grows(`${this.name}: sound of ${name}`, () => this.#counter(name, 'audioEnergy'), 1e-6);
    return frames;
  }

  /** Waits until the picture of `name` keeps arriving. Gives the frames so far. */
  seesFrames(name) {
    return grows(`${this.name}: frames of ${name}`, () => this.#counter(name, 'framesDecoded'), 15);
  }

  /** Not a number before anything of `name` is received: what carries it has counted for others before. */
  async #counter(name, counter) {
    const from = await this.from(name);
    return from === NOTHING ? NaN : from[counter];
  }

  /** What the tile of `name` says: `{muted, speaking, video}`, or null when there is none. */
  async tile(name) {
    const tiles = await this.page.evaluate(() => [...document.querySelectorAll('[data-participant]')].map(({ dataset }) => ({ ...dataset })));
    const tile = tiles.find(({ participant }) => isOf(participant, name));
    return tile ? { muted: tile.muted === 'true', speaking: tile.speaking === 'true', video: tile.video } : null;
  }

  /** Waits until the tile of `name` says so. */
  shows(name, wanted) {
    return until(`${this.name} shows ${name} as ${JSON.stringify(wanted)}`, async () => {
      const tile = await this.tile(name);
      return tile !== null && Object.entries(wanted).every(([key, value]) => tile[key] === value);
    });
  }

  /** Waits until nothing of `name` is received or shown any more. */
  sawLeave(name) {
    return until(`${this.name}: ${name} has left`, async () => (await this.tile(name)) === null && (await this.from(name)) === NOTHING);
  }
}

function isOf(identity, name) {
  return identity === name || identity.startsWith(`${name}-`);
}
