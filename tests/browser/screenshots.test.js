// Pictures of a call at a desktop's and at a phone's size, for a person to look at.

import assert from 'node:assert/strict';
import { mkdtemp, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { launchChromium, newPage } from './lib/chromium.js';
import { startDev } from './lib/cluster.js';

const SIZES = { desktop: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

let cluster;
let browser;

before(async () => {
  cluster = await startDev();
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await cluster?.stop();
});

test('a call fits a desktop and a phone', { timeout: 150_000 }, async (t) => {
  const folder = process.env.SIGNALBOX_SCREENSHOTS ?? await mkdtemp(path.join(tmpdir(), 'signalbox-screenshots-'));
  const calls = [];
  for (const [name, size] of Object.entries(SIZES)) {
    const page = await newPage(browser, size);
    const call = await CallPage.open(page, cluster, 'Weekly', name);
    await page.screenshot({ path: path.join(folder, `lobby-${name}.png`) });
    await page.click('#join');
    await call.state('joined');
    calls.push(call);
  }
  calls.push(await CallPage.join(await newPage(browser), cluster, 'Weekly', 'third'));
  const [desktop, phone] = calls;
  await Promise.all([desktop.seesAndHears('phone'), desktop.seesAndHears('third'), phone.seesAndHears('desktop'), phone.seesAndHears('third')]);
  for (const { page, name } of [desktop, phone]) {
    const file = path.join(folder, `call-${name}.png`);
    await page.screenshot({ path: file });
    assert.ok((await stat(file)).size > 10_000);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `the page is ${overflow} px too wide for a ${name}`);
  }
  t.diagnostic(`screenshots: ${folder}`);
});
