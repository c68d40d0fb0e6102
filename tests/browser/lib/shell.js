// Scripts as a person pastes them, each in a folder and a process group of its own, so that whatever they start ends with the test.

import { execFile, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const KEPT_BYTES = 8_000;
const STOP_SECONDS = 10;

const groups = new Set();
process.on('exit', () => groups.forEach((pid) => signal(pid, 'SIGKILL')));

export class Shell {
  #folder;
  #child;
  #ended;
  #output = '';

  /** Starts `sh` with the script. */
  static async run(script) {
    return new Shell(await mkdtemp(path.join(tmpdir(), 'signalbox-shell-')), script);
  }

  constructor(folder, script) {
    this.#folder = folder;
    this.#child = spawn('sh', ['-c', script], { cwd: folder, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    groups.add(this.#child.pid);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.#output = (this.#output + text).slice(-KEPT_BYTES); });
    }
    this.#ended = once(this.#child, 'close');
  }

  /** What it printed last. */
  output() { return this.#output; }

  /** A file that it wrote. */
  path(name) { return path.join(this.#folder, name); }

  /** Whether a file that it writes has so many bytes. */
  async size(name, least) { return (await stat(this.path(name))).size >= least; }

  /** As Ctrl-C does: everything in it is asked to end, and has written its files afterwards. */
  async interrupt() { await this.#end('SIGINT'); }

  /** Ends it and removes its folder. */
  async stop() {
    await this.#end('SIGTERM');
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #end(how) {
    signal(this.#child.pid, how);
    const timer = setTimeout(() => signal(this.#child.pid, 'SIGKILL'), STOP_SECONDS * 1000);
    await this.#ended;
    clearTimeout(timer);
    groups.delete(this.#child.pid);
  }
}

function signal(group, how) {
  try {
    process.kill(-group, how);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

/** How many frames of a file's only stream of a kind (`v`, `a`) decode. */
export async function decodedFrames(file, kind) {
  const { stdout } = await promisify(execFile)('ffprobe', [
    '-v', 'error', '-select_streams', kind, '-count_frames', '-show_entries', 'stream=nb_read_frames', '-of', 'csv=p=0', file,
  ]);
  return Number(stdout.trim());
}

/** The first of so many UDP ports in a row that were free a moment ago; an even one. */
export async function freePorts(count) {
  for (;;) {
    const first = await tryBind(0).then((port) => port + (port % 2));
    const bound = await Promise.all(Array.from({ length: count }, (_, index) => tryBind(first + index).catch(() => null)));
    if (bound.every(Boolean)) return first;
  }
}

async function tryBind(port) {
  const socket = createSocket('udp4');
  socket.bind(port, '0.0.0.0');
  try {
    await once(socket, 'listening');
    return socket.address().port;
  } finally {
    socket.close();
  }
}
