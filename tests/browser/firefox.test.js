// One call between Chromium and Firefox ESR.

import { after, before, test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage } from './lib/chromium.js';
import { networkAddress, startDev } from './lib/cluster.js';
import { launchFirefox } from './lib/firefox.js';

let cluster;
let chromium;
let firefox;

before(async () => {
  [cluster, chromium, firefox] = await Promise.all([startDev({ mediaIp: networkAddress() }), launchChromium(), launchFirefox()]);
});

after(async () => {
  await firefox?.close();
  await chromium?.close();
  await cluster?.stop();
});

test('Chromium and Firefox see and hear each other', { timeout: 180_000 }, async (t) => {
  const one = await CallPage.join(await newPage(chromium), cluster, 'browsers', 'chromium');
  const other = await CallPage.join(await firefox.newPage(), cluster, 'browsers', 'firefox');
  const [a, b] = await Promise.all([one.seesAndHears('firefox'), other.seesAndHears('chromium')]);
  t.diagnostic(`frames decoded: Chromium ${a}, Firefox ${b}`);
  await other.leave();
  await one.sawLeave('firefox');
});
