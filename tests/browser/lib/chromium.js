// Debian's Chromium, headless, with a made-up camera (a moving picture) and microphone (beeps).

import { chromium } from 'playwright-core';
import { watchMedia } from './media-watch.js';

export const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // Several pages call each other from one machine: none may be slowed because another window is in front of it.
  '--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding', '--disable-background-timer-throttling',
];

/** Starts the browser, with more flags if need be. End it with `close()`. */
export function launchChromium(more = []) {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: [...FLAGS, ...more] });
}

/** A page in a profile of its own, in which these scripts run before its own. Errors that no script of it caught are collected in `page.errors`. */
export async function newPage(browser, viewport = { width: 1280, height: 800 }, ...scripts) {
  const context = await browser.newContext({ viewport, permissions: ['camera', 'microphone'] });
  for (const script of [watchMedia, ...scripts]) await context.addInitScript(script);
  const page = await context.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(error.message));
  return page;
}

/** See `watched.received` in media-watch.js. */
export function received(page) {
  return page.evaluate(() => window.watched.received());
}

/** The entries about video of a type (`inbound-rtp`, `outbound-rtp`), with their codec as `mimeType`. */
export function videoStatistics(page, type) {
  return page.evaluate((wanted) => window.watched.statistics(wanted), type);
}
