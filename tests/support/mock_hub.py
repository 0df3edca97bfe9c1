"""A Hugging Face hub on this machine: repositories with revisions, listings, files in ranges, and faults."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """Files by path, of each revision by name.

    Attributes:
        revisions: ``main`` and others.
        missing: paths that are listed and cannot be fetched.
        cut: paths whose next transfers break off in the middle, and how often.
    """

    revisions: dict[str, dict[str, bytes]]
    missing: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)

    def commit(self, revision: str) -> str:
        """The commit of a revision, by name or itself; empty where there is none."""
        for name, files in self.revisions.items():
            content = json.dumps(
                [name, {path: hashlib.sha1(data).hexdigest() for path, data in files.items()}]
            )
            commit = hashlib.sha1(content.encode()).hexdigest()
            if revision in (name, commit):
                return commit
        return ""

    def files(self, revision: str) -> Mapping[str, bytes] | None:
        """The files of a revision or commit."""
        wanted = self.commit(revision)
        return next((files for name, files in self.revisions.items() if self.commit(name) == wanted), None)


@dataclass
class MockHub:
    """A running hub.

    Attributes:
        repositories: by ``models/OWNER/NAME`` or ``datasets/OWNER/NAME``.
        requests: method, path and range of every request, in order.
    """

    repositories: dict[str, Repository]
    address: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def fetched(self) -> set[str]:
        """Paths of the files that were transferred."""
        return {path.partition("/resolve/")[2].partition("/")[2] for method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path}  # fmt: skip


@contextmanager
def running(repositories: dict[str, Repository]) -> Iterator[MockHub]:
    """Serve repositories on a free port of the loopback interface."""
    hub = MockHub(repositories)

    class Handler(_Handler):
        mock = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


_API = re.compile(
    r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
_FILE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")


class _Handler(BaseHTTPRequestHandler):
    mock: MockHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test reads :attr:`MockHub.requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.mock.requests.append((self.command, path, self.headers.get("Range", "")))
        if found := _API.fullmatch(path):
            kind, name, what, revision, below = found.groups()
            self._api(f"{kind}/{name}", what, revision or "main", below or "", body)
        elif found := _FILE.fullmatch(path):
            dataset, name, revision, file = found.groups()
            self._file(f"{'datasets' if dataset else 'models'}/{name}", revision, file)
        else:
            self._error(404, "EntryNotFound")

    def _api(self, key: str, what: str | None, revision: str, below: str, body: bytes) -> None:
        repository = self.mock.repositories.get(key)
        files = repository.files(revision) if repository else None
        if repository is None or files is None:
            self._error(404, "RevisionNotFound" if repository else "RepoNotFound")
        elif what in (None, "revision"):
            siblings = [{"rfilename": path} for path in sorted(files)]
            name = key.partition("/")[2]
            self._json({"id": name, "modelId": name, "sha": repository.commit(revision), "siblings": siblings,
                        "private": False, "gated": False, "disabled": False, "tags": []})  # fmt: skip
        elif what == "tree":
            lead = below + "/" if below else ""
            inside = {path: data for path, data in files.items() if path.startswith(lead)}
            if below and not inside:
                self._error(404, "EntryNotFound")
            else:
                self._json([*_folders(inside, lead), *(_listed(path, data) for path, data in inside.items())])
        else:
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            wanted = [path.strip("/") for path in ([wanted] if isinstance(wanted, str) else wanted)]
            folders = {entry["path"] for entry in _folders(files, "")}
            self._json([_listed(path, files[path]) if path in files else {"type": "directory", "path": path, "oid": "0"}
                        for path in wanted if path in files or path in folders])  # fmt: skip

    def _file(self, key: str, revision: str, path: str) -> None:
        repository = self.mock.repositories.get(key)
        files = repository.files(revision) if repository else None
        if repository is None or files is None or path not in files or path in repository.missing:
            self._error(404, "EntryNotFound" if files is not None else "RepoNotFound")
            return
        content, start, status = files[path], 0, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, status = int(asked[1]), 206
            stop = int(asked[2]) + 1 if asked[2] else len(content)
        else:
            stop = len(content)
        part = content[start:stop]
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", repository.commit(revision))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if repository.cut.get(path, 0) > 0:
            repository.cut[path] -= 1
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(part)

    def _json(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _listed(path: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def _folders(files: Mapping[str, bytes], lead: str) -> list[dict[str, object]]:
    parents = {
        "/".join(parts[:count])
        for path in files
        for parts in [path.split("/")]
        for count in range(1, len(parts))
    }
    return [
        {"type": "directory", "path": path, "oid": "0"} for path in sorted(parents) if path.startswith(lead)
    ]
