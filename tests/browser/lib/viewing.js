// What a viewer of one picture gets over time: its own statistics, and the network's, a few times a second.

import { setTimeout as pause } from 'node:timers/promises';

const EVERY_MS = 250;

export class Viewing {
  #stopped = false;
  #running;

  /** `client` receives one video track; `network` is what is between it and the node. */
  static async begin(client, network) {
    const viewing = new Viewing();
    viewing.client = client;
    viewing.network = network;
    /** `{at, width, frames, freezes, frozen, buffered, emitted, plis, nacks, sentBytes, sent}`; times in seconds, `sent` in bits per second. */
    viewing.points = [];
    viewing.ports = await client.page.evaluate(() => window.watched.localPorts());
    await viewing.#take();
    viewing.#running = viewing.#run();
    return viewing;
  }

  async stop() {
    this.#stopped = true;
    await this.#running;
  }

  /** Seconds since the first point. */
  get now() { return this.points.at(-1).at; }

  impair(both) { return this.network.impair(this.ports, both); }

  between(from, to) { return this.points.filter(({ at }) => at > from && at <= to); }

  /** Bits per second that the node sent from one time to another, headers included. */
  sent(from, to) {
    const points = this.points.filter(({ at }) => at >= from && at <= to);
    const [first, last] = [points[0], points.at(-1)];
    return (8 * (last.sentBytes - first.sentBytes)) / (last.networkAt - first.networkAt);
  }

  /** How much a counter grew from one time to another. */
  grew(counter, from, to) {
    const points = this.points.filter(({ at }) => at >= from && at <= to);
    return points.at(-1)[counter] - points[0][counter];
  }

  /** The freezes that ended in a time, in seconds each. Of several within one point it is the mean. */
  freezes(from, to) {
    const lengths = [];
    this.points.forEach((point, index) => {
      const before = this.points[index - 1];
      if (!before || point.at <= from || point.at > to) return;
      const count = point.freezes - before.freezes;
      for (let one = 0; one < count; one += 1) lengths.push((point.frozen - before.frozen) / count);
    });
    return lengths;
  }

  /** How long frames waited in the jitter buffer, in seconds, on average. */
  jitterBuffer(from, to) { return this.grew('buffered', from, to) / Math.max(this.grew('emitted', from, to), 1); }

  /** A line each second. */
  table() {
    const lines = [];
    for (let second = 0; second + 1 <= this.now; second += 1) {
      const points = this.between(second, second + 1);
      if (points.length === 0) continue;
      const [from, to] = [points[0].at - EVERY_MS / 1000, points.at(-1).at];
      const widths = [...new Set(points.map(({ width }) => width))].join('→');
      const freezes = this.freezes(second, second + 1).map((length) => `${Math.round(length * 1000)} ms`).join(', ');
      lines.push([
        String(second + 1).padStart(3), `${Math.round(this.sent(Math.max(from - 0.01, 0), to) / 1000)} kbps`.padStart(10), widths.padStart(10),
        `${points.at(-1).frames - (this.points[this.points.indexOf(points[0]) - 1] ?? points[0]).frames} fps`.padStart(7),
        `${Math.round(1000 * this.jitterBuffer(from, to))} ms`.padStart(8), freezes && `frozen ${freezes}`,
      ].join(' '));
    }
    return lines.join('\n');
  }

  async #run() {
    while (!this.#stopped) {
      await pause(EVERY_MS);
      await this.#take();
    }
  }

  async #take() {
    const [network, inbound] = await Promise.all([
      this.network.counts(this.ports),
      this.client.page.evaluate(() => window.watched.picture()),
    ]);
    this.#begun ??= network.at_ms;
    this.points.push({
      at: (network.at_ms - this.#begun) / 1000, networkAt: network.at_ms / 1000, sentBytes: network.down.offered_bytes ?? 0, ...inbound,
    });
  }

  #begun;
}
