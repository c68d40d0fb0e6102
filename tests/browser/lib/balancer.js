// A balancer as operators have one in front of their gateways: plain TCP, and the next gateway that accepts.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

export class Balancer {
  #server;
  #next = 0;
  #sockets = new Set();

  /** Listens on a free port of 127.0.0.1. `upstreams` are ports; it may be changed at any time. */
  static async start(upstreams) {
    const balancer = new Balancer(upstreams);
    balancer.#server = createServer((client) => balancer.#serve(client)).listen(0, '127.0.0.1');
    await once(balancer.#server, 'listening');
    balancer.port = balancer.#server.address().port;
    return balancer;
  }

  constructor(upstreams) {
    this.upstreams = upstreams;
  }

  stop() {
    this.#sockets.forEach((socket) => socket.destroy());
    return new Promise((done) => this.#server.close(done));
  }

  #keep(socket) {
    this.#sockets.add(socket);
    // Every error is followed by `close`, which says all that there is to do.
    socket.setNoDelay(true).on('error', () => {}).on('close', () => this.#sockets.delete(socket));
  }

  #serve(client) {
    this.#keep(client);
    client.pause();
    const begin = this.#next;
    this.#next += 1;
    this.#try(client, this.upstreams.map((_, index) => this.upstreams[(begin + index) % this.upstreams.length]));
  }

  #try(client, [port, ...others]) {
    if (port === undefined || client.destroyed) return client.destroy();
    const upstream = connect(port, '127.0.0.1');
    this.#keep(upstream);
    const refused = () => this.#try(client, others);
    upstream.once('error', refused);
    upstream.once('connect', () => {
      upstream.off('error', refused);
      client.pipe(upstream).pipe(client);
      // As a connection that breaks does: the other side of it learns so at once.
      upstream.on('close', () => client.destroy());
      client.on('close', () => upstream.destroy());
      client.resume();
    });
  }
}
