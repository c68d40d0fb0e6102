// One stay in a room: owns the peer connection, the HTTP calls and the event stream. It must not know the page.
//
// The rule for receiving: the client always offers. Its sending m-lines are published; each of its receiving m-lines is a slot,
// which the media node fills with one track or another without renegotiation and reports by its mid. When the node wants more
// slots than there are, the client adds them and offers again.
//
// Events: `change` (anything that the page shows), `phase` ({phase, reason, detail, media}), `presence` ({kind, participant}).

import { RequestError, request } from './http.js';
import { KINDS, announcement, encodings, sendOnly, slim } from './media.js';

const INITIAL_SLOTS = 4;
const SPARE_SLOTS = 2;
// Of each kind. An offer must fit into the gateway's 64 KiB, and a slot of each kind together take up to 4 KiB.
const MAX_SLOTS = 14;
const EVENTS_TIMEOUT_MS = 10_000;
const MEDIA_TIMEOUT_MS = 8_000;
// ICE often heals by itself within a second or two; a restart before that would only delay it.
const DISCONNECTED_GRACE_MS = 3_000;
const MAX_PAUSE_MS = 10_000;
// After a move a working connection is up again in a fraction of this, on slow networks too.
const MOVE_TIMEOUT_MS = 1_500;
// Firefox does no DTLS handshake with another node on a connection that has had one.
const CAN_MOVE = !('mozCaptureStream' in (globalThis.HTMLMediaElement?.prototype ?? {}));
const COUNTERS = {
  audio: ['packetsReceived', 'bytesReceived', 'totalSamplesReceived', 'totalAudioEnergy'],
  video: ['packetsReceived', 'bytesReceived', 'framesDecoded', 'frameWidth', 'frameHeight'],
};
// After these the room, or a successor of it, takes the participant again.
const REJOIN_AFTER = new Set(['timed_out', 'node_gone', 'failed']);
const addressOf = ({ ip, port }) => `${ip}:${port}`;

export class Call extends EventTarget {
  #options;
  #token;
  #sources = { microphone: source(), camera: source() };
  #phase = 'joining';
  #gone = false;
  #pc = null;
  #socket = null;
  #paths = null;
  #me = null;
  #others = new Map();
  #slots = new Map();
  #speaking = new Set();
  #streams = new WeakMap();
  #preferences = new Map();
  #troubles = new Map();
  #slotsWanted = { audio: INITIAL_SLOTS, video: INITIAL_SLOTS };
  #exchanges = Promise.resolve();
  #wake = () => {};
  #recoveredAt = -Infinity;
  #moves = 0;
  /** Where the peer connection's media has gone. */
  #addresses = new Set();

  /** `token` is an access token; `renewToken()` resolves to another one for the same identity, or rejects. */
  constructor({ room, name, token, renewToken }) {
    super();
    this.#options = { room, name, renewToken };
    this.#token = token;
    /** `{ip, port, node, generation}`: where the media goes. */
    this.media = null;
  }

