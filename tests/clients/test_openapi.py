"""schemathesis makes requests from /openapi.json, good and bad ones, and looks whether the answers are what the document says."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

import signalbox

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]


class OpenApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Thousands of requests of one user, of which each has to be looked at.
        no_limit = {"SIGNALBOX_REQUESTS_PER_USER": "0", "SIGNALBOX_REQUESTS_PER_ADDRESS": "0"}
        cls.server = cls.enterClassContext(signalbox.Signalbox(**no_limit))
        identity = ["--room", "daily", "--identity", "ann", "--admin", "--ttl", "1h"]
        key = ["--key", signalbox.KEY, "--secret", signalbox.SECRET]
        made = subprocess.run(
            [signalbox.BIN_DIR / "signalbox", "token", *identity, *key], check=True, capture_output=True, text=True
        )
        cls.token = made.stdout.strip()

    def holds(self, examples, checks, *more, **env):
        """Runs schemathesis; the same requests each time."""
        arguments = [
            *("run", f"{self.server.url}/openapi.json", "--header", f"Authorization: Bearer {self.token}"),
            *("--phases", "examples,coverage,fuzzing", "--generation-deterministic"),
            *("--checks", ",".join(checks), "--max-examples", str(examples), "--no-shrink", "--continue-on-failure"),
            *("--request-timeout", "10", "--suppress-health-check", "all", "--warnings", "off", *more),
        ]
        run = subprocess.run(
            [Path(sys.executable).parent / "schemathesis", *arguments],
            env={**os.environ, **env},
            # Where it finds its hooks, and no settings of anybody's.
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=300,
        )
        print("\n".join(run.stdout.splitlines()[-12:]))
        self.assertEqual(run.returncode, 0, f"{run.stdout}\n{run.stderr}\n{self.server.process.lines}")

    def test_requests_about_any_room_and_anybody(self):
        self.holds(100, CHECKS, SCHEMATHESIS_HOOKS="openapi_types")

    def test_requests_about_a_participant_that_is_there(self):
        # Paths are replaced, so that a bad one becomes a good one.
        checks = [check for check in CHECKS if check != "negative_data_rejection"]
        self.holds(
            100,
            checks,
            # A stream of events of somebody who is there does not end.
            *("--exclude-operation-id", "streamEvents"),
            SCHEMATHESIS_HOOKS="openapi_hooks",
            SIGNALBOX_URL=self.server.url,
            SIGNALBOX_TOKEN=self.token,
        )


if __name__ == "__main__":
    unittest.main()
