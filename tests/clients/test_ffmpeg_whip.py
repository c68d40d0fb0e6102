"""FFmpeg publishes by WHIP, with the muxer that its own command line has."""

import asyncio
import unittest

import imageio_ffmpeg
import signalbox
from webrtc_http import Session

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

# A picture that fades from black to white every four seconds, and a tone: H.264 without B-frames, as WebRTC wants it, and Opus.
SOURCE = [
    *("-re", "-f", "lavfi", "-i", "color=black:size=320x240:rate=15,geq=lum='32+mod(N,60)*3':cb=128:cr=128"),
    *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"),
]
ENCODERS = [
    *("-c:v", "libx264", "-profile:v", "baseline", "-preset", "ultrafast", "-tune", "zerolatency"),
    *("-pix_fmt", "yuv420p", "-g", "30", "-b:v", "500k"),
    *("-c:a", "libopus", "-ar", "48000", "-ac", "2"),
]


def publishing(url, token, *more):
    arguments = ["-hide_banner", "-nostdin", "-loglevel", "warning", *SOURCE, *ENCODERS, *more]
    return signalbox.Process([FFMPEG, *arguments, "-f", "whip", "-authorization", token, url])


class Ffmpeg(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(signalbox.Signalbox())

    async def watch(self, room, ffmpeg):
        """A viewer, as soon as FFmpeg publishes."""
        until_live = lambda: self.server.participants(room).get("encoder") == ["audio", "video"]
        await asyncio.to_thread(signalbox.until, "ffmpeg publishes", until_live, ffmpeg)
        endpoint = f"{self.server.url}/v1/rooms/{room}/whep"
        viewer = await Session.watch(endpoint, self.server.token(room, "viewer"))
        await viewer.connected()
        return viewer

    async def assert_moves(self, viewer):
        seen = [brightness for brightness, _ in await viewer.pictures(30)]
        self.assertGreater(max(seen) - min(seen), 30, seen)

    async def test_what_ffmpeg_publishes_is_decoded_as_pictures_that_change_and_sound(self):
        token = self.server.token("studio", "encoder")
        ffmpeg = publishing(f"{self.server.url}/v1/rooms/studio/whip", token)
        try:
            viewer = await self.watch("studio", ffmpeg)
            await self.assert_moves(viewer)
            loudest = 0
            for _ in range(50):
                frame = await asyncio.wait_for(viewer.tracks["audio"].recv(), signalbox.PATIENCE)
                samples = memoryview(bytes(frame.planes[0])).cast("h")
                loudest = max(loudest, max(samples))
            self.assertGreater(loudest, 1000, "a tone is heard")
            self.assertEqual(await viewer.close(), 200)
        finally:
            ffmpeg.stop()

    async def test_ffmpeg_ends_its_session_when_it_ends(self):
        token = self.server.token("short", "encoder")
        ffmpeg = publishing(f"{self.server.url}/v1/rooms/short/whip", token, "-t", "6")
        viewer = await self.watch("short", ffmpeg)
        await viewer.pictures(3)
        code = await asyncio.to_thread(ffmpeg.wait)
        self.assertEqual(code, 0, ffmpeg.lines)
        # By its DELETE; otherwise it would stay for as long as the node waits for a silent peer.
        self.assertEqual(await asyncio.to_thread(self.server.participants, "short"), {}, ffmpeg.lines)
        await viewer.close()

    async def test_ffmpeg_follows_a_redirect(self):
        elsewhere = await asyncio.to_thread(self.server.redirecting_gateway)
        token = self.server.token("moved", "encoder")
        ffmpeg = publishing(f"{elsewhere}/v1/rooms/moved/whip?access_token={token}", token)
        try:
            viewer = await self.watch("moved", ffmpeg)
            await self.assert_moves(viewer)
            await viewer.close()
        finally:
            ffmpeg.stop()


if __name__ == "__main__":
    unittest.main()
