// What a loss or a drain costs a call of four, measured: a table with median and worst of several runs, against its bars. `tests/bench moves` runs it.
//
//   node bench-moves.js RUNS PART…      parts: killed lost drained gateway orchestrator firefox rooms, and each with -lossy behind

import { setTimeout as pause } from 'node:timers/promises';
import { Call } from './lib/call.js';
import { launchChromium } from './lib/chromium.js';
import { networkAddress } from './lib/cluster.js';
import { watchContinuity } from './lib/continuity.js';
import { launchFirefox } from './lib/firefox.js';
import { startFleet } from './lib/fleet.js';
import { serveLivekitPage } from './lib/livekit.js';
import { watchMedia } from './lib/media-watch.js';
import { SmallRooms } from './lib/small-rooms.js';
import { until } from './lib/wait.js';

const LEASE_MS = 2_000;
const ROOMS = 50;
const RATE = 5;

/** A figure of a run, and what it must be at most: in the median, and at worst. */
const figure = (name, of, median = Infinity, worst = Infinity, unit = 'ms') => ({ name, of, median, worst, unit });

const picture = (median, worst) => figure('all pictures move again after', (run) => run.backAfter('video'), median, worst);
const pictureGap = (median, worst) => figure('longest gap between pictures', (run) => run.gap('video'), median, worst);
const soundGap = (median, worst) => figure('longest gap of sound', (run) => run.gap('audio'), median, worst);
// Applications are told of the first two by LiveKit's SDK; the others are what those in the call see.
const noticed = figure('disconnected, rejoined, left', (run) => run.clientsTold('disconnected').size + run.clientsTold('restarting').size + run.clientsTold('left').size, 0, 0, '');
const resumed = figure('clients that resumed', (run) => run.resumed, Infinity, Infinity, '');
// The longest gap of a call to which nothing happens, on a machine that is busy with the whole call.
const NO_GAP = 250;

const parts = {
  nothing: { title: 'nothing happens', lose: () => pause(2_000), figures: [pictureGap(), soundGap()] },
  killed: {
    title: 'kill -9 of the media worker', lose: (fleet, node) => fleet.killWorker(node),
    figures: [picture(1_000, 2_000), soundGap(), noticed, resumed],
  },
  lost: {
    title: 'machine lost (SIGSTOP)', lose: (fleet, node) => fleet.freeze(node),
    figures: [picture(LEASE_MS + 1_500, LEASE_MS + 1_500), soundGap(), noticed, resumed, figure('datagrams after it was continued', (run) => run.late, 0, 0, '')],
    async afterwards(fleet, node, run) {
      const sent = await node.network.sent();
      node.thaw();
      await until('the node is back', async () => (await fleet.views()).find(({ node: id }) => id === node.id).live);
      await pause(500);
      run.late = await node.network.sent() - sent;
    },
  },
  drained: {
    title: 'drain', lose: (fleet, node) => fleet.signalbox('drain', node.id, '--wait', '--deadline', '30s'),
    figures: [pictureGap(300), soundGap(150), noticed, resumed],
    afterwards: (fleet, node) => fleet.signalbox('undrain', node.id),
  },
  gateway: {
    title: 'kill -9 of a gateway', lose: (fleet) => loseProcess(fleet.gateways[0]),
    figures: [pictureGap(NO_GAP), soundGap(NO_GAP), figure('signaling back after', (run) => run.signalingBackAfter, 3_000, 3_000), noticed],
    afterwards: (fleet) => fleet.startAgain(fleet.gateways[0]),
  },
  orchestrator: {
    title: 'kill -9 of an orchestrator', lose: (fleet) => loseProcess(fleet.orchestrators[0]),
    figures: [pictureGap(NO_GAP), soundGap(NO_GAP), noticed, resumed],
    afterwards: (fleet) => fleet.startAgain(fleet.orchestrators[0]),
  },
};

function loseProcess(one) {
  const at = Date.now();
  one.process.kill();
  return { at };
}

/** Runs a part with a call of its own; answers a `Watched`. */
async function callRun({ fleet, browser, site }, part, lossy, room) {
  const call = await Call.begin(fleet, browser, site, room).catch((error) => {
    process.stderr.write(`${room}: ${fleet.lines()}\n`);
    throw error;
  });
  try {
    if (lossy) await fleet.lossy(true);
    // The estimates of the bandwidth settle.
    await pause(1_500);
    const node = await fleet.nodeOf(room);
    const run = await call.watch(() => part.lose(fleet, node));
    await part.afterwards?.(fleet, node, run);
    if (run.failure) process.stderr.write(`${room}: ${run.failure.message}\n${run.table}\n${fleet.lines()}\n`);
    else if (process.env.VERBOSE) process.stderr.write(`${room} at ${run.fault}: ${run.line}\n${run.table}\n`);
    return run;
  } finally {
    await fleet.lossy(false);
    await call.end();
    await fleet.serving();
  }
}

