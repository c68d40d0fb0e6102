// A bad network between clients and a media node: drives `impaired-proxy`, whose address the node advertises.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { binary } from './processes.js';

export class ImpairedNetwork {
  #child;
  #lines;

  /** Starts the proxy at an address, in front of another one. What it does is drawn from `seed`. */
  static async start(upstream, seed = 1, listen = '127.0.0.1:0') {
    const network = new ImpairedNetwork(spawn(binary('impaired-proxy'), [listen, upstream, String(seed)], { stdio: ['pipe', 'pipe', 'inherit'] }));
    const { listening } = await network.#answer();
    network.port = Number(listening.split(':').at(-1));
    return network;
  }

  constructor(child) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /**
   * Impairs the clients at these UDP ports, which may be those that the node sees: `down` is towards them, `up` from them. Fields: capacity_bps, queue_ms, delay_ms, jitter_ms,
   * loss, burst {share, length}, duplicate, reorder, hold_ms; what is left out is off. Without ports: all clients.
   */
  impair(ports, { up = {}, down = {} }) {
    return this.#ask({ set: { ports, up, down } });
  }

  /** What has become of the datagrams to and from the clients at these ports, added up: `{at_ms, up, down}`. */
  async counts(ports) {
    const { at_ms, clients } = await this.#ask('stats');
    const add = (sum, tally) => Object.fromEntries(Object.entries(tally).map(([key, value]) => [key, (sum[key] ?? 0) + value]));
    const own = clients.filter(({ client, outside }) => [client, outside].some((address) => ports.includes(Number(address.split(':').at(-1)))));
    return { at_ms, up: own.reduce((sum, { up }) => add(sum, up), {}), down: own.reduce((sum, { down }) => add(sum, down), {}) };
  }

  /** How many datagrams the upstream has sent, to anyone. */
  async sent() {
    const { clients } = await this.#ask('stats');
    return clients.reduce((sum, { down }) => sum + down.offered, 0);
  }

  /** It ends when its input does, so also with this process. */
  stop() {
    this.#child.stdin.end();
    return new Promise((resolve) => { this.#child.exitCode === null ? this.#child.once('exit', resolve) : resolve(this.#child.exitCode); });
  }

  // The proxy answers each line in order, so that questions may overlap.
  async #ask(command) {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
    const answer = await this.#answer();
    if (answer.error) throw new Error(`impaired-proxy: ${answer.error}`);
    return answer;
  }

  async #answer() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('impaired-proxy has ended');
    return JSON.parse(value);
  }
}
