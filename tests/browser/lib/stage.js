// What most tests of a file share: a whole system in one process, Chromium, and a page with LiveKit's SDK.

import { after, before } from 'node:test';
import { launchChromium } from './chromium.js';
import { startDev } from './cluster.js';
import { serveLivekitPage } from './livekit.js';

export let cluster;
export let browser;
export let site;

/** Sets them before the tests of the file that calls it, and ends them after. */
export function stage() {
  before(async () => {
    [cluster, browser, site] = await Promise.all([startDev(), launchChromium(), serveLivekitPage()]);
  });

  after(async () => {
    await browser?.close();
    await site?.close();
    await cluster?.stop();
  });
}