/** What a part that is no call of four with a bad network in front needs and measures. */
const special = {
  firefox: {
    title: 'kill -9, Firefox ESR joins anew',
    figures: [
      figure('Firefox sees all again after', (run) => Math.max(...run.streams.filter(({ viewer, key }) => viewer === 'fox' && key.startsWith('video')).map(({ back }) => (back ?? Infinity) - run.fault)), 3_000, 3_000),
      figure('disconnected', (run) => run.clientsTold('disconnected').size, 0, 0, ''),
    ],
    async runs({ browser, site }, count, lossy) {
      const fleet = await startFleet({ mediaIp: networkAddress(), seed: 7 });
      try {
        return await times(count, async (index) => {
          // Another one each time: the SDK tries `/rtc/v1` first, and Firefox lets a URL whose WebSocket failed in the last minute wait, longer each time.
          const firefox = await launchFirefox();
          try {
            const page = await firefox.newPage();
            for (const script of [watchMedia, watchContinuity]) await page.evaluateOnNewDocument(script);
            const room = `firefox-${index}`;
            const call = await Call.begin(fleet, browser, site, room, { names: ['ann', 'ben', 'fox'], pages: { fox: page } });
            if (lossy) await fleet.lossy(true);
            const node = await fleet.nodeOf(room);
            const run = await call.watch(() => fleet.killWorker(node));
            await fleet.lossy(false);
            await call.end();
            await fleet.serving();
            return run;
          } finally {
            await firefox.close();
          }
        });
      } finally {
        await fleet.stop();
      }
    },
  },
  rooms: {
    title: `drain of ${ROOMS} rooms at ${RATE} a second`,
    figures: [
      figure('it took', ({ took }) => took),
      // Whoever has no peer connection is served by both nodes for two seconds, which the time that is said does not count.
      figure('largest error of the time that was said', ({ error }) => error, 3_500, 3_500),
      figure('rooms whose participant noticed', ({ broken }) => broken, 0, 0, ''),
    ],
    async runs(stage, count, lossy) {
      const fleet = await startFleet({ seed: 7 });
      const [node, other] = fleet.nodes;
      try {
        if (lossy) await fleet.lossy(true);
        return await times(count, async () => {
          await fleet.signalbox('drain', other.id, '--rate', '100', '--wait');
          const rooms = await SmallRooms.open(fleet, ROOMS);
          await fleet.signalbox('undrain', other.id);
          const [begun, said] = [Date.now(), []];
          const done = fleet.signalbox('drain', node.id, '--rate', String(RATE), '--wait').then(() => Date.now());
          await until('it is done', async () => {
            const drain = await fleet.drainOf(node);
            // Until it has begun, the answer is about the one before.
            if (!(drain.age_ms <= Date.now() - begun)) return false;
            if (drain.state === 'running' && drain.eta_ms !== undefined) said.push(Date.now() + drain.eta_ms);
            return drain.state === 'done';
          }, { everyMs: 200, seconds: 60 });
          const end = await done;
          const broken = rooms.all.filter(({ messages }) => messages.some((type) => ['left', 'joined', 'closed'].includes(type))).length;
          await rooms.close();
          await fleet.signalbox('undrain', node.id);
          // An empty room stays open for a while, and would be moved like any other.
          await until('nobody hosts anything', async () => (await fleet.views()).every(({ load }) => load.rooms === 0), { everyMs: 500, seconds: 60 });
          return { took: end - begun, error: said.length > 0 ? Math.max(...said.map((at) => Math.abs(at - end))) : Infinity, broken };
        });
      } finally {
        await fleet.stop();
      }
    },
  },
};

async function times(count, run) {
  const runs = [];
  for (let index = 0; index < count; index += 1) runs.push(await run(index));
  return runs;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

let missed = 0;
function row(title, { name, of, median: bar, worst: worstBar, unit }, runs) {
  const values = runs.map(of);
  const [middle, worst] = [median(values), Math.max(...values)];
  const holds = middle <= bar && worst <= worstBar;
  if (!holds) missed += 1;
  const show = (value) => (Number.isFinite(value) ? `${Math.round(value)}${unit && ` ${unit}`}` : '–');
  const bars = bar === Infinity && worstBar === Infinity ? '' : `${show(bar)} / ${show(worstBar)}`;
  process.stdout.write(`| ${title.padEnd(42)} | ${name.padEnd(40)} | ${show(middle).padStart(8)} | ${show(worst).padStart(8)} | ${bars.padStart(17)} | ${bars && (holds ? 'yes' : 'NO')} |\n`);
}

const [count, ...wanted] = process.argv.slice(2);
const [browser, site] = await Promise.all([launchChromium(), serveLivekitPage()]);
process.stdout.write(`| ${'what'.padEnd(42)} | ${''.padEnd(40)} | median   | worst    | bar               | holds |\n| --- | --- | ---: | ---: | ---: | --- |\n`);
for (const name of wanted) {
  const lossy = name.endsWith('-lossy');
  const plain = name.replace(/-lossy$/, '');
  const part = special[plain] ?? parts[plain];
  if (!part) throw new Error(`no such part: ${name}`);
  const title = part.title + (lossy ? ', 5% loss' : '');
  // A part that cannot be measured fails, and the others are measured all the same.
  try {
    let runs;
    if (part.runs) {
      runs = await part.runs({ browser, site }, Number(count), lossy);
    } else {
      // What one part left behind must not count in another one.
      const fleet = await startFleet({ seed: 7 });
      try {
        runs = await times(Number(count), (index) => callRun({ fleet, browser, site }, part, lossy, `${name}-${index}`));
      } finally {
        await fleet.stop();
      }
    }
    for (const one of part.figures) row(title, one, runs);
  } catch (error) {
    missed += 1;
    process.stdout.write(`| ${title.padEnd(42)} | failed: ${error.message.split('\n')[0]} |\n`);
    process.stderr.write(`${error.stack}\n`);
  }
}
await browser.close();
await site.close();
process.exitCode = missed > 0 ? 1 : 0;
