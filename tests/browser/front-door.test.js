// Gateways that end TLS behind a balancer of L4 (deploy/l4/haproxy.cfg): whom a connection is from, and what a gateway that goes costs.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { KEY, SECRET } from './lib/cluster.js';
import { startFleet } from './lib/fleet.js';
import { freePort, start } from './lib/processes.js';
import { until } from './lib/wait.js';

const CONFIG = fileURLToPath(new URL('../../deploy/l4/haproxy.cfg', import.meta.url));
const run = promisify(execFile);
const CLUSTER_SECRET = randomBytes(24).toString('hex');

let folder;
let fleet;
let balancer;
let balancerEnded;
let port;
let certificate;
const gateways = [];

const file = (name) => path.join(folder, name);

async function startGateway(index, [listen, admin]) {
  const one = start('signalbox-gateway', [
    '--listen', `127.0.0.1:${listen}`, '--admin-listen', `127.0.0.1:${admin}`, '--orchestrator', fleet.orchestrators.map(({ url }) => url).join(','),
    '--tls-certificate', file('own.pem'), '--tls-key', file('own.key'), '--trusted-proxies', '127.0.0.0/8', '--proxy-protocol',
    '--access-log', file(`access-${index}.log`), '--drain-seconds', '3',
  ], { SIGNALBOX_CLUSTER_SECRET: CLUSTER_SECRET, SIGNALBOX_KEYS: `${KEY}:${SECRET}` });
  await one.ready(`http://127.0.0.1:${admin}/readyz`);
  return { process: one, ports: [listen, admin] };
}

/** Asks over a connection of its own: the status. */
function ask(method, url, { headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const request = https.request({ host: '127.0.0.1', port, path: url, method, headers: { ...headers, Connection: 'close' }, ca: certificate, servername: 'localhost', agent: false }, (response) => {
      response.resume().on('end', () => resolve(response.statusCode)).on('error', reject);
    });
    request.on('error', reject).end(body);
  });
}

/** Joins room after room until it is stopped; `stop()` gives `{done, failed}`. */
function joinsUntilStopped() {
  let running = true;
  const result = { done: 0, failed: [] };
  const one = async (worker) => {
    for (let index = 0; running; index += 1) {
      const room = `l4-${worker}-${index}`;
      const headers = { Authorization: `Bearer ${await tokens(room)}`, 'Content-Type': 'application/json' };
      await ask('POST', `/v1/rooms/${room}/join`, { headers, body: '{}' }).then((status) => {
        assert.equal(status, 200);
        result.done += 1;
      }).catch((error) => result.failed.push(`${error.code ?? error.message}`));
    }
  };
  const workers = [0, 1, 2, 3].map(one);
  return { result, stop: async () => { running = false; await Promise.all(workers); return result; } };
}

const tokens = (room) => fleet.token(room, 'ann');

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'signalbox-l4-'));
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-keyout', file('own.key'), '-out', file('own.pem')]);
  certificate = await readFile(file('own.pem'));
  fleet = await startFleet({ nodes: 1, gateways: 0, orchestrators: 1, more: { SIGNALBOX_CLUSTER_SECRET: CLUSTER_SECRET } });
  for (const index of [0, 1]) gateways.push(await startGateway(index, [await freePort(), await freePort()]));
  port = await freePort();
  const [a, b] = gateways.map(({ ports }) => ports.map((number) => `127.0.0.1:${number}`));
  balancer = spawn('/usr/sbin/haproxy', ['-db', '-f', CONFIG], {
    env: { ...process.env, SIGNALBOX_BIND: `127.0.0.1:${port}`, GATEWAY_A: a[0], GATEWAY_A_ADMIN: a[1], GATEWAY_B: b[0], GATEWAY_B_ADMIN: b[1] },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  balancerEnded = once(balancer, 'exit');
  process.on('exit', () => balancer.kill('SIGKILL'));
  await until('the balancer passes on', async () => balancer.exitCode !== null || await ask('GET', '/livez').catch(() => 0) === 200, { everyMs: 50 });
  assert.equal(balancer.exitCode, null, 'the balancer runs');
}, { timeout: 60_000 });

after(async () => {
  balancer?.kill('SIGKILL');
  await balancerEnded;
  await Promise.all(gateways.map(({ process: one }) => one.stop()));
  await fleet?.stop();
  await rm(folder, { recursive: true, force: true });
});

test('both gateways get their share, and write down each request without what is secret', { timeout: 60_000 }, async () => {
  const joins = joinsUntilStopped();
  await until('a hundred joins', () => joins.result.done >= 100, { everyMs: 50 });
  const { failed } = await joins.stop();
  assert.deepEqual(failed, []);
  await until('both have written', async () => {
    const logs = await Promise.all([0, 1].map((index) => readFile(file(`access-${index}.log`), 'utf8')));
    return logs.every((log) => log.split('\n').length > 30);
  }, { everyMs: 100 });
  const lines = (await readFile(file('access-0.log'), 'utf8')).trim().split('\n').map(JSON.parse);
  const join = lines.find(({ route }) => route === '/v1/rooms/{room}/join');
  assert.equal(join.status, 200);
  assert.equal(join.client, '127.0.0.0/24');
  assert.match(join.request_id, /^[0-9a-f-]{36}$/);
  assert.ok(!JSON.stringify(lines).includes('eyJ'), 'a token is in the log');
});

test('a gateway that is killed costs only the requests that it had', { timeout: 60_000 }, async () => {
  const joins = joinsUntilStopped();
  await until('joins flow', () => joins.result.done >= 20, { everyMs: 20 });
  gateways[0].process.kill();
  await gateways[0].process.ended;
  const before = joins.result.done;
  await until('joins go on', () => joins.result.done >= before + 100, { everyMs: 20 });
  const { failed } = await joins.stop();
  // Four are under way at a time.
  assert.ok(failed.length <= 4, failed.join());
  gateways[0] = await startGateway(0, gateways[0].ports);
});

test('a gateway that ends costs nothing', { timeout: 60_000 }, async () => {
  const written = async () => (await readFile(file('access-0.log'), 'utf8')).length;
  const earlier = await written();
  const joins = joinsUntilStopped();
  await until('the one that is back gets its share', async () => await written() > earlier, { everyMs: 50 });
  const [, admin] = gateways[1].ports;
  gateways[1].process.kill('SIGTERM');
  await until('it says that it goes', async () => (await fetch(`http://127.0.0.1:${admin}/readyz`).catch(() => ({ status: 503 }))).status === 503, { everyMs: 20 });
  assert.equal(await gateways[1].process.ended, 0);
  const before = joins.result.done;
  await until('joins go on', () => joins.result.done >= before + 50, { everyMs: 20 });
  const { failed } = await joins.stop();
  assert.deepEqual(failed, []);
});
