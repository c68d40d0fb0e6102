"""Loaded by schemathesis: how bodies are written that are not JSON. They are texts."""

import schemathesis


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def text(context, value):
    return str(value).encode("utf-8", errors="replace")
