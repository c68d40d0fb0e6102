"""aiortc publishes by WHIP and watches by WHEP."""

import asyncio
import unittest

import signalbox
from webrtc_http import FRAGMENT, SDP, Session, ask

# Pictures rise in brightness by 192 within four seconds, so that two seconds of them differ by far more than a codec's noise.
ENOUGH = 30


class Aiortc(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(signalbox.Signalbox())

    def endpoint(self, room, protocol):
        return f"{self.server.url}/v1/rooms/{room}/{protocol}"

    async def publish(self, room):
        session = await Session.publish(self.endpoint(room, "whip"), self.server.token(room, "camera"))
        await session.connected()
        return session

    async def watch(self, room, **what):
        session = await Session.watch(self.endpoint(room, "whep"), self.server.token(room, "viewer"), **what)
        await session.connected()
        return session

    async def assert_moves(self, session):
        seen = [brightness for brightness, _ in await session.pictures(ENOUGH)]
        self.assertGreater(max(seen) - min(seen), 30, seen)

    async def test_a_published_picture_is_decoded_by_several_viewers_with_one_token(self):
        camera = await self.publish("shared")
        viewers = [await self.watch("shared"), await self.watch("shared")]
        await asyncio.gather(*(self.assert_moves(viewer) for viewer in viewers))
        seen = await asyncio.to_thread(self.server.participants, "shared")
        self.assertEqual(seen, {"camera": ["video"]}, "the camera is a participant, and viewers are hidden")
        for session in [camera, *viewers]:
            self.assertEqual(await session.close(), 200)

    async def test_media_flows_on_after_ice_was_restarted_on_both_sides(self):
        camera = await self.publish("restart")
        viewer = await self.watch("restart", kinds=("video",))
        await self.assert_moves(viewer)
        for session in (viewer, camera):
            stale = session.tag
            await session.restart_ice()
            self.assertNotEqual(session.tag, stale)
            await self.assert_moves(viewer)
            fragment = "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n"
            for tag, status in ((stale, 412), (session.tag, 204)):
                answer = await asyncio.to_thread(
                    ask, "PATCH", session.url, fragment, Content_Type=FRAGMENT, If_Match=tag
                )
                self.assertEqual(answer.status, status, answer.body)
        self.assertEqual([await camera.close(), await viewer.close()], [200, 200])

    async def test_a_delete_ends_the_session_and_a_second_finds_none(self):
        camera = await self.publish("ended")
        viewer = await self.watch("ended", kinds=("video",))
        await viewer.pictures(3)
        await asyncio.to_thread(ask, "DELETE", camera.url)
        await viewer.ended()
        self.assertEqual(await asyncio.to_thread(self.server.participants, "ended"), {})
        self.assertEqual(await camera.close(), 404)
        answer = await asyncio.to_thread(
            ask,
            "POST",
            self.endpoint("ended", "whep"),
            viewer.connection.localDescription.sdp,
            Content_Type=SDP,
            Authorization=f"Bearer {self.server.token('ended', 'viewer')}",
        )
        self.assertEqual(answer.status, 409, "nothing is live any more")
        self.assertIn("Retry-After", answer.headers)
        await viewer.close()

    async def test_an_offer_of_sound_alone_is_countered_where_only_a_picture_is_live(self):
        camera = await self.publish("countered")
        viewer = await self.watch("countered", kinds=("audio",))
        self.assertEqual(list(viewer.tracks), ["video"])
        await self.assert_moves(viewer)
        self.assertEqual([await camera.close(), await viewer.close()], [200, 200])

    async def test_a_redirect_is_followed(self):
        elsewhere = await asyncio.to_thread(self.server.redirecting_gateway)
        token = self.server.token("redirected", "camera")
        camera = await Session.publish(f"{elsewhere}/v1/rooms/redirected/whip", token)
        self.assertTrue(camera.answered_by.startswith(self.server.url), camera.answered_by)
        await camera.connected()
        viewer = await Session.watch(f"{elsewhere}/v1/rooms/redirected/whep", token, ("video",))
        await viewer.connected()
        await self.assert_moves(viewer)
        self.assertEqual([await camera.close(), await viewer.close()], [200, 200])


if __name__ == "__main__":
    unittest.main()
