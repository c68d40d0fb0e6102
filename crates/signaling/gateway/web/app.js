// Ties the call to the page: devices, the lobby, access tokens, and what the tiles show.

import { Call } from './call.js';
import { RequestError, request } from './http.js';
import { View } from './view.js';

const SOURCES = ['microphone', 'camera'];
const WANTED = {
  microphone: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  camera: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
};
const CONSTRAINT = { microphone: 'audio', camera: 'video' };
const DEVICE_KIND = { microphone: 'audioinput', camera: 'videoinput' };
const ENDINGS = {
  left: 'You left the room.',
  duplicate_identity: 'You joined this room somewhere else, so this page has left it.',
  room_closed: 'The room was closed.',
};

const devices = { microphone: idle(), camera: idle() };
let call = null;
let entrance = { room: '', name: '', identity: '' };
let met = false;
let drawing = false;

function idle() { return { track: null, on: false, deviceId: '', problem: '' }; }

const view = new View({ join, toggle, leave, copyLink, pick, seen });

// Devices.

async function open(sources) {
  const constraints = {};
  for (const source of sources) {
    const { deviceId } = devices[source];
    constraints[CONSTRAINT[source]] = { ...WANTED[source], ...(deviceId && { deviceId: { exact: deviceId } }) };
  }
  const stream = await navigator.mediaDevices.getUserMedia(constraints);
  for (const source of sources) {
    const [track] = source === 'camera' ? stream.getVideoTracks() : stream.getAudioTracks();
    devices[source].track?.stop();
    Object.assign(devices[source], { track, on: true, problem: '' });
    track.addEventListener('ended', () => devices[source].track === track && unplugged(source));
  }
}

/** Opens what there is: both at once, so that people are asked once, else each for itself. */
async function openDevices() {
  if (!navigator.mediaDevices?.getUserMedia) {
    view.setDevicesNote('Camera and microphone need HTTPS (or localhost). You can still join to watch and listen.');
    draw();
    return;
  }
  try {
    await open(SOURCES);
  } catch (error) {
    for (const source of SOURCES) {
      devices[source].problem = error.name;
      // Asking again right after a refusal would only annoy.
      if (error.name === 'NotAllowedError' && !(await isGranted(source))) continue;
      await open([source]).catch((each) => { devices[source].problem = each.name; });
    }
  }
  const missing = SOURCES.filter((source) => !devices[source].track);
  view.setDevicesNote(missing.length > 0 ? `${explain(missing)} You can still join${missing.length === 2 ? ' to watch and listen' : ''}.` : '');
  await listDevices();
  draw();
}

async function isGranted(source) {
  try {
    return (await navigator.permissions.query({ name: source })).state === 'granted';
  } catch {
    return false;
  }
}

function explain(sources) {
  const names = sources.join(' and ').replace(/^./, (letter) => letter.toUpperCase());
  const verb = sources.length > 1 ? 'are' : 'is';
  switch (devices[sources[0]].problem) {
    case 'NotAllowedError': return `${names} ${verb} blocked. Allow ${sources.length > 1 ? 'them' : 'it'} in the browser’s address bar.`;
    case 'NotReadableError': return `${names} ${verb} in use by another program.`;
    default: return `No ${sources.join(' or ')} was found.`;
  }
}

async function listDevices() {
  const all = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const lists = {};
  const chosen = {};
  for (const source of SOURCES) {
    const known = all.filter((one) => one.kind === DEVICE_KIND[source] && one.label);
    lists[source] = known.map((one) => ({ id: one.deviceId, label: one.label }));
    chosen[source] = devices[source].track?.getSettings().deviceId;
  }
  view.setDevices(lists, chosen);
}

async function pick(source, deviceId) {
  devices[source].deviceId = deviceId;
  await open([source]).catch((error) => { devices[source].problem = error.name; view.toast(explain([source])); });
  draw();
}

