// Waiting for what becomes true, with a limit that a slow machine does not reach.

import { setTimeout as pause } from 'node:timers/promises';

/**
 * Asks `probe` until it gives something truthy, and gives that. What the probe throws counts as "not yet" and is told when time is
 * up, as is its last answer.
 */
export async function until(what, probe, { seconds = 30, everyMs = 100 } = {}) {
  const end = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      const seen = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`not within ${seconds} s: ${what} (last: ${seen})`);
    }
    await pause(everyMs);
  }
}

/** Asks `read` for a number now, and then until it has grown by `by`; gives the new one. */
export async function grows(what, read, by, options) {
  let now;
  await until(`${what} can be read`, async () => Number.isFinite(now = await read()), options);
  const before = now;
  await until(`${what} grows by ${by} from ${before}`, async () => (now = await read()) >= before + by, options)
    .catch((error) => { throw new Error(`${error.message}, at ${now}`); });
  return now;
}

/** Waits until what `read` gives stands still for `forMs`; give what may still be on its way the time to arrive. */
export function stopsGrowing(what, read, forMs = 2_500, options = {}) {
  return until(`${what} stands still for ${forMs} ms`, async () => {
    const before = await read();
    await pause(forMs);
    return (await read()) === before;
  }, options);
}