  get phase() { return this.#phase; }
  get pc() { return this.#pc; }
  get participantId() { return this.#me?.id ?? null; }
  get me() { return this.#me; }
  get others() { return [...this.#others.values()]; }
  isSpeaking(participantId) { return this.#speaking.has(participantId); }

  /** The stream of a remote track, or null while no slot carries it. */
  streamOf(trackId) {
    const slot = [...this.#slots.values()].find((one) => one.track?.track === trackId);
    return slot ? this.#streamAt(slot.mid) : null;
  }

  /** What keeps a remote track's picture from arriving: `no_room` on this connection, `unsupported` by this browser, or null. */
  troubleOf(trackId) { return this.#troubles.get(trackId) ?? null; }

  /** Every slot that carries sound: `[{mid, stream}]`. */
  get sounds() {
    return this.#slotsOf('audio')
      .filter((slot) => slot.track)
      .map((slot) => ({ mid: slot.mid, stream: this.#streamAt(slot.mid) }))
      .filter((sound) => sound.stream);
  }

  /** Enters the room; rejects with a RequestError. */
  async join() {
    try {
      await this.#admit();
    } catch (error) {
      this.leave('refused', error.message);
      throw error;
    }
    this.#setPhase('joined');
    // A stream that closes starts the recovery by itself.
    this.#openEvents().catch(() => {});
    const pc = this.#pc;
    this.#mediaUp().catch(() => pc === this.#pc && this.#recover());
  }

  /** Leaves. Safe while the page is being closed. */
  leave(reason = 'left', detail = '') {
    const path = this.#paths?.self;
    if (this.#phase === 'ended') return;
    this.#end(reason, detail);
    if (path) request('DELETE', path, { token: this.#token, keepalive: true }).catch(() => {});
  }

  /** Sets what a source sends. `track` null sends nothing; `on` false tells the others that it is muted. */
  async publish(name, track, on) {
    const own = this.#sources[name];
    own.track = track;
    own.on = on;
    if (!this.#pc || this.#phase === 'ended') return;
    if (own.transceiver) {
      await own.transceiver.sender.replaceTrack(track).catch(() => {});
    } else if (track) {
      this.#addSender(name);
      this.#renegotiate();
    }
    this.#syncMuted();
  }

  /** Tells at what `{width, height}` a remote track is shown, in pixels, or, null, that nobody can see it: no more is sent than is of use. */
  prefer(trackId, size) {
    if (this.#phase !== 'joined') return;
    const preference = this.#preferences.get(trackId) ?? { wanted: '', told: '', telling: false };
    this.#preferences.set(trackId, preference);
    preference.wanted = JSON.stringify(size ?? { enabled: false });
    if (!preference.telling) this.#tellPreference(trackId, preference);
  }

  /** The network may be back: tries again now instead of after the pause. */
  nudge() { this.#wake(); }

  /**
   * What arrives, by the publisher's identity: `{audio: [{track, mid, …}], video: […]}`, with the COUNTERS.
   * Counters belong to the slot, which may have carried other tracks before.
   */
  async stats() {
    const result = {};
    for (const { mid, kind, track } of [...this.#slots.values()]) {
      const identity = this.#others.get(track?.participant)?.identity;
      const receiver = this.#transceiver(mid)?.receiver;
      if (!identity || !receiver) continue;
      const report = [...(await receiver.getStats()).values()].find((one) => one.type === 'inbound-rtp') ?? {};
      result[identity] ??= { video: [], audio: [] };
      const entry = { track: track.track, mid };
      for (const counter of COUNTERS[kind]) entry[counter] = report[counter] ?? 0;
      result[identity][kind].push(entry);
    }
    return result;
  }

  // Joining and negotiation. One exchange at a time: an offer while another is unanswered would be an error.

  #queue(task) {
    const run = this.#exchanges.then(task);
    this.#exchanges = run.catch(() => {});
    return run;
  }

  #admit() {
    this.#hangUp();
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    this.#pc = pc;
    this.#watch(pc);
    for (const [source, own] of Object.entries(this.#sources)) {
      Object.assign(own, { transceiver: null, told: null });
      if (own.track) this.#addSender(source);
    }
    return this.#queue(async () => {
      const { room, name } = this.#options;
      this.#addSlots(pc);
      // The media node is ICE-lite and learns our addresses from our checks: nothing to gather before posting.
      await pc.setLocalDescription(await pc.createOffer());
      const body = { offer: pc.localDescription.sdp, publish: announcement(this.#sources, pc.localDescription.sdp) };
      if (name) body.name = name;
      const path = `/v1/rooms/${encodeURIComponent(room)}`;
      const joined = await request('POST', `${path}/join`, { token: this.#token, body });
      const self = `${path}/participants/${encodeURIComponent(joined.participant.id)}`;
      if (this.#phase === 'ended') {
        request('DELETE', self, { token: this.#token, keepalive: true }).catch(() => {});
        throw new RequestError(0, 'You left before the room was entered.');
      }
      this.#paths = { self, events: joined.events };
      this.#gone = false;
      this.media = joined.media;
      this.#addresses = new Set([addressOf(joined.media)]);
      this.#preferences.clear();
      this.#apply(joined);
      await pc.setRemoteDescription({ type: 'answer', sdp: joined.answer });
      this.#changed();
    });
  }

  #negotiate(iceRestart = false) {
    const pc = this.#pc;
    return this.#queue(async () => {
      if (pc !== this.#pc || this.#phase === 'ended') return;
      this.#addSlots(pc);
      await pc.setLocalDescription(await pc.createOffer({ iceRestart }));
      try {
        const { answer } = await this.#api('POST', '/offer', { offer: pc.localDescription.sdp });
        await pc.setRemoteDescription({ type: 'answer', sdp: answer });
      } catch (error) {
        if (pc.signalingState === 'have-local-offer') await pc.setLocalDescription({ type: 'rollback' });
        throw error;
      }
      this.#changed();
    });
  }

  #renegotiate() {
    this.#negotiate().catch((error) => {
      if (error.status === 404) this.#gone = true;
      this.#recover(true);
    });
  }

  #addSender(name) {
    const own = this.#sources[name];
    const options = { direction: 'sendonly', streams: [new MediaStream([own.track])] };
    if (name === 'camera') options.sendEncodings = encodings();
    own.transceiver = this.#pc.addTransceiver(own.track, options);
    slim(own.transceiver, KINDS[name]);
  }

  #addSlots(pc) {
    for (const kind of ['audio', 'video']) {
      const slots = pc.getTransceivers().filter((one) => one.direction === 'recvonly' && one.receiver.track.kind === kind);
      for (let count = slots.length; count < this.#slotsWanted[kind]; count += 1) {
        slim(pc.addTransceiver(kind, { direction: 'recvonly' }), kind);
      }
    }
  }

  // Events.

  #openEvents() {
    this.#dropSocket();
    const url = new URL(this.#paths.events, location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    url.searchParams.set('access_token', this.#token);
    const socket = new WebSocket(url);
    this.#socket = socket;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => socket.close(), EVENTS_TIMEOUT_MS);
      socket.onmessage = ({ data }) => {
        if (socket !== this.#socket) return;
        const event = JSON.parse(data);
        this.#handle(event);
        if (event.type !== 'snapshot') return;
        clearTimeout(timer);
        resolve();
      };
      socket.onclose = () => {
        clearTimeout(timer);
        reject(new RequestError(0, 'The event stream was closed.'));
        if (socket !== this.#socket) return;
        this.#socket = null;
        this.#recover();
      };
    });
  }

  #handle(event) {
    const { participant } = event;
    switch (event.type) {
      case 'snapshot': this.#apply(event); break;
      case 'left':
        this.#others.delete(participant.id);
        this.#speaking.delete(participant.id);
        this.#tell('presence', { kind: 'left', participant });
        break;
      case 'speakers': event.speakers.forEach((speaker) => this.#setSpeaker(speaker)); break;
      case 'slots': event.slots.forEach((slot) => this.#slots.set(slot.mid, slot)); break;
      case 'slots_wanted': this.#wantSlots(event); break;
      case 'encodings_wanted': this.#sendWanted(event); break;
      case 'stream_states':
        for (const { track, paused } of event.streams) {
          if (paused) this.#troubles.set(track, 'no_room');
          else this.#troubles.delete(track);
        }
        break;
      case 'subscription_failed': this.#troubles.set(event.track, 'unsupported'); break;
      case 'moved': this.#follow(event); break;
      case 'closed':
        this.#gone = true;
        if (REJOIN_AFTER.has(event.reason)) this.#recover();
        else this.#end(event.reason);
        return;
      default:
        if (!participant) return;
        this.#setParticipant(participant);
        if (event.type === 'joined') this.#tell('presence', { kind: 'joined', participant });
    }
    this.#changed();
  }

  #apply({ participant, participants, slots, speakers = [] }) {
    this.#me = participant;
    this.#others = new Map(participants.map((one) => [one.id, one]));
    this.#slots = new Map(slots.map((slot) => [slot.mid, slot]));
    this.#troubles.clear();
    this.#speaking.clear();
    speakers.forEach((speaker) => this.#setSpeaker(speaker));
  }

  #setParticipant(info) {
    const known = info.id === this.#me.id ? this.#me : this.#others.get(info.id);
    if (known && known.version > info.version) return;
    if (info.id === this.#me.id) this.#me = info;
    else this.#others.set(info.id, info);
  }

  #setSpeaker({ participant, active }) {
    if (active) this.#speaking.add(participant);
    else this.#speaking.delete(participant);
  }

  #wantSlots(missing) {
    let more = false;
    for (const kind of ['audio', 'video']) {
      if (!(missing[kind] > 0)) continue;
      // Counted from the slots that the node knows, so that the same wish told twice does not add slots twice.
      const target = Math.min(this.#slotsOf(kind).length + missing[kind] + SPARE_SLOTS, MAX_SLOTS);
      more ||= target > this.#slotsWanted[kind];
      this.#slotsWanted[kind] = Math.max(this.#slotsWanted[kind], target);
    }
    if (more) this.#renegotiate();
  }

  /** Encodes only what somebody watches. */
  #sendWanted({ track, codecs }) {
    const mid = this.#me.tracks.find((one) => one.id === track)?.mid;
    const own = Object.values(this.#sources).find(({ transceiver }) => transceiver && transceiver.mid === mid);
    // There is one codec, the one that was negotiated.
    if (own) sendOnly(own.transceiver.sender, codecs[0]?.layers ?? []);
  }

  /** One request at a time for a track: two of them could overtake each other. */
  async #tellPreference(trackId, preference) {
    preference.telling = true;
    while (preference.told !== preference.wanted) {
      const { wanted } = preference;
      const failed = await this.#api('PATCH', `/subscriptions/${encodeURIComponent(trackId)}`, JSON.parse(wanted))
        .then(() => null, (error) => error);
      // Without an answer it is told when the page says it again; a refusal would be repeated for ever.
      if (failed?.status === 0) break;
      preference.told = wanted;
    }
    preference.telling = false;
  }

  #syncMuted() {
    for (const [name, own] of Object.entries(this.#sources)) {
      const mid = own.transceiver?.mid;
      // Until a track is negotiated it has no mid.
      const track = mid && this.#me?.tracks.find((one) => (one.mid ? one.mid === mid : one.source === name));
      const wanted = own.on;
      if (!track || own.telling || (own.told ?? !track.muted) === wanted) continue;
      own.telling = true;
      this.#api('PATCH', `/tracks/${encodeURIComponent(track.id)}`, { muted: !wanted })
        .then(() => { own.told = wanted; own.telling = false; this.#syncMuted(); })
        .catch(() => { own.telling = false; });
    }
  }

  // Connection loss.

  #watch(pc) {
    let grace = 0;
    pc.onconnectionstatechange = () => {
      clearTimeout(grace);
      if (pc !== this.#pc) return;
      if (pc.connectionState === 'failed') this.#recover();
      if (pc.connectionState !== 'disconnected') return;
      grace = setTimeout(() => {
        if (pc === this.#pc && pc.connectionState !== 'connected') this.#recover();
      }, DISCONNECTED_GRACE_MS);
    };
  }

  get #hasMedia() { return this.#pc?.connectionState === 'connected'; }

  async #mediaUp() {
    const pc = this.#pc;
    if (this.#hasMedia) return;
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new RequestError(0, 'No media gets through.')), MEDIA_TIMEOUT_MS);
      pc.addEventListener('connectionstatechange', () => {
        if (pc.connectionState !== 'connected') return;
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /**
   * The room goes on at another node, which has taken us up: the same peer connection is led there. The snapshot before has told the rest.
   * What cannot be moved joins anew, in place of the stay that the others see.
   */
  async #follow({ media, location, keeps_ice: keepsIce }) {
    const pc = this.#pc;
    this.#moves += 1;
    const move = this.#moves;
    this.media = media;
    if (location) this.#paths = { self: location, events: `${location}/events` };
    const isOver = () => pc !== this.#pc || move !== this.#moves || this.#phase === 'ended';
    try {
      if (!CAN_MOVE) throw new RequestError(404, 'This browser cannot move a connection.');
      // A browser keeps to what it knows of an address for half a minute: of one that it has been at, it learns anew by beginning ICE anew. Where
      // the node before still serves, nothing stands still for that once the new one is connected.
      const hasBeenThere = this.#addresses.has(addressOf(media));
      this.#addresses.add(addressOf(media));
      await this.#negotiate(!keepsIce);
      await new Promise((resolve) => { setTimeout(resolve, MOVE_TIMEOUT_MS); });
      if (!isOver() && !this.#hasMedia) throw new RequestError(404, 'The connection does not get through to the other node.');
      if (!isOver() && keepsIce && hasBeenThere) await this.#negotiate(true);
    } catch (error) {
      if (isOver()) return;
      if (error.status === 404) this.#gone = true;
      this.#recover(true);
    }
  }

  /** Until everything is back: events again, ICE restarted if need be, joined anew if the room no longer knows us. */
  async #recover(offer = false) {
    if (this.#phase !== 'joined') return;
    this.#setPhase('lost', { media: this.#hasMedia });
    // A connection that comes and goes must not turn into a stream of requests.
    if (performance.now() - this.#recoveredAt < MAX_PAUSE_MS) await this.#pause(1);
    for (let failures = 0; this.#phase === 'lost';) {
      try {
        if (this.#gone) await this.#admit();
        // A refused WebSocket does not tell its status; an offer does, so it is also the probe after a failure.
        else if (offer || failures > 0 || !this.#hasMedia) await this.#negotiate(!this.#hasMedia);
        await this.#openEvents();
        await this.#mediaUp();
        if (this.#phase !== 'lost') return;
        if (!this.#socket) throw new RequestError(0, 'The event stream was closed.');
        this.#recoveredAt = performance.now();
        this.#setPhase('joined');
      } catch (error) {
        failures += 1;
        if (this.#phase === 'ended') return;
        await this.#consider(error, failures);
      }
    }
  }

  async #consider(error, failures) {
    const refused = error.status >= 400 && error.status < 500 && error.status !== 429;
    if (error.status === 401) {
      try {
        this.#token = await this.#options.renewToken();
      } catch {
        this.#end('refused', error.message);
        return;
      }
    } else if (refused && this.#gone) {
      this.#end('refused', error.message);
      return;
    } else if (refused || (failures % 3 === 0 && !this.#hasMedia)) {
      this.#gone = true;
    }
    if (this.#phase === 'lost') this.#setPhase('lost', { media: this.#hasMedia || this.#socket === null });
    await this.#pause(failures, error.retryAfterMs);
  }

  #pause(failures, atLeastMs = 0) {
    const pause = Math.min(500 * 2 ** (failures - 1), MAX_PAUSE_MS) * (0.5 + Math.random() / 2);
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, Math.max(pause, atLeastMs));
    });
  }

  // Small things.

  #api(method, path, body) { return request(method, this.#paths.self + path, { token: this.#token, body }); }

  #transceiver(mid) { return this.#pc?.getTransceivers().find((one) => one.mid === mid); }

  #slotsOf(kind) { return [...this.#slots.values()].filter((slot) => slot.kind === kind); }

  #streamAt(mid) {
    const track = this.#transceiver(mid)?.receiver.track;
    if (!track) return null;
    if (!this.#streams.has(track)) this.#streams.set(track, new MediaStream([track]));
    return this.#streams.get(track);
  }

  #dropSocket() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #hangUp() {
    this.#dropSocket();
    this.#pc?.close();
    this.#pc = null;
  }

  #end(reason, detail) {
    this.#hangUp();
    this.#setPhase('ended', { reason, detail });
    this.#wake();
  }

  #setPhase(phase, more = {}) {
    this.#phase = phase;
    this.#tell('phase', { phase, ...more });
  }

  #changed() {
    this.#syncMuted();
    this.#tell('change');
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}

function source() { return { track: null, on: false, transceiver: null, told: null, telling: false }; }
