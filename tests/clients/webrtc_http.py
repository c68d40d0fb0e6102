"""A WHIP and WHEP client around aiortc: the HTTP of both protocols, and an ICE connection that can be restarted by a fragment."""

import asyncio
import fractions
import time
import urllib.error
import urllib.parse
import urllib.request

import aioice
import av
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from signalbox import PATIENCE

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
FRAMES_PER_SECOND = 15


class Answer:
    """An HTTP answer, whatever its status."""

    def __init__(self, url, status, headers, body):
        self.url, self.status, self.headers, self.body = url, status, headers, body


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Python's own client turns a POST that is redirected with 307 into an error."""

    def redirect_request(self, *_):
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def ask(method, url, body=None, **headers):
    """One request; a 307 is followed with method, body and headers."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    for _ in range(3):
        data = None if body is None else body.encode()
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            response = _opener.open(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            answer = Answer(url, response.status, response.headers, response.read().decode())
        if answer.status != 307:
            return answer
        url = urllib.parse.urljoin(url, answer.headers["Location"])
    raise AssertionError(f"redirected too often, at last to {url}")


class Pictures(MediaStreamTrack):
    """A picture whose brightness rises with time, from 32 to 224 every four seconds."""

    kind = "video"

    def __init__(self):
        super().__init__()
        self.started = time.monotonic()
        self.count = 0

    async def recv(self):
        due = self.started + self.count / FRAMES_PER_SECOND
        await asyncio.sleep(max(0, due - time.monotonic()))
        brightness = 32 + self.count * 192 // (4 * FRAMES_PER_SECOND) % 192
        frame = av.VideoFrame(320, 240, "yuv420p")
        for plane, value in zip(frame.planes, (brightness, 128, 128)):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = self.count * 90_000 // FRAMES_PER_SECOND, fractions.Fraction(1, 90_000)
        self.count += 1
        return frame


def brightness(frame):
    """The mean of a picture's luma, 0 to 255."""
    plane = frame.reformat(format="yuv420p").planes[0]
    luma = bytes(plane)
    rows = [luma[row * plane.line_size : row * plane.line_size + plane.width] for row in range(plane.height)]
    return sum(map(sum, rows)) / (plane.width * plane.height)


class Session:
    """A peer connection that was made by one POST."""

    def __init__(self):
        self.connection = RTCPeerConnection()
        self.tracks = {}
        self.replaced = []
        self.url = None
        self.tag = None
        self.connection.on("track", lambda track: self.tracks.setdefault(track.kind, track))

    @classmethod
    async def publish(cls, endpoint, token):
        session = cls()
        session.connection.addTransceiver(Pictures(), direction="sendonly")
        return await session.post(endpoint, token)

    @classmethod
    async def watch(cls, endpoint, token, kinds=("audio", "video")):
        session = cls()
        for kind in kinds:
            session.connection.addTransceiver(kind, direction="recvonly")
        return await session.post(endpoint, token)

    async def post(self, endpoint, token):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        offer = self.connection.localDescription.sdp
        authorization = f"Bearer {token}"
        answer = await asyncio.to_thread(
            ask, "POST", endpoint, offer, Content_Type=SDP, Authorization=authorization
        )
        if answer.status == 406:
            return await self.take_counter_offer(answer)
        if answer.status != 201:
            raise AssertionError(f"{answer.status} {answer.body}")
        self.created(answer)
        self.answer = answer.body
        await self.connection.setRemoteDescription(RTCSessionDescription(answer.body, "answer"))
        return self

    async def take_counter_offer(self, counter):
        """Answers the node's offer on a new connection."""
        await self.connection.close()
        self.__init__()
        self.created(counter)
        await self.connection.setRemoteDescription(RTCSessionDescription(counter.body, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        answer = self.connection.localDescription.sdp
        patched = await asyncio.to_thread(ask, "PATCH", self.url, answer, Content_Type=SDP)
        if patched.status != 204:
            raise AssertionError(f"{patched.status} {patched.body}")
        return self

    def created(self, answer):
        self.answered_by = answer.url
        self.url = urllib.parse.urljoin(answer.url, answer.headers["Location"])
        self.tag = answer.headers["ETag"]

    async def connected(self):
        async with asyncio.timeout(PATIENCE):
            while self.connection.connectionState != "connected":
                await asyncio.sleep(0.02)

    async def pictures(self, count):
        """The brightness of so many decoded pictures, each as (mean, time of arrival)."""
        seen = []
        async with asyncio.timeout(PATIENCE):
            while len(seen) < count:
                frame = await self.tracks["video"].recv()
                seen.append((brightness(frame), time.monotonic()))
        return seen

    async def ended(self):
        """Waits until the node has ended the connection, or nothing has come for a while."""
        try:
            while True:
                await asyncio.wait_for(self.tracks["video"].recv(), 5)
        except (TimeoutError, MediaStreamError):
            return

    async def restart_ice(self):
        """Restarts ICE on new sockets, by a PATCH of the fragment alone (RFC 9725 section 4.3.3)."""
        new = aioice.Connection(ice_controlling=True, components=1)
        await new.gather_candidates()
        lines = [f"a=ice-ufrag:{new.local_username}", f"a=ice-pwd:{new.local_password}", "m=video 9 RTP/AVP 0", "a=mid:0"]
        lines += [f"a=candidate:{candidate.to_sdp()}" for candidate in new.local_candidates]
        fragment = "\r\n".join([*lines, "a=end-of-candidates", ""])
        answer = await asyncio.to_thread(ask, "PATCH", self.url, fragment, Content_Type=FRAGMENT, If_Match="*")
        if answer.status != 200:
            raise AssertionError(f"{answer.status} {answer.body}")
        self.tag = answer.headers["ETag"]
        for line in answer.body.splitlines():
            name, _, value = line.removeprefix("a=").partition(":")
            if name == "ice-ufrag":
                new.remote_username = value
            elif name == "ice-pwd":
                new.remote_password = value
            elif name == "ice-lite":
                new.remote_is_lite = True
            elif name == "candidate":
                await new.add_remote_candidate(aioice.Candidate.from_sdp(value))
        await new.add_remote_candidate(None)
        await new.connect()
        await self._go_over_to(new)

    async def _go_over_to(self, new):
        """Puts another ICE connection under the DTLS transport, which aiortc itself cannot do, and closes the old one's sockets."""
        transport = self.connection.getTransceivers()[0].receiver.transport.transport
        old, transport._recv, transport._send = transport._recv.__self__, new.recv, new.send
        self.replaced.append(new)
        # Whoever waits for the old one's next datagram gets one that is nothing, and turns to the new one.
        old._queue.put_nowait((b"\xff", 1))
        while not old._queue.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Not by its own close, which would tell aiortc that the connection has failed.
        old._query_consent_task.cancel()
        for protocol in old._protocols:
            await protocol.close()

    async def close(self):
        """Ends the session; gives the status of the DELETE."""
        answer = await asyncio.to_thread(ask, "DELETE", self.url)
        await self.connection.close()
        for connection in self.replaced:
            await connection.close()
        return answer.status

