"""A small real schema registry: the part of Confluent's HTTP API that producers and consumers use, over sockets."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class Registry:
    """What it has, who may ask, and what it is to do wrong. `failures`: statuses to answer first."""

    url: str = ""
    schemas: dict[int, str] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    password: str | None = None
    frozen: bool = False
    reword: bool = False

    def add(self, text: str, schema_id: int | None = None) -> int:
        """Gives a schema an id without a subject, as another writer's registration would look to a reader."""
        schema_id = schema_id or next((i for i, known in self.schemas.items() if known == text), len(self.schemas) + 1)
        self.schemas[schema_id] = text
        return schema_id

    def answer(self, method: str, path: str, authorization: str | None, body: Any) -> tuple[int, Any]:
        self.seen.append((method, path))
        if self.failures:
            return self.failures.pop(0), {"error_code": 50001, "message": "Error in the backend"}
        if self.password is not None and authorization != basic("writer", self.password):
            return 401, {"error_code": 401, "message": "Unauthorized"}
        match [method, *[unquote(part) for part in path.strip("/").split("/")]]:
            case ["GET", "schemas", "ids", number]:
                text = self.schemas.get(int(number))
                return (200, {"schema": text}) if text else (404, {"error_code": 40403, "message": "Schema not found"})
            case ["POST", "subjects", subject]:
                found = [i for i in self.subjects.get(subject, []) if self.schemas[i] == body["schema"]]
                if not found:
                    return 404, {"error_code": 40403, "message": "Schema not found"}
                return 200, {"subject": subject, "id": found[0], "version": 1, "schema": body["schema"]}
            case ["POST", "subjects", subject, "versions"]:
                if self.frozen:
                    return 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
                text = body["schema"].replace('"doc"', '"was"') if self.reword else body["schema"]
                schema_id = self.add(text)
                self.subjects.setdefault(subject, []).append(schema_id)
                return 200, {"id": schema_id}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def serve(registry: Registry) -> Iterator[Registry]:
    """Runs it on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            status, answer = registry.answer(self.command, self.path, self.headers.get("authorization"), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/vnd.schemaregistry.v1+json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
