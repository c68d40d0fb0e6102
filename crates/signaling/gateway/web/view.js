// The page's elements: shows what it is told and reports what people do. It must know nothing of WebRTC beyond MediaStream.
//
// `app.js` hands over complete lists (tiles, sounds); this module changes only what differs, so that a playing video element is
// never replaced.

import { Sight } from './sight.js';

const GAP = 12;
const SMALLEST_TILE = { width: 150, height: 112 };
// A picture that has not moved for this long is shown as paused.
const STILL_MS = 4_000;
const LOOK_EVERY_MS = 1_000;
const TOAST_MS = 4_000;
// What a tile says in place of a picture.
const NOTES = {
  waiting: 'Waiting for video…',
  paused: 'Video paused',
  no_room: 'Paused: your connection is too slow',
  unsupported: 'This browser cannot show this picture',
};

const $ = (id) => document.getElementById(id);

export class View {
  #handlers;
  #tiles = new Map();
  #sounds = new Map();
  #sight;
  #invite = null;
  #toastTimer = 0;

  /**
   * `handlers`: join({name, room, token}), toggle(source), leave(), copyLink(), pick(source, deviceId), and seen(key, size): a tile is seen
   * at `{width, height}`, or, null, by nobody.
   */
  constructor(handlers) {
    this.#handlers = handlers;
    this.#sight = new Sight(handlers.seen);
    $('form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
    for (const button of document.querySelectorAll('[data-toggle]')) {
      button.addEventListener('click', () => handlers.toggle(button.dataset.toggle));
    }
    for (const source of ['camera', 'microphone']) {
      $(`${source}-device`).addEventListener('change', (event) => handlers.pick(source, event.target.value));
    }
    $('leave').addEventListener('click', () => handlers.leave());
    $('copy').addEventListener('click', () => handlers.copyLink());
    $('unblock').addEventListener('click', () => this.#play());
    document.addEventListener('keydown', (event) => this.#key(event));
    new ResizeObserver(() => this.#layOut()).observe($('grid'));
    setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  /** `state`: lobby, joining, joined, lost or left. */
  setState(state) {
    const before = document.body.dataset.state;
    document.body.dataset.state = state;
    const inCall = state === 'joined' || state === 'lost';
    $('lobby').hidden = inCall;
    $('call').hidden = !inCall;
    if (!inCall) document.title = 'Signalbox';
    $('join').disabled = state === 'joining';
    $('join').textContent = { joining: 'Joining…', left: 'Join again' }[state] ?? 'Join the room';
    if (inCall && (before === 'joining' || before === 'left')) document.querySelector('.controls .control').focus();
    if (state === 'left' && before !== 'left') $('join').focus();
  }

  /** A sentence above the form; empty: none. */
  setMessage(text) {
    $('message').textContent = text;
    $('message').hidden = !text;
  }

  /** A sentence over the call while something is wrong; empty: none. */
  setBanner(text) {
    $('banner').textContent = text;
    $('banner').hidden = !text;
  }

  /** A passing note, also read out by screen readers. */
  toast(text) {
    clearTimeout(this.#toastTimer);
    $('toast').textContent = text;
    this.#toastTimer = setTimeout(() => { $('toast').textContent = ''; }, TOAST_MS);
  }

  fill({ name, room, token }) {
    if (name) $('name').value = name;
    if (room) $('room').value = room;
    if (token) $('token').value = token;
    ($('name').value ? $('join') : $('name')).focus();
  }

  askForToken() {
    $('token-field').hidden = false;
    $('token').focus();
  }

  setRoom({ room, count, media }) {
    $('room-title').textContent = room;
    $('room-count').textContent = count === 1 ? 'Only you' : `${count} people`;
    $('room-media').textContent = media ? `Media: ${media.ip.includes(':') ? `[${media.ip}]` : media.ip}:${media.port}` : '';
    $('room-media').title = media ? `Your sound and picture go straight to node ${media.node}` : '';
    document.title = `${room} · Signalbox`;
  }

  /** The own camera in the lobby; `note` says why there is none. */
  setPreview(stream, note) {
    const video = $('preview');
    if (video.srcObject !== stream) video.srcObject = stream;
    $('preview-note').textContent = note;
    video.closest('.preview').dataset.video = stream ? 'on' : 'off';
  }

  setDevicesNote(text) { $('devices-note').textContent = text; }

  /** `devices`: {camera: [{id, label}], microphone: […]}, `chosen`: {camera: id, microphone: id}. */
  setDevices(devices, chosen) {
    for (const [source, list] of Object.entries(devices)) {
      const select = $(`${source}-device`);
      select.replaceChildren(...list.map(({ id, label }) => new Option(label, id, false, id === chosen[source])));
      select.closest('.field').hidden = list.length === 0;
    }
    $('devices').hidden = Object.values(devices).every((list) => list.length < 2);
  }

  /** Shows whether a source is on. */
  setToggle(source, on) {
    const words = { microphone: ['Mute', 'Unmute', 'm'], camera: ['Stop video', 'Start video', 'v'] }[source];
    for (const button of document.querySelectorAll(`[data-toggle="${source}"]`)) {
      button.dataset.on = on;
      button.querySelector('use').setAttribute('href', `#icon-${source}${on ? '' : '-off'}`);
      button.querySelector('span').textContent = on ? words[0] : words[1];
      button.title = `${on ? words[0] : words[1]} (${words[2]})`;
    }
  }

  /**
   * Everyone in the room: `[{key, participantId, identity, name, local, screen, muted, speaking, camera, stream, trouble}]`, where `camera`
   * says whether a picture is being published, `stream` is it, or null while none is received, and `trouble` is what keeps it from
   * arriving, by its name in NOTES, or null.
   */
  setTiles(tiles) {
    const keys = new Set(tiles.map((tile) => tile.key));
    for (const [key, tile] of this.#tiles) {
      if (keys.has(key)) continue;
      tile.video.srcObject = null;
      this.#sight.forget(tile.element);
      tile.element.remove();
      this.#tiles.delete(key);
    }
    for (const data of tiles) {
      if (!this.#tiles.has(data.key)) this.#tiles.set(data.key, this.#makeTile(data));
      this.#updateTile(this.#tiles.get(data.key), data);
    }
    this.#layOut();
    this.#sight.repeat();
  }

  /** The empty room's invitation under a heading; without a link none. */
  setInvite(link, heading) {
    if (!link) {
      this.#invite?.remove();
      this.#invite = null;
    } else if (!this.#invite) {
      this.#invite = $('invite').content.firstElementChild.cloneNode(true);
      const input = this.#invite.querySelector('input');
      input.value = link;
      input.addEventListener('focus', () => input.select());
      this.#invite.querySelector('button').addEventListener('click', () => this.#handlers.copyLink());
      $('grid').append(this.#invite);
    }
    if (link) this.#invite.querySelector('h2').textContent = heading;
    this.#layOut();
  }

  /** What is to be heard: `[{mid, stream}]`. */
  setSounds(sounds) {
    const mids = new Set(sounds.map((sound) => sound.mid));
    for (const [mid, audio] of this.#sounds) {
      if (mids.has(mid)) continue;
      audio.srcObject = null;
      audio.remove();
      this.#sounds.delete(mid);
    }
    let added = false;
    for (const { mid, stream } of sounds) {
      const audio = this.#sounds.get(mid) ?? document.createElement('audio');
      if (audio.srcObject === stream) continue;
      audio.srcObject = stream;
      this.#sounds.set(mid, audio);
      $('sounds').append(audio);
      added = true;
    }
    if (added) this.#play();
    if (this.#sounds.size === 0) $('unblock').hidden = true;
  }

  // Browsers refuse sound to pages that nobody has clicked on; then a click is asked for.
  async #play() {
    const results = await Promise.allSettled([...this.#sounds.values()].map((audio) => audio.play()));
    $('unblock').hidden = !results.some((result) => result.reason?.name === 'NotAllowedError');
  }

  #submit() {
    const values = { name: $('name').value.trim(), room: $('room').value.trim(), token: $('token').value.trim() };
    for (const field of ['name', 'room']) {
      if (values[field]) continue;
      this.setMessage(field === 'name' ? 'Type your name, so that the others know who you are.' : 'Type the name of a room.');
      $(field).focus();
      return;
    }
    this.#handlers.join(values);
  }

  #key(event) {
    const source = { m: 'microphone', v: 'camera' }[event.key.toLowerCase()];
    if (!source || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.('input, select, textarea')) return;
    event.preventDefault();
    this.#handlers.toggle(source);
  }

  #makeTile({ key, identity, participantId, local, screen }) {
    const element = $('tile').content.firstElementChild.cloneNode(true);
    Object.assign(element.dataset, { participant: identity, participantId, local, screen, video: 'off' });
    const hue = [...identity].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
    element.style.setProperty('--hue', hue);
    const tile = { element, video: element.querySelector('video'), frames: 0, movedAt: 0, trouble: null };
    tile.video.addEventListener('loadeddata', () => this.#moved(tile));
    if (this.#invite) this.#invite.before(element);
    else $('grid').append(element);
    this.#sight.watch(key, element);
    return tile;
  }

  #updateTile(tile, data) {
    const { element, video } = tile;
    const { name, local, screen, muted, speaking, camera, stream, trouble } = data;
    tile.trouble = trouble;
    const who = `${name}${screen ? '’s screen' : ''}${local ? ' (you)' : ''}`;
    const text = element.querySelector('.who');
    if (text.textContent !== who) text.textContent = who;
    element.querySelector('.avatar').textContent = initials(name);
    video.setAttribute('aria-label', `Picture of ${who}`);
    Object.assign(element.dataset, { speaking, muted });
    if (video.srcObject !== stream) {
      video.srcObject = stream;
      tile.frames = 0;
      tile.movedAt = performance.now();
      if (stream) video.play().catch(() => {});
    }
    if (!camera) this.#setVideo(tile, 'off');
    else if (!stream) this.#setVideo(tile, 'waiting');
    else if (trouble) this.#setVideo(tile, 'paused');
    else if (local) this.#setVideo(tile, 'on');
    else if (element.dataset.video === 'off') this.#setVideo(tile, 'waiting');
  }

  #setVideo(tile, state) {
    const { element, video } = tile;
    element.querySelector('.tile-note').textContent = NOTES[state === 'paused' && tile.trouble ? tile.trouble : state] ?? '';
    if (element.dataset.video === state) return;
    element.dataset.video = state;
    video.setAttribute('aria-hidden', state !== 'on');
    if (state === 'waiting') video.requestVideoFrameCallback?.(() => this.#moved(tile));
  }

  #moved(tile) {
    tile.movedAt = performance.now();
    if (tile.trouble) return;
    if (['waiting', 'paused'].includes(tile.element.dataset.video)) this.#setVideo(tile, 'on');
  }

  /** Notices pictures that stopped, or move again. */
  #look() {
    if (document.hidden) return;
    for (const tile of this.#tiles.values()) {
      if (!tile.video.srcObject || tile.element.dataset.local === 'true') continue;
      const frames = tile.video.getVideoPlaybackQuality().totalVideoFrames;
      if (frames !== tile.frames && frames > 0) this.#moved(tile);
      else if (tile.element.dataset.video === 'on' && performance.now() - tile.movedAt > STILL_MS) this.#setVideo(tile, 'paused');
      tile.frames = frames;
    }
  }

  /** The tile size that fills the grid best; when even that is too small the grid scrolls. */
  #layOut() {
    const grid = $('grid');
    const count = grid.childElementCount;
    const style = getComputedStyle(grid);
    const room = {
      width: grid.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
      height: grid.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom),
    };
    if (count === 0 || room.width <= 0 || room.height <= 0) return;
    const narrow = room.width < room.height;
    let best = { width: 0, height: 0 };
    for (let columns = 1; columns <= count; columns += 1) {
      const rows = Math.ceil(count / columns);
      let width = (room.width - GAP * (columns - 1)) / columns;
      let height = (room.height - GAP * (rows - 1)) / rows;
      if (height > 0) {
        width = Math.min(width, (height * 16) / 9);
        height = Math.min(height, narrow ? (width * 5) / 4 : (width * 3) / 4);
        if (width * height > best.width * best.height) best = { width, height };
      }
    }
    if (best.width < SMALLEST_TILE.width || best.height < SMALLEST_TILE.height) {
      const columns = Math.max(2, Math.floor((room.width + GAP) / (SMALLEST_TILE.width + GAP)));
      const width = (room.width - GAP * (columns - 1)) / columns;
      best = { width, height: Math.max(width * 0.75, SMALLEST_TILE.height) };
    }
    grid.style.setProperty('--tile-width', `${Math.floor(best.width)}px`);
    grid.style.setProperty('--tile-height', `${Math.floor(best.height)}px`);
  }
}

function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0].toUpperCase()).join('') || '?';
}
