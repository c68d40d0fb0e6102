// Many rooms that cost little: one participant each, without a browser, which is held by its event stream.

import assert from 'node:assert/strict';
import { until } from './wait.js';

export class SmallRooms {
  static async open(fleet, count) {
    const rooms = new SmallRooms();
    rooms.fleet = fleet;
    rooms.all = await Promise.all(Array.from({ length: count }, (_, index) => SmallRoom.open(fleet, `small-${index}-${Date.now()}`)));
    return rooms;
  }

  /** The ids of the nodes that they are on. */
  places() { return Promise.all(this.all.map(async ({ name }) => (await this.fleet.where(name)).node)); }

  /** In each room its participant is still there, under its id, and has seen nobody go; and none is on the node `left`. */
  async areWhole(left) {
    if (left) assert.ok((await this.places()).every((id) => id !== left.id));
    for (const room of this.all) {
      assert.deepEqual(room.messages.filter((one) => ['left', 'joined', 'closed'].includes(one)), [], `${room.name}: ${room.messages}`);
      await until(`${room.name} has its participant`, () => room.isWhole(), { seconds: 10 });
    }
  }

  close() { return Promise.all(this.all.map((room) => room.close())); }
}

class SmallRoom {
  /** The types of all messages of its event stream. */
  messages = [];
  #stop = new AbortController();

  static async open(fleet, name) {
    const room = new SmallRoom();
    Object.assign(room, { fleet, name, token: await fleet.token(name, 'one') });
    const response = await room.#ask('join', {
      method: 'POST', body: JSON.stringify({ transport: 'srtp', subscribe: false, publish: [{ kind: 'audio', codec: 'opus' }] }),
    });
    const reply = await response.json();
    assert.equal(response.status, 201, reply.detail);
    room.id = reply.participant.id;
    const events = await room.#ask(`participants/${room.id}/events`, { headers: { Accept: 'text/event-stream' } });
    assert.equal(events.status, 200);
    room.#read(events.body);
    await until(`${name} has told of itself`, () => room.messages.length > 0);
    return room;
  }

  async isWhole() {
    const response = await this.#ask('participants');
    const { participants } = await response.json();
    return participants.length === 1 && participants[0].id === this.id && participants[0].tracks.length === 1;
  }

  async close() {
    this.#stop.abort();
    // Its room may be gone.
    await this.fleet.where(this.name).then(() => this.#ask(`participants/${this.id}`, { method: 'DELETE', signal: undefined })).catch(() => {});
  }

  #ask(path, options = {}) {
    return fetch(`${this.fleet.url}/v1/rooms/${this.name}/${path}`, {
      signal: this.#stop.signal, ...options, headers: { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json', ...options.headers },
    });
  }

  async #read(body) {
    const decoder = new TextDecoder();
    let text = '';
    try {
      for await (const bytes of body) {
        text += decoder.decode(bytes, { stream: true });
        const lines = text.split('\n');
        text = lines.pop();
        this.messages.push(...lines.filter((line) => line.startsWith('event:')).map((line) => line.slice(6).trim()));
      }
      this.messages.push('closed');
    } catch {
      // It was closed here, or the gateway is gone.
      if (!this.#stop.signal.aborted) this.messages.push('closed');
    }
  }
}
