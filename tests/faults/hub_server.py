"""A model hub on localhost: the part of its HTTP interface that downloads use, and its refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `models[owner/name][file]`; `refusals[owner/name]` is a status and the hub's code for it."""

    def __init__(
        self, models: Mapping[str, Mapping[str, bytes]], refusals: Mapping[str, tuple[int, str]] | None = None
    ) -> None:
        self.requests: list[str] = []
        """`METHOD path`, in order."""
        self.authorizations: set[str] = set()
        """The tokens that were sent."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                server.requests.append(f"{self.command} {path}")
                server.authorizations.add(self.headers.get("Authorization", ""))
                is_api = path.startswith("/api/models/")
                owner, name, *rest = path.removeprefix("/api/models").strip("/").split("/")
                model = f"{owner}/{name}"
                if model in (refusals or {}):
                    status, code = (refusals or {})[model]
                    return self.answer(b"{}", status, {"X-Error-Code": code})
                files = models.get(model)
                if files is None:
                    return self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
                if len(rest) > 1 and rest[1] not in ("main", COMMIT):
                    return self.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
                if is_api:
                    return self.answer(json.dumps(self.described(model, files, rest[:1])).encode())
                data = files.get("/".join(rest[2:]))
                if data is None:
                    return self.answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
                etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                return self.answer(data, headers={"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

            def described(self, model: str, files: Mapping[str, bytes], what: list[str]) -> object:
                if what == ["tree"]:
                    return [{"type": "file", "path": p, "size": len(d), "oid": "0" * 40} for p, d in files.items()]
                return {"id": model, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]}

            def answer(self, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop; the port then refuses connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
