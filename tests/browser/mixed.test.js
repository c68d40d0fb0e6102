// Two dialects in one room: the page over HTTP, and livekit-client over its WebSocket.

import { test } from 'node:test';
import { CallPage } from './lib/call-page.js';
import { newPage } from './lib/chromium.js';
import { LivekitClient } from './lib/livekit.js';
import { browser, cluster, site, stage } from './lib/stage.js';
import { until } from './lib/wait.js';

stage();

test('a page and a livekit-client see and hear each other, and mute and leave are seen', { timeout: 150_000 }, async () => {
  const page = await CallPage.join(await newPage(browser), cluster, 'mixed', 'page');
  const sdk = await LivekitClient.connect(await newPage(browser), site, cluster, 'mixed', 'sdk');
  await sdk.publish();
  await Promise.all([page.seesAndHears('sdk'), sdk.seesAndHears('page')]);

  await sdk.mute(true);
  await page.shows('sdk', { muted: true });
  await page.toggleMicrophone();
  const identity = await page.identity();
  await until('the SDK is told of the mute', async () => (await sdk.knows(identity)).some(({ kind, isMuted }) => kind === 'audio' && isMuted));

  await page.leave();
  await sdk.saw('left', identity);
});
