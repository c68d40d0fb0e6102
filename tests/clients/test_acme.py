"""Certificates from an authority: Pebble, Let's Encrypt's own for tests, which proves that the gateway has the name by a handshake."""

import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

import signalbox

PEBBLE = os.environ["PEBBLE"]
NAME = "localhost"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Pebble, which proves names at one port of this machine. To be used as a context."""

    def __init__(self, folder, proven_at):
        self.folder = folder
        self.ports = signalbox.free_port(), signalbox.free_port()
        self.root = folder / "root.pem"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        if not self.root.exists():
            openssl("req", "-x509", *key, "-subj", "/CN=root", "-keyout", folder / "root.key", "-out", self.root)
            openssl("req", *key, "-subj", "/CN=api", "-keyout", folder / "api.key", "-out", folder / "api.csr")
            (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            openssl(
                *("x509", "-req", "-in", folder / "api.csr", "-CA", self.root, "-CAkey", folder / "root.key"),
                *("-CAcreateserial", "-days", 2, "-extfile", folder / "names", "-out", folder / "api.pem"),
            )
        config = {
            "listenAddress": f"127.0.0.1:{self.ports[0]}",
            "managementListenAddress": f"127.0.0.1:{self.ports[1]}",
            "certificate": str(folder / "api.pem"),
            "privateKey": str(folder / "api.key"),
            "httpPort": 1,
            "tlsPort": proven_at,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": config}))

    def __enter__(self):
        arguments = [PEBBLE, "-config", self.folder / "pebble.json"]
        self.process = signalbox.Process(arguments, PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
        signalbox.until("the authority answers", self.given_root, self.process)
        return self

    def __exit__(self, *_):
        self.process.stop()

    @property
    def directory(self):
        return f"https://127.0.0.1:{self.ports[0]}/dir"

    def given_root(self):
        """The root of the certificates that it gives, which is another one at each start; none: it does not answer yet."""
        context = ssl.create_default_context(cafile=self.root)
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{self.ports[1]}/roots/0", context=context) as answer:
                return answer.read().decode()
        except OSError:
            return None


class Gateway:
    """A gateway that gets its certificate by itself. To be used as a context."""

    def __init__(self, folder, port, directory):
        self.port, self.admin = port, signalbox.free_port()
        self.arguments = [
            *("--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{self.admin}"),
            *("--acme-domain", NAME, "--acme-cache", folder / "cache", "--acme-contact", "mailto:operator@example.com"),
            *("--acme-directory", directory, "--acme-root", folder / "root.pem"),
        ]

    def __enter__(self):
        self.process = signalbox.Process(
            [signalbox.BIN_DIR / "signalbox-gateway", *self.arguments],
            SIGNALBOX_KEYS=f"{signalbox.KEY}:{signalbox.SECRET}",
            SIGNALBOX_CLUSTER_SECRET="the-secret-of-no-cluster",
        )
        signalbox.wait_for(f"http://127.0.0.1:{self.admin}/readyz", self.process)
        return self

    def __exit__(self, *_):
        self.process.stop()

    def certificate(self, root, protocols=("http/1.1",)):
        """The serial number of its certificate, if that is of this root and for its name; none: a handshake fails."""
        context = ssl.create_default_context(cadata=root)
        context.set_alpn_protocols(list(protocols))
        try:
            with socket.create_connection(("127.0.0.1", self.port)) as stream:
                with context.wrap_socket(stream, server_hostname=NAME) as secured:
                    secured.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if not secured.recv(12).startswith(b"HTTP/1.1 200"):
                        return None
                    return secured.getpeercert()["serialNumber"]
        except OSError:
            return None

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics") as answer:
            return int(re.search(rf"^signalbox_gateway_{name} (\d+)$", answer.read().decode(), re.MULTILINE)[1])


class Acme(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.port = signalbox.free_port()

    def test_a_certificate_is_ordered_proven_shown_and_kept(self):
        with Authority(self.folder, self.port) as authority:
            root = authority.given_root()
            with Gateway(self.folder, self.port, authority.directory) as gateway:
                shown = lambda: gateway.certificate(root)
                serial = signalbox.until("a certificate is shown", shown, gateway.process)
                self.assertEqual(gateway.metric("certificate_reloads_total"), 1)
                # Who only claims to be the authority learns nothing and is served nothing.
                self.assertIsNone(gateway.certificate(root, protocols=["acme-tls/1"]))
        # The authority is away, and the certificate is there from the last time.
        with Gateway(self.folder, self.port, authority.directory) as gateway:
            kept = signalbox.until("a certificate is shown", lambda: gateway.certificate(root), gateway.process)
            self.assertEqual(kept, serial)

    def test_a_gateway_whose_authority_is_away_says_so_and_asks_again(self):
        authority = Authority(self.folder, self.port)
        with Gateway(self.folder, self.port, authority.directory) as gateway:
            failed = lambda: gateway.metric("certificate_reload_failures_total") > 0
            signalbox.until("it has failed", failed, gateway.process)
            with authority:
                root = authority.given_root()
                signalbox.until("a certificate is shown", lambda: gateway.certificate(root), gateway.process)


if __name__ == "__main__":
    unittest.main()