async function toggle(source) {
  const device = devices[source];
  if (device.busy || document.body.dataset.state === 'joining') return;
  device.busy = true;
  try {
    if (device.on) turnOff(source);
    else if (device.track?.readyState === 'live') Object.assign(device, { on: true }).track.enabled = true;
    else await open([source]);
  } catch (error) {
    device.problem = error?.name ?? '';
    view.toast(explain([source]));
  } finally {
    device.busy = false;
  }
  await call?.publish(source, device.track, device.on);
  draw();
}

function turnOff(source) {
  const device = devices[source];
  device.on = false;
  // A microphone must come back at once; a camera's light must go out.
  if (source === 'microphone') device.track.enabled = false;
  else release(source);
}

function release(source) {
  devices[source].track?.stop();
  Object.assign(devices[source], { track: null, on: false });
}

function unplugged(source) {
  release(source);
  view.toast(source === 'camera' ? 'Your camera was disconnected.' : 'Your microphone was disconnected.');
  call?.publish(source, null, false);
  draw();
}

// Joining and leaving.

async function join({ name, room, token }) {
  if (document.body.dataset.state === 'joining') return;
  view.setMessage('');
  view.setState('joining');
  if (entrance.room !== room || entrance.name !== name) entrance = { room, name, identity: identityFor(name) };
  remember({ name, room });
  try {
    const access = token || (await guestToken());
    call = new Call({ room, name, token: access, renewToken: token ? () => Promise.reject() : guestToken });
    listen(call);
    met = false;
    for (const source of SOURCES) call.publish(source, devices[source].track, devices[source].on);
    await call.join();
  } catch (error) {
    call = null;
    view.setState('lobby');
    view.setMessage(error instanceof RequestError ? error.message : 'The call could not be set up in this browser.');
    if (!(error instanceof RequestError)) console.error(error);
    if (error.askForToken || (token && [401, 403].includes(error.status))) view.askForToken();
  }
}

async function guestToken() {
  const { room, name, identity } = entrance;
  try {
    return (await request('POST', '/v1/guest-tokens', { body: { room, name, identity } })).token;
  } catch (error) {
    if (error.status === 403) {
      error.message = 'This server has no guest access. Paste an access token to join.';
      error.askForToken = true;
    }
    throw error;
  }
}

