"""A W&B server of the tests' own on this machine, and others that go wrong in every way a server can.

It answers as much of the protocol as wandb-core speaks for a run with a table: GraphQL, the stream of a run's values,
uploads of files.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

KEY = "0123456789" * 4
"""What passes for a key."""


@dataclass
class SentRun:
    """What a server was told of one run."""

    project: str = ""
    entity: str = ""
    group: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    exit_code: int | None = None

    def points(self, axis: str) -> list[dict[str, Any]]:
        """The rows that have this axis, in order, without W&B's own keys."""
        rows = [{key: value for key, value in self.lines[n].items() if key[0] != "_"} for n in sorted(self.lines)]
        return [row for row in rows if axis in row]


@dataclass
class FakeWandb:
    """A running server.

    Attributes:
        url: what goes into WANDB_BASE_URL.
        requests: what was asked so far: names of GraphQL operations, or method and path.
        keys: the keys that were shown, as sent.
        runs: what it was told, by id.
    """

    url: str
    requests: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    runs: dict[str, SentRun] = field(default_factory=dict)


Answer = Callable[[FakeWandb, str, str, bytes], tuple[int, Any] | None]
"""Takes the server, method, path and body; returns status and document, or None to break the connection off."""


def answer_well(server: FakeWandb, method: str, path: str, body: bytes) -> tuple[int, Any]:
    """Do what a working server does."""
    if path == "/graphql":
        request = json.loads(body)
        return 200, {"data": _graphql(server, request["query"], request.get("variables") or {})}
    if found := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path):
        _stream(server.runs[found[3]], json.loads(body))
    return 200, {}


def answer_with(status: int) -> Answer:
    """Return a server's way to answer everything with the same status."""
    return lambda server, method, path, body: (status, {"errors": [{"message": f"status {status}"}]})


def fail_at(part: str, status: int) -> Answer:
    """Return the way of a server that works but for the requests in whose names `part` is."""
    fail = answer_with(status)
    return lambda server, *request: (fail if part in server.requests[-1] else answer_well)(server, *request)


def die_after(count: int) -> Answer:
    """Return the way of a server that works for some requests and then breaks every connection off."""
    return lambda server, *request: answer_well(server, *request) if len(server.requests) <= count else None


@contextlib.contextmanager
def serving(answer: Answer = answer_well) -> Iterator[FakeWandb]:
    """Run a server while the block runs."""
    with _Server(("127.0.0.1", 0), _Handler) as listening:
        server = FakeWandb(f"http://127.0.0.1:{listening.server_port}")
        listening.fake, listening.answer = server, answer  # type: ignore[attr-defined]
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            listening.shutdown()


@contextlib.contextmanager
def hanging() -> Iterator[FakeWandb]:
    """Run a server that accepts connections, which are its `requests`, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        server = FakeWandb(f"http://127.0.0.1:{listening.getsockname()[1]}")
        kept = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listening.accept()[0])
                    server.requests.append("connection")

        threading.Thread(target=accept, daemon=True).start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def absent() -> Iterator[FakeWandb]:
    """Name a place where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets it, and whoever connects is refused
        yield FakeWandb(f"http://127.0.0.1:{bound.getsockname()[1]}")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are killed while they talk."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self._body()
        server: FakeWandb = self.server.fake  # type: ignore[attr-defined]
        server.requests.append(_what(self.command, self.path, body))
        if shown := self.headers.get("Authorization"):
            server.keys.add(shown)
        answer = self.server.answer(server, self.command, self.path, body)  # type: ignore[attr-defined]
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, document = answer
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _handle  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, *_: object) -> None:
        pass


def _what(method: str, path: str, body: bytes) -> str:
    named = re.search(r"(?:query|mutation)\s+(\w+)", json.loads(body)["query"]) if path == "/graphql" else None
    return named[1] if named else f"{method} {path}"


def _graphql(server: FakeWandb, query: str, given: dict[str, Any]) -> dict[str, Any]:
    upload = {"uploadUrl": f"{server.url}/storage/file", "uploadHeaders": []}
    match _what("", "/graphql", json.dumps({"query": query}).encode()):
        case "Viewer":
            viewer = {"id": "1", "entity": "somebody", "username": "somebody", "email": "", "flags": "{}"}
            return {"viewer": {**viewer, "teams": {"edges": []}}}
        case "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        case "UpsertBucket":
            return {"upsertBucket": {"bucket": _upsert(server, given), "inserted": True}}
        case "CreateRunFiles":
            server.runs[given["run"]].files |= set(given["files"])
            files = [{"name": name, "uploadUrl": upload["uploadUrl"]} for name in given["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        case "CreateArtifact":
            return {"createArtifact": {"artifact": {"id": "1", "state": "PENDING", "artifactSequence": None}}}
        case "CreateArtifactManifest" | "UpdateArtifactManifest" as name:
            manifest = {"artifactManifest": {"id": "1", "file": {"id": "1", **upload}}}
            return {name[0].lower() + name[1:]: manifest}
        case "CreateArtifactFiles":
            nodes = [
                {**upload, "storagePath": "file", "uploadMultipartUrls": None, "artifact": {"id": "1"}}
                for _ in given["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        case "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "1", "digest": ""}}}
        case _:
            return {}


def _upsert(server: FakeWandb, given: dict[str, Any]) -> dict[str, Any]:
    run = server.runs.setdefault(given["name"], SentRun())
    run.project, run.entity = given.get("project") or run.project, given.get("entity") or run.entity or "somebody"
    run.group, run.name = given.get("groupName") or run.group, given.get("displayName") or run.name
    run.config |= {key: item["value"] for key, item in json.loads(given.get("config") or "{}").items()}
    entity = {"id": "1", "name": run.entity}
    project = {"id": "1", "name": run.project, "entity": entity}
    bucket = {"id": "1", "name": given["name"], "displayName": run.name, "description": None, "config": "{}"}
    return {**bucket, "sweepName": None, "project": project, "historyLineCount": len(run.lines)}


def _stream(run: SentRun, body: dict[str, Any]) -> None:
    for name, part in (body.get("files") or {}).items():
        if name == "wandb-history.jsonl":
            run.lines |= dict(enumerate(map(json.loads, part["content"]), start=part["offset"]))
    if body.get("complete"):
        run.exit_code = body["exitcode"]
