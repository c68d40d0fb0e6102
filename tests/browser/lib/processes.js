// Signalbox's own binaries as child processes. Each is ended by the handle of the child that was started here.

import { spawn, execFile } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { until } from './wait.js';

const BIN_DIR = process.env.SIGNALBOX_BIN_DIR ?? fileURLToPath(new URL('../../../target/release', import.meta.url));
const STOP_SECONDS = 15;
const KEPT_LINES = 60;

const running = new Set();
// Whatever ends this process, a failed assertion or the runner's time limit, nothing that it started may stay.
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** A TCP port on 127.0.0.1 that was free a moment ago. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** The path of one of Signalbox's binaries. */
export const binary = (name) => path.join(BIN_DIR, name);

/** Runs a binary to its end and gives what it printed. */
export async function output(name, args) {
  const { stdout } = await promisify(execFile)(binary(name), args);
  return stdout.trim();
}

/** The ids of a process's children. */
export async function children(parent) {
  const all = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const parents = await Promise.all(all.map(async (pid) => {
    // It may have ended since. The fields behind the name, which may hold anything, are its state and its parent.
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') X 0');
    const [state, of] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' ? 0 : Number(of);
  }));
  return all.map(Number).filter((_, index) => parents[index] === parent);
}

/** Starts a binary. `env` is added to this process's; gives `{pid, running, ended, stop(), kill(), lines()}`. */
export function start(name, args = [], env = {}) {
  const child = spawn(binary(name), args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      lines.push(...text.split('\n').filter(Boolean));
      lines.splice(0, lines.length - KEPT_LINES);
    });
  }
  running.add(child);
  let failure = null;
  const ended = new Promise((resolve) => {
    child.on('error', (error) => { failure = error; resolve(null); });
    child.on('exit', (code, signal) => resolve(signal ?? code));
  }).then((how) => { running.delete(child); return how; });

  return {
    pid: child.pid,
    /** Whether it has not ended. */
    get running() { return running.has(child); },
    /** Resolves to its exit code, or the signal's name, once it has ended. */
    ended,
    /** Sends it a signal. */
    kill(signal = 'SIGKILL') { child.kill(signal); },
    lines: () => lines.join('\n'),
    /** Resolves once `url` answers with success; says what the process printed when it does not. */
    async ready(url) {
      await until(`${name} answers at ${url}`, async () => {
        if (failure || child.exitCode !== null) return true;
        return (await fetch(url)).ok;
      }, { everyMs: 50 }).catch((error) => { throw new Error(`${error.message}\n${lines.join('\n')}`); });
      if (failure) throw failure;
      if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}\n${lines.join('\n')}`);
    },
    /** Ends it with SIGTERM, or SIGKILL when it takes too long; resolves to its exit code, or the signal's name. */
    async stop() {
      if (!running.has(child)) return ended;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_SECONDS * 1000);
      const how = await ended;
      clearTimeout(timer);
      return how;
    },
  };
}
