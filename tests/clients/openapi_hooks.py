"""Loaded by schemathesis: before each request there is a room with a participant and its track, and the request is about these.

What the requests say in their paths would otherwise be as random as the rest, and every answer 403 or 404.
"""

import os

import openapi_types
import requests
import schemathesis

# How bodies are written holds here too.
assert openapi_types

URL = os.environ["SIGNALBOX_URL"]
TOKEN = {"Authorization": f"Bearer {os.environ['SIGNALBOX_TOKEN']}"}
ROOM = "daily"
JOIN = {"transport": "srtp", "publish": [{"kind": "audio", "codec": "opus"}], "subscribe": False}


def participant():
    """The one participant, which joins anew when a request before has removed it or ended its track."""
    found = requests.get(f"{URL}/v1/rooms/{ROOM}/participants/ann", headers=TOKEN, timeout=10)
    if found.status_code == 200 and found.json()["tracks"]:
        return found.json()
    joined = requests.post(f"{URL}/v1/rooms/{ROOM}/join", json=JOIN, headers=TOKEN, timeout=10)
    joined.raise_for_status()
    return joined.json()["participant"]


@schemathesis.hook
def before_call(context, case, kwargs):
    wanted = case.path_parameters
    if not isinstance(wanted, dict) or "room" not in wanted or "session" in wanted:
        return
    ann = participant()
    wanted["room"] = ROOM
    if "participant" in wanted:
        # By its id and by its identity, in turn, where either will do.
        either = "subscriptions" not in case.path and "offer" not in case.path
        by_identity = either and len(str(wanted["participant"])) % 2
        wanted["participant"] = ann["identity"] if by_identity else ann["id"]
    if "track" in wanted:
        wanted["track"] = ann["tracks"][0]["id"]