function identityFor(name) {
  const slug = name.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 32) || 'guest';
  const suffix = [...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${slug}-${suffix}`;
}

function listen(current) {
  const mine = (handler) => (event) => current === call && handler(event.detail);
  current.addEventListener('change', mine(draw));
  current.addEventListener('presence', mine(({ kind, participant }) => view.toast(`${shown(participant)} ${kind}.`)));
  current.addEventListener('phase', mine(({ phase, reason, detail, media }) => {
    if (phase === 'ended') {
      ended(reason, detail);
      return;
    }
    const { ip, port } = current.media ?? {};
    const hint = isLoopback(ip) ? ' Firefox sends nothing to a loopback address: give --media-bind this computer’s own.' : '';
    const noMedia = `No sound or picture gets through to ${ip}, UDP port ${port}.${hint} Trying again…`;
    view.setBanner(phase !== 'lost' ? '' : media === false ? noMedia : 'Connection lost, reconnecting…');
    view.setState(phase);
    draw();
  }));
}

function isLoopback(ip = '') { return ip.startsWith('127.') || ip === '::1'; }

function ended(reason, detail) {
  const wasIn = ['joined', 'lost'].includes(document.body.dataset.state);
  call = null;
  view.setTiles([]);
  view.setSounds([]);
  view.setInvite(null, '');
  view.setBanner('');
  if (!wasIn) return;
  view.setState('left');
  view.setMessage(ENDINGS[reason] ?? `You are no longer in the room. ${detail || 'Join again to go on.'}`);
  draw();
}

function leave() { call?.leave(); }

async function copyLink() {
  try {
    await navigator.clipboard.writeText(link());
    view.toast('Link copied.');
  } catch {
    view.toast(`The link is ${link()}`);
  }
}

/** Never with the token: whoever opens it gets an own one. */
function link() { return `${location.origin}/?room=${encodeURIComponent(entrance.room)}`; }

// Showing.

function draw() {
  if (drawing) return;
  drawing = true;
  queueMicrotask(() => {
    drawing = false;
    for (const source of SOURCES) view.setToggle(source, devices[source].on);
    if (call?.me) drawCall();
    else drawLobby();
  });
}

function drawLobby() {
  const { track, problem } = devices.camera;
  const note = problem ? 'No camera' : 'Your camera is off';
  view.setPreview(track && ownStream(track), track ? '' : note);
}

function drawCall() {
  const tiles = [tileOf(call.me, true), ...call.others.sort((a, b) => a.joined_at_ms - b.joined_at_ms).flatMap(tilesOf)];
  view.setTiles(tiles);
  view.setSounds(call.sounds);
  met ||= call.others.length > 0;
  view.setInvite(call.others.length === 0 ? link() : null, met ? 'Everyone else has left' : 'You are the first one here');
  view.setRoom({ room: entrance.room, count: call.others.length + 1, media: call.media });
}

function tilesOf(participant) {
  const screens = participant.tracks.filter((track) => track.source === 'screen_share' && !track.muted);
  return [tileOf(participant, false), ...screens.map((track) => ({
    ...tileOf(participant, false), key: track.id, screen: true, muted: false, speaking: false, camera: true,
    stream: call.streamOf(track.id), trouble: call.troubleOf(track.id),
  }))];
}

function tileOf(participant, local) {
  const { id, identity, tracks } = participant;
  const camera = tracks.find(isCamera);
  const sound = tracks.find((track) => track.source === 'microphone');
  const own = devices.camera.track;
  return {
    key: id,
    participantId: id,
    identity,
    name: shown(participant),
    local,
    screen: false,
    muted: local ? !devices.microphone.on : !sound || sound.muted,
    speaking: call.isSpeaking(id),
    camera: local ? own !== null : Boolean(camera) && !camera.muted,
    stream: local ? own && ownStream(own) : camera ? call.streamOf(camera.id) : null,
    trouble: local || !camera ? null : call.troubleOf(camera.id),
  };
}

function isCamera(track) { return track.kind === 'video' && track.source !== 'screen_share'; }

function shown({ name, identity }) { return name || identity; }

const ownStreams = new WeakMap();
function ownStream(track) {
  if (!ownStreams.has(track)) ownStreams.set(track, new MediaStream([track]));
  return ownStreams.get(track);
}

function seen(key, size) {
  for (const { id, tracks } of call?.others ?? []) {
    const track = tracks.find((one) => (id === key ? isCamera(one) : one.id === key));
    if (track) call.prefer(track.id, size);
  }
}

// Start.

function remember(values) {
  try {
    for (const [key, value] of Object.entries(values)) localStorage.setItem(`signalbox.${key}`, value);
  } catch {
    // Storage may be blocked; the fields are then simply empty next time.
  }
  history.replaceState(null, '', `?room=${encodeURIComponent(values.room)}${location.hash}`);
}

function recall(key) {
  try {
    return new URLSearchParams(location.search).get(key) || localStorage.getItem(`signalbox.${key}`);
  } catch {
    return null;
  }
}

/** What a token says about itself; only to fill in the form, the server alone checks it. */
function claimsOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get('token') ?? '';
  const claims = claimsOf(token);
  const room = new URLSearchParams(location.search).get('room') || claims.video?.room || recall('room') || 'demo';
  view.fill({ name: recall('name') || claims.name || claims.sub, room, token });
  window.addEventListener('pagehide', leave);
  window.addEventListener('online', () => call?.nudge());
  navigator.mediaDevices?.addEventListener?.('devicechange', listDevices);
  /** For tests, and for the curious in the console: what arrives. */
  window.signalbox = Object.freeze({
    get pc() { return call?.pc ?? null; },
    get participantId() { return call?.participantId ?? null; },
    stats: async () => call?.stats() ?? {},
  });
  draw();
  openDevices();
}

start();
