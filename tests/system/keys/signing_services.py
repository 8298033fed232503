"""Small real HTTPS servers that sign, for the tests of the signers that call one. They can be told to misbehave."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ai_infra.trust.signers import LocalSigner


@dataclass
class SigningService:
    """One server. `failures`: statuses to answer first; `answers`: what to answer instead, by path."""

    keys: dict[str, LocalSigner]
    url: str = ""
    failures: list[int] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)
    stall: threading.Event | None = None
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, bytes]:
        self.seen.append((path, headers, body))
        if self.stall is not None:
            self.stall.wait(30)
        if self.failures:
            return self.failures.pop(0), b"{}"
        if path in self.answers:
            return 200, self.answers[path]
        reply = self._reply(path, body)
        return (200, json.dumps(reply).encode()) if reply is not None else (404, b"{}")

    def _reply(self, path: str, body: dict[str, Any]) -> dict[str, str] | None:
        if path.endswith("/sign"):
            key = next(iter(self.keys.values()))
            signature = key.sign(base64.b64decode(body["payload_b64"]))
            return {"signature_b64": base64.b64encode(signature).decode(), "signer_id": key.key_id}
        named = self.keys.get(str(body.get("signerId")))
        if named is None:
            return None
        if path.endswith("/publicKey"):
            return {"publicKey": base64.b64encode(named.public_key).decode()}
        if path.endswith("/signData"):
            signature = named.sign(base64.b64decode(body["data"]))
            return {"signature": base64.b64encode(signature).decode(), "signerId": named.key_id}
        return None


@contextmanager
def serve(service: SigningService, tls: ssl.SSLContext | None = None) -> Iterator[SigningService]:
    """Runs the service on a free port, with TLS where a context is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, data = service.answer(self.path, headers, body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            if status == 302:
                self.send_header("location", "/elsewhere/sign")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away, or is refused in the handshake, is what some tests want."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    service.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Certificates:
    """An authority, a server's and a client's certificate, and a client's from somebody else."""

    directory: Path

    @property
    def authority(self) -> Path:
        return self.directory / "ca.pem"

    def pair(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def server_context(self, *, ask_client: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair("server"))
        if ask_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


def make_certificates(directory: Path) -> Certificates:
    """Real certificates, made by openssl."""
    made = Certificates(directory)
    for authority in ("ca", "foreign"):
        subject = ("-subj", f"/CN={authority}", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE")
        _openssl(directory, "req", "-x509", *_new_key(authority), "-out", f"{authority}.pem", *subject)
    (directory / "san.cnf").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "foreign")):
        _openssl(directory, "req", *_new_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        by = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "san.cnf")
        _openssl(directory, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem", "-days", "2")
    return made


def _new_key(name: str) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
