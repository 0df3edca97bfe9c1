"""A hub on the loopback interface: the endpoints that a commit of small files uses, and what was committed."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What the hub was asked.

    Attributes:
        endpoint: its address, for ``HF_ENDPOINT``.
        created: requests to create a repository.
        files: committed files by repository and name.
        refuse: an HTTP status that every request is answered with; 0 for none.
    """

    endpoint: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refuse: int = 0

    def answer(self, path: str, body: bytes, token: str) -> tuple[int, dict[str, Any]]:
        self.tokens.add(token)
        if self.refuse:
            return self.refuse, {"error": "you may not"}
        if path == "/api/repos/create":
            request = json.loads(body)
            self.created.append(request)
            kind = request.get("type", "model")
            name = (
                f"{request['organization']}/{request['name']}"
                if request.get("organization")
                else request["name"]
            )
            lead = "" if kind == "model" else f"{kind}s/"
            return 200, {"url": f"{self.endpoint}/{lead}{name}", "name": name, "id": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        parts = path.split("/")  # /api/models/OWNER/NAME/preupload/main
        repository, action = f"{parts[2]}/{parts[3]}/{parts[4]}", parts[5]
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return 200, {"files": modes}
        assert action == "commit"
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.files.setdefault(repository, {})[entry["value"]["path"]] = content
        return 200, {
            "commitUrl": f"{self.endpoint}/{parts[3]}/{parts[4]}/commit/{'c' * 40}",
            "commitOid": "c" * 40,
        }


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, answer = hub.answer(self.path.split("?")[0], body, self.headers.get("authorization", ""))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
