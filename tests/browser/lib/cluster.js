// The two shapes in which Signalbox is run: everything in one process, and the three tiers over PostgreSQL.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { ImpairedNetwork } from './impaired-network.js';
import { freePort, output, start } from './processes.js';
import { freePorts } from './shell.js';
import { until } from './wait.js';

export const KEY = 'devkey';
export const SECRET = 'devsecret-devsecret-devsecret-123';

export class Cluster {
  #processes;

  constructor({ url, admin, processes, network }) {
    /** The gateway's public URL, without a slash at the end. */
    this.url = url;
    /** Its admin listener. */
    this.admin = admin;
    /** The bad network in front of its node, if it was started behind one. */
    this.network = network;
    this.#processes = processes;
  }

  /** The gateway's URL as LiveKit's SDKs want it. */
  get webSocketUrl() { return this.url.replace('http', 'ws'); }

  /** An access token, made by `signalbox token`, with more of its options if need be. */
  token(room, identity, more = []) {
    return output('signalbox', ['token', '--room', room, '--identity', identity, '--ttl', '1h', '--key', KEY, '--secret', SECRET, ...more]);
  }

  /** The page's URL with name and room filled in. */
  page(room, name) {
    return `${this.url}/?${new URLSearchParams({ room, name })}`;
  }

  /** Asks where a room is, without taking part: `{ip, port, node, generation}`. */
  async where(room) {
    const response = await fetch(`${this.url}/v1/rooms/${encodeURIComponent(room)}/join`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${await this.token(room, 'asker')}` },
    });
    const body = await response.json();
    if (!response.ok) throw new Error(`join answered ${response.status}: ${body.detail}`);
    return body.media;
  }

  /** All client bytes, both ways, that the gateway's public listener has carried. */
  async gatewayBytes() {
    const text = await (await fetch(`${this.admin}/metrics`)).text();
    return ['received', 'sent'].reduce((sum, way) => {
      const found = text.match(new RegExp(`^signalbox_gateway_bytes_${way}_total(?:\\{[^}]*\\})? (\\d+)`, 'm'));
      if (!found) throw new Error(`/metrics has no signalbox_gateway_bytes_${way}_total:\n${text}`);
      return sum + Number(found[1]);
    }, 0);
  }

  /** Ends every process, gateways first; gives their exit codes. */
  async stop() {
    const codes = [];
    for (const one of this.#processes.reverse()) codes.push(await one.stop());
    await this.network?.stop();
    return codes;
  }

  /** What the processes printed last, for a person who looks into a failure. */
  lines() {
    return this.#processes.map((one) => one.lines()).join('\n');
  }
}

/**
 * An IPv4 address of this machine that is not a loopback one, if it has any. Firefox sends from its network addresses only, and
 * pairs none of them with a loopback candidate.
 */
export function networkAddress() {
  const own = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === 'IPv4' && !internal);
  return own?.address ?? '127.0.0.1';
}

/** `signalbox dev`, which takes media at `mediaIp`; with a `seed`, behind a bad network that does nothing until it is told to. */
export async function startDev({ mediaIp = '127.0.0.1', seed } = {}) {
  const [port, adminPort] = [await freePort(), await freePort()];
  const mediaPort = seed === undefined ? 0 : await freePorts(1);
  const network = seed === undefined ? undefined : await ImpairedNetwork.start(`${mediaIp}:${mediaPort}`, seed);
  const dev = start('signalbox', [
    'dev', '--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${adminPort}`, '--media-bind', `${mediaIp}:${mediaPort}`,
    // Clients are told the proxy's port, of which there is one.
  ], network && { SIGNALBOX_MEDIA_PORT: String(network.port), SIGNALBOX_SHARDS: '1' });
  const url = `http://127.0.0.1:${port}`;
  await dev.ready(`${url}/readyz`);
  const cluster = new Cluster({ url, admin: `http://127.0.0.1:${adminPort}`, processes: [dev], network });
  await until('a room can be placed', () => cluster.where('is-anyone-there'));
  return cluster;
}

/** Orchestrator, media nodes and gateway as processes of their own, over a new database of the test run's PostgreSQL. */
export async function startTiers({ nodes = 2 } = {}) {
  const databaseUrl = await newDatabase();
  const secret = randomBytes(24).toString('hex');
  const env = { SIGNALBOX_CLUSTER_SECRET: secret, DATABASE_URL: databaseUrl };
  const processes = [];
  const run = async (binary, port, args, more) => {
    const one = start(binary, args, { ...env, ...more });
    processes.push(one);
    await one.ready(`http://127.0.0.1:${port}/readyz`);
  };

  const orchestratorPort = await freePort();
  const orchestrator = `http://127.0.0.1:${orchestratorPort}`;
  await run('signalbox-orchestrator', orchestratorPort, ['--listen', `127.0.0.1:${orchestratorPort}`]);
  for (let node = 0; node < nodes; node += 1) {
    const control = await freePort();
    await run('signalbox-media', control, [
      '--control-listen', `127.0.0.1:${control}`, '--media-bind', '127.0.0.1:0', '--shards', '1', '--orchestrator', orchestrator,
      // At the end there is nobody left to take elsewhere, and participants that have just gone are waited for.
      '--drain-seconds', '3',
    ]);
  }
  await until(`${nodes} nodes are registered`, async () => {
    const response = await fetch(`${orchestrator}/v1/nodes`, { headers: { Authorization: `Bearer ${secret}` } });
    return (await response.json()).nodes.filter((node) => node.live).length === nodes;
  });
  const [port, adminPort] = [await freePort(), await freePort()];
  await run('signalbox-gateway', port, [
    '--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${adminPort}`, '--orchestrator', orchestrator, '--guests',
  ], { SIGNALBOX_KEYS: `${KEY}:${SECRET}` });
  return new Cluster({ url: `http://127.0.0.1:${port}`, admin: `http://127.0.0.1:${adminPort}`, processes });
}

/** A new database of the test run's PostgreSQL: its URL. */
export async function newDatabase() {
  const url = process.env.SIGNALBOX_TEST_DATABASE_URL;
  if (!url) throw new Error('SIGNALBOX_TEST_DATABASE_URL is not set; tests/run starts a PostgreSQL and sets it');
  const name = `browser_${randomBytes(6).toString('hex')}`;
  await promisify(execFile)('psql', ['--no-psqlrc', '--quiet', '--dbname', url, '--command', `create database ${name}`]);
  const own = new URL(url);
  own.pathname = `/${name}`;
  return own.href;
}
