"""The server under test: `signalbox dev` and, where a test wants it, one more gateway. Each process is ended by its own handle."""

import atexit
import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from pathlib import Path

BIN_DIR = Path(os.environ.get("SIGNALBOX_BIN_DIR", Path(__file__).parents[2] / "target" / "release"))
KEY = "devkey"
SECRET = "devsecret-devsecret-devsecret-123"

# Far longer than anything takes, in seconds: only what never happens fails.
PATIENCE = 60

_running = set()


@atexit.register
def _kill_what_is_left():
    for process in list(_running):
        process.popen.kill()


class Process:
    """A child process whose last lines are kept."""

    def __init__(self, arguments, **env):
        self.popen = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            text=True,
            errors="replace",
        )
        self._lines = deque(maxlen=80)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        _running.add(self)

    def _read(self):
        for line in self.popen.stdout:
            self._lines.append(line.rstrip("\n"))

    @property
    def lines(self):
        return "\n".join(self._lines)

    @property
    def has_ended(self):
        return self.popen.poll() is not None

    def wait(self):
        """Waits for its end; gives its exit code."""
        code = self.popen.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.popen.stdout.close()
        _running.discard(self)
        return code

    def stop(self):
        """Ends it with SIGTERM, or SIGKILL when it takes too long; gives its exit code."""
        if not self.has_ended:
            self.popen.terminate()
            try:
                self.popen.wait(20)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        return self.wait()


class Signalbox:
    """`signalbox dev` on free ports of 127.0.0.1. To be used as a context."""

    def __init__(self, *flags, **env):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["dev", "--listen", f"127.0.0.1:{port}", "--media-bind", "127.0.0.1:0", *flags]
        self.process = Process([BIN_DIR / "signalbox", *arguments], **env)
        self.others = []

    def __enter__(self):
        wait_for(f"{self.url}/readyz", self.process)
        until("a room can be placed", lambda: self.where("is-anyone-there") is not None, self.process)
        return self

    def __exit__(self, *_):
        for process in [*self.others, self.process]:
            process.stop()

    def redirecting_gateway(self):
        """One more gateway, which sends WHIP and WHEP clients here; its URL."""
        port = free_port()
        gateway = Process(
            [
                BIN_DIR / "signalbox-gateway",
                *("--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"),
                *("--redirect-whip-to", self.url),
            ],
            SIGNALBOX_KEYS=f"{KEY}:{SECRET}",
            # It never comes to ask anything within the cluster.
            SIGNALBOX_CLUSTER_SECRET="not-the-secret-of-this-cluster",
        )
        self.others.append(gateway)
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz", gateway)
        return url

    def token(self, room, identity):
        """An access token, made by `signalbox token`."""
        arguments = ["--room", room, "--identity", identity, "--ttl", "1h", "--key", KEY, "--secret", SECRET]
        made = subprocess.run([BIN_DIR / "signalbox", "token", *arguments], check=True, capture_output=True, text=True)
        return made.stdout.strip()

    def where(self, room):
        """Where a room's media goes; none: not yet known."""
        answer = self.post_json(f"/v1/rooms/{room}/join", self.token(room, "asker"), {})
        return answer.get("media")

    def participants(self, room):
        """Who is in a room, as somebody sees who looks in: the identity and the kinds of the tracks of each."""
        reply = Participants(self, room).look()
        return {one["identity"]: sorted(track["kind"] for track in one["tracks"]) for one in reply}

    def post_json(self, path, token, body):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return {"status": error.code, **json.load(error)}


class Participants:
    """Looks into a room without media: an offer that receives nothing, whose participant leaves at once."""

    # An m-line of sound that goes nowhere, with a fingerprint and credentials that nobody ever uses.
    OFFER = "\r\n".join(
        [
            "v=0",
            "o=- 1 1 IN IP4 127.0.0.1",
            "s=-",
            "t=0 0",
            "a=group:BUNDLE 0",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "c=IN IP4 0.0.0.0",
            "a=mid:0",
            "a=inactive",
            "a=rtcp-mux",
            "a=ice-ufrag:look",
            "a=ice-pwd:looklooklooklooklooklook",
            "a=fingerprint:sha-256 " + ":".join(["AB"] * 32),
            "a=setup:actpass",
            "a=rtpmap:111 opus/48000/2",
            "",
        ]
    )

    def __init__(self, server, room):
        self.server, self.room = server, room
        self.token = server.token(room, "looker")

    def look(self):
        joined = self.server.post_json(f"/v1/rooms/{self.room}/join", self.token, {"offer": self.OFFER})
        if "participants" not in joined:
            raise AssertionError(f"cannot look into the room: {joined}")
        request = urllib.request.Request(
            f"{self.server.url}/v1/rooms/{self.room}/participants/{joined['participant']['id']}",
            headers={"Authorization": f"Bearer {self.token}"},
            method="DELETE",
        )
        urllib.request.urlopen(request, timeout=PATIENCE).close()
        return joined["participants"]


def free_port():
    """A TCP port on 127.0.0.1 that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, holds, process=None):
    """Asks again and again until it holds, and gives the answer; says what the process printed when it does not."""
    deadline = time.monotonic() + PATIENCE
    while True:
        if held := holds():
            return held
        ended = process is not None and process.has_ended
        if ended or time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}\n{process.lines if process else ''}")
        time.sleep(0.05)


def wait_for(url, process):
    """Waits until a URL answers with success."""

    def answers():
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    until(f"an answer from {url}", answers, process)
