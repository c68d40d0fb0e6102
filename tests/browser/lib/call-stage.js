// What the files about calls that lose parts of their system share: a fleet of processes, Chromium, a page with LiveKit's SDK, and the call.

import { after, afterEach, before } from 'node:test';
import { Call } from './call.js';
import { launchChromium } from './chromium.js';
import { startFleet } from './fleet.js';
import { serveLivekitPage } from './livekit.js';

export let fleet;
export let browser;
export let site;
export let call;

/** Sets them before the tests of the file that calls it, with these options of the fleet; ends each call, and what is lost is back, after each. */
export function callStage(options) {
  before(async () => {
    [fleet, browser, site] = await Promise.all([startFleet(options), launchChromium(), serveLivekitPage()]);
  });

  afterEach(async () => {
    await end();
    await fleet.repair();
  });

  after(async () => {
    await browser?.close();
    await site?.close();
    await fleet?.stop();
  });
}

/** Begins the call of a test, on another fleet if that is given. */
export async function begin(room, options, on = fleet) {
  call = await Call.begin(on, browser, site, room, options);
  return call;
}

/** Ends it, if there is one. */
export async function end() {
  await call?.end();
  call = undefined;
}
