// A whole system as it is run where it must not fail: several orchestrators, media nodes and gateways, each a process of its own, a
// balancer in front of the gateways, and ways to lose any of them.

import { randomBytes, randomUUID } from 'node:crypto';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Balancer } from './balancer.js';
import { Cluster, KEY, newDatabase, SECRET } from './cluster.js';
import { ImpairedNetwork } from './impaired-network.js';
import { binary, children, freePort, start } from './processes.js';
import { freePorts } from './shell.js';
import { until } from './wait.js';

/** What is lost on a bad network, both ways. */
const LOSS = 0.05;

export class Fleet extends Cluster {
  #env;

  constructor({ balancer, env, orchestrators, nodes, gateways }) {
    super({ url: `http://127.0.0.1:${balancer.port}`, processes: [] });
    this.balancer = balancer;
    this.#env = env;
    /** `{process, run(), url}` */
    this.orchestrators = orchestrators;
    /** `{process, run(), id, network}` */
    this.nodes = nodes;
    /** `{process, run(), port, admin}` */
    this.gateways = gateways;
  }

  /** Asks any orchestrator that answers. */
  async #ask(path, options = {}) {
    let failure;
    for (const { url } of this.orchestrators) {
      try {
        const response = await fetch(url + path, {
          ...options, headers: { Authorization: `Bearer ${this.#env.SIGNALBOX_CLUSTER_SECRET}` }, signal: AbortSignal.timeout(5_000),
        });
        if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
        return await response.json();
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** All nodes, as operators see them. */
  async views() { return (await this.#ask('/v1/nodes')).nodes; }

  /** How far the emptying of a node has come. */
  drainOf(node) { return this.#ask(`/v1/nodes/${node.id}/drain`); }

  /** Waits until so many nodes are live and take rooms. */
  serving(count = this.nodes.length) {
    return until(`${count} nodes are serving`, async () => (
      (await this.views()).filter(({ live, state }) => live && state === 'serving').length >= count
    ));
  }

  /** The node of this fleet that a room is on. */
  async nodeOf(room) {
    const { node } = await this.where(room);
    return this.nodes.find(({ id }) => id === node);
  }

  /** The process that serves a node's media: what its supervisor has started. */
  async workerOf(node) {
    const [worker] = await children(node.process.pid);
    if (!worker) throw new Error(`the node has no worker\n${node.process.lines()}`);
    return worker;
  }

  /** A token that administers a room. */
  adminToken(room) {
    return super.token(room, 'operator', ['--admin']);
  }

  /** A token of somebody who may change the own name. */
  token(room, identity) { return super.token(room, identity, ['--can-update-own-metadata']); }

  /** Whatever a test has left behind, all is as it was in the beginning. */
  async repair() {
    this.nodes.forEach(({ thaw }) => thaw?.());
    for (const one of this.#all) if (!one.process.running) await this.startAgain(one);
    for (const { node, state } of await this.views()) if (state === 'draining') await this.signalbox('undrain', node);
    await this.serving();
  }

  /** Starts again, as it was started before, what has ended. */
  async startAgain(one) {
    await one.process.ended;
    one.process = await one.run();
  }

  /** Kills (SIGKILL) what serves a node's media; says when. */
  async killWorker(node) {
    const worker = await this.workerOf(node);
    const at = Date.now();
    process.kill(worker, 'SIGKILL');
    return { at };
  }

  /** Stops a node as if its machine were gone: all its processes, whose sockets stay open and silent. Gives what lets it go on, and says when. */
  async freeze(node) {
    const frozen = [node.process.pid, await this.workerOf(node)];
    const at = Date.now();
    frozen.forEach((pid) => process.kill(pid, 'SIGSTOP'));
    const thaw = () => {
      for (const pid of frozen.splice(0)) {
        try {
          process.kill(pid, 'SIGCONT');
        } catch (error) {
          if (error.code !== 'ESRCH') throw error;
        }
      }
    };
    node.thaw = thaw;
    return { thaw, at };
  }

  /** Loses datagrams between clients and all nodes, or no more. */
  lossy(on) {
    const impairment = on ? { loss: LOSS } : {};
    return Promise.all(this.nodes.map(({ network }) => network.impair(undefined, { up: impairment, down: impairment })));
  }

  /** Runs the operator's command line; gives what it printed. Fails with it when its exit code is not 0. */
  async signalbox(...args) {
    const env = { ...process.env, ...this.#env, SIGNALBOX_ORCHESTRATOR: this.orchestrators.map(({ url }) => url).join(',') };
    const { stdout, stderr } = await promisify(execFile)(binary('signalbox'), args, { env })
      .catch((error) => { throw new Error(`signalbox ${args.join(' ')} ended with ${error.code}\n${error.stdout}${error.stderr}`); });
    return stdout + stderr;
  }

  /** A number of a gateway's metrics, added up over its labels that match and over all gateways that run. */
  async metric(name, labels = '') {
    const texts = await Promise.all(this.gateways.filter(({ process: one }) => one.running).map(async ({ admin }) => (await fetch(`${admin}/metrics`)).text()));
    return texts.flatMap((text) => text.split('\n'))
      .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  get #all() { return [...this.orchestrators, ...this.nodes, ...this.gateways]; }

  /** Ends every process, gateways first; gives their exit codes. What was left stopped goes on first. */
  async stop() {
    this.nodes.forEach(({ thaw }) => thaw?.());
    const codes = [];
    // The last of the nodes have nowhere to go, and what has nowhere to go is not waited for.
    for (const part of [this.gateways, this.nodes, this.orchestrators]) codes.push(...await Promise.all(part.map(({ process: one }) => one.stop())));
    await this.balancer.stop();
    await Promise.all(this.nodes.map(({ network }) => network?.stop()));
    return codes;
  }

  lines() {
    return this.#all.map(({ process: one }) => one.lines()).join('\n\n');
  }
}

/**
 * Starts so many of each. With a `seed`, each node is behind a bad network for its clients that does nothing until it is told to, and counts. Nodes take media at
 * `mediaIp`. `more` is added to the environment of all.
 */
export async function startFleet({ nodes = 2, gateways = 2, orchestrators = 2, mediaIp = '127.0.0.1', seed, more = {} } = {}) {
  const env = {
    SIGNALBOX_CLUSTER_SECRET: randomBytes(24).toString('hex'), DATABASE_URL: await newDatabase(), SIGNALBOX_KEYS: `${KEY}:${SECRET}`, ...more,
  };
  const run = async (named, binaryName, port, args, own = {}) => {
    const again = async () => {
      const one = start(binaryName, args, { ...env, ...own });
      await one.ready(`http://127.0.0.1:${port}/readyz`);
      return one;
    };
    return { ...named, run: again, process: await again() };
  };
  const many = (count, make) => Promise.all(Array.from({ length: count }, (_, index) => make(index)));

  const brains = [];
  // One after the other: the first makes the tables.
  for (let index = 0; index < orchestrators; index += 1) {
    const port = await freePort();
    brains.push(await run({ url: `http://127.0.0.1:${port}` }, 'signalbox-orchestrator', port, ['--listen', `127.0.0.1:${port}`]));
  }
  const names = brains.map(({ url }) => url).join(',');

  const hosts = await many(nodes, async (index) => {
    const [control, media, id] = [await freePort(), await freePorts(1), randomUUID()];
    const network = seed === undefined ? undefined : await ImpairedNetwork.start(`${mediaIp}:${media}`, seed + index, `${mediaIp}:0`);
    const args = [
      '--control-listen', `127.0.0.1:${control}`, '--media-bind', `${mediaIp}:${network ? media : 0}`, '--shards', '1', '--orchestrator', names, '--node-id', id,
      // What one test leaves is not in the way of the next.
      '--empty-room-seconds', '2',
    ];
    // The bad network is between clients and nodes; nodes reach each other without it.
    const behind = network && { SIGNALBOX_MEDIA_PORT: String(network.port), SIGNALBOX_TUNNEL_IP: mediaIp };
    return run({ id, network }, 'signalbox-media', control, args, behind);
  });
  const doors = await many(gateways, async () => {
    const [port, admin] = [await freePort(), await freePort()];
    const args = ['--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${admin}`, '--orchestrator', names, '--guests'];
    return run({ port, admin: `http://127.0.0.1:${admin}` }, 'signalbox-gateway', port, args);
  });
  const balancer = await Balancer.start(doors.map(({ port }) => port));
  const fleet = new Fleet({ balancer, env, orchestrators: brains, nodes: hosts, gateways: doors });
  await fleet.serving();
  return fleet;
}
