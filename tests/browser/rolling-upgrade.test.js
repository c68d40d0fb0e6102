// deploy/rolling-upgrade replaces every process of a system by another version's, one at a time, under a live call.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { appendFile, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Balancer } from './lib/balancer.js';
import { Call } from './lib/call.js';
import { launchChromium } from './lib/chromium.js';
import { Cluster, KEY, newDatabase, SECRET } from './lib/cluster.js';
import { serveLivekitPage } from './lib/livekit.js';
import { binary, freePort } from './lib/processes.js';
import { freePorts } from './lib/shell.js';

const SCRIPT = fileURLToPath(new URL('../../deploy/rolling-upgrade', import.meta.url));
const BINARIES = ['signalbox', 'signalbox-orchestrator', 'signalbox-media', 'signalbox-gateway'];
const NAMES = ['orchestrator-a', 'orchestrator-b', 'media-a', 'media-b', 'gateway-a', 'gateway-b'];

let folder;
let balancer;
let browser;
let site;
let call;

/** Runs the script: `{code, out}`. */
async function rollingUpgrade(command, ...more) {
  return promisify(execFile)(SCRIPT, [command, path.join(folder, 'cluster'), ...more])
    .then(({ stdout, stderr }) => ({ code: 0, out: stdout + stderr }), ({ code, stdout, stderr }) => ({ code, out: stdout + stderr }));
}

const bin = (version) => ['--bin', path.join(folder, version)];
const pids = () => Promise.all(NAMES.map((name) => readFile(path.join(folder, 'cluster', `${name}.pid`), 'utf8')));

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'signalbox-upgrade-'));
  for (const version of ['old', 'new']) {
    await mkdir(path.join(folder, version));
    for (const name of BINARIES) {
      const file = path.join(folder, version, name);
      await copyFile(binary(name), file);
      // What is behind a program's end does not change what it does, and makes it another file.
      await appendFile(file, version);
    }
  }
  const cluster = path.join(folder, 'cluster');
  await mkdir(cluster);
  const settings = (name, values) => writeFile(path.join(cluster, `${name}.env`), Object.entries(values).map(([key, value]) => `${key}=${value}\n`).join(''));
  const ports = await Promise.all(Array.from({ length: 8 }, freePort));
  const listen = (index) => `127.0.0.1:${ports[index]}`;
  await settings('cluster', {
    SIGNALBOX_CLUSTER_SECRET: randomBytes(24).toString('hex'), SIGNALBOX_KEYS: `${KEY}:${SECRET}`, DATABASE_URL: await newDatabase(),
    SIGNALBOX_ORCHESTRATOR: `http://${listen(0)},http://${listen(1)}`, SIGNALBOX_SHARDS: 1, SIGNALBOX_DRAIN_SECONDS: 20,
  });
  await settings('orchestrator-a', { SIGNALBOX_ORCHESTRATOR_LISTEN: listen(0) });
  await settings('orchestrator-b', { SIGNALBOX_ORCHESTRATOR_LISTEN: listen(1) });
  for (const [index, name] of ['media-a', 'media-b'].entries()) {
    await settings(name, { SIGNALBOX_CONTROL_LISTEN: listen(2 + index), SIGNALBOX_MEDIA_BIND: `127.0.0.1:${await freePorts(1)}`, SIGNALBOX_NODE_ID: randomUUID() });
  }
  for (const [index, name] of ['gateway-a', 'gateway-b'].entries()) {
    await settings(name, { SIGNALBOX_LISTEN: listen(4 + index), SIGNALBOX_ADMIN_LISTEN: listen(6 + index), SIGNALBOX_DRAIN_SECONDS: 3 });
  }
  balancer = await Balancer.start([ports[4], ports[5]]);
  [browser, site] = await Promise.all([launchChromium(), serveLivekitPage()]);
});

after(async () => {
  await call?.end();
  await browser?.close();
  await site?.close();
  await balancer?.stop();
  if (!folder) return;
  const { code, out } = await rollingUpgrade('stop');
  await rm(folder, { recursive: true, force: true });
  assert.equal(code, 0, out);
});

test('what does not run is started, once', { timeout: 60_000 }, async () => {
  const first = await rollingUpgrade('start', ...bin('old'));
  assert.equal(first.code, 0, first.out);
  const before = await pids();
  const second = await rollingUpgrade('start', ...bin('old'));
  assert.equal(second.code, 0, second.out);
  assert.deepEqual(await pids(), before);
  assert.equal((await rollingUpgrade('status', ...bin('old'))).code, 0);
  const status = await rollingUpgrade('status', ...bin('new'));
  assert.equal(status.code, 1);
  assert.equal(status.out.match(/to be replaced/g)?.length, NAMES.length, status.out);
});

test('all processes are replaced under a live call, and the call notices nothing', { timeout: 180_000 }, async (t) => {
  const cluster = new Cluster({ url: `http://127.0.0.1:${balancer.port}`, processes: [] });
  call = await Call.begin(cluster, browser, site, 'upgrade');
  const before = await pids();
  const watched = await call.watch(async () => {
    const { code, out } = await rollingUpgrade('upgrade', ...bin('new'));
    t.diagnostic(out);
    assert.equal(code, 0, out);
  }, { afterMs: 3_000 });
  t.diagnostic(watched.line);
  if (watched.failure || watched.noticed.length > 0) t.diagnostic(watched.table);
  assert.ifError(watched.failure);
  assert.deepEqual(watched.noticed, []);
  assert.deepEqual(watched.connections, [0, 0, 0, 0], 'new peer connections');
  assert.ok(watched.gap('video') < 1_000, `a picture stood still for ${watched.gap('video')} ms`);
  const now = await pids();
  assert.deepEqual(now.filter((pid) => before.includes(pid)), [], 'the same processes');
  await call.data('ann', 'ben', true);
});

test('an upgrade that is run again replaces nothing', { timeout: 60_000 }, async () => {
  const before = await pids();
  const { code, out } = await rollingUpgrade('upgrade', ...bin('new'));
  assert.equal(code, 0, out);
  assert.deepEqual(await pids(), before);
});

test('what cannot be done is said', { timeout: 60_000 }, async () => {
  const nothing = await rollingUpgrade('upgrade', '--bin', path.join(folder, 'nowhere'));
  assert.equal(nothing.code, 1);
  assert.match(nothing.out, /nowhere has no signalbox/);
  assert.equal((await rollingUpgrade('upgrade', '--wait', 'long')).code, 2);
  // A settings file that is new and whose process cannot start.
  await writeFile(path.join(folder, 'cluster', 'gateway-c.env'), 'SIGNALBOX_LISTEN=127.0.0.1:1\nSIGNALBOX_ADMIN_LISTEN=nonsense\n');
  const broken = await rollingUpgrade('upgrade', ...bin('new'), '--wait', '20');
  await rm(path.join(folder, 'cluster', 'gateway-c.env'));
  assert.equal(broken.code, 1);
  assert.match(broken.out, /gateway-c has ended.*--admin-listen/);
});
