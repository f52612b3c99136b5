"""A server that speaks as much of the Hub's protocol as reading and writing a repository of a model needs, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving import serving


class HubServer(ThreadingHTTPServer):
    """repos: name -> commits, each a mapping of file to content; the last is the main branch."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.objects: dict[str, bytes] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """A new commit of a repository; returns its name."""
        commits = self.repos.setdefault(name, [])
        commits.append({**(commits[-1] if commits else {}), **files})
        return sha_of(name, len(commits) - 1)

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and files that a revision names."""
        for number, files in enumerate(self.repos[name]):
            if revision == sha_of(name, number) or (revision == "main" and number == len(self.repos[name]) - 1):
                return sha_of(name, number), files
        return None


def sha_of(name: str, number: int) -> str:
    return hashlib.sha1(f"{name}{number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/").split("/")
        self.server.asked.append(f"{self.command} {self.path}")
        if path[:2] == ["api", "models"]:
            name, revision = "/".join(path[2:4]), path[5] if len(path) > 5 else "main"
        else:
            name, revision = "/".join(path[:2]), path[3] if len(path) > 3 else ""
        if name not in self.server.repos:
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        found = self.server.files(name, revision)
        if found is None:
            return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        sha, files = found
        if path[4:5] == ["tree"]:
            return self.answer(200, [{"type": "file", "path": f, "size": len(c), "oid": sha} for f, c in files.items()])
        if path[0] == "api":
            siblings = [{"rfilename": file} for file in files]
            return self.answer(200, {"id": name, "sha": sha, "siblings": siblings, "private": False, "tags": []})
        file = "/".join(path[4:])
        if file not in files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        etag = hashlib.sha256(files[file]).hexdigest()
        return self.answer(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rsplit("/", 1)[1]] = self.body()
        self.answer(200, b"")

    def do_POST(self) -> None:
        body = self.body()
        self.server.asked.append(f"POST {self.path}")
        if self.headers.get("Authorization") != "Bearer secret":
            return self.answer(401, b"")
        path = self.path.split("?")[0].strip("/").split("/")
        if path == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repos.setdefault(name, [{}])
            return self.answer(200, {"url": f"{self.server.address}/{name}", "name": name, "id": name})
        if "preupload" in path:
            kinds = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return self.answer(200, {"files": kinds})
        if path[-1] == "batch":
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.address}/store/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if "commit" in path:
            name, files = "/".join(path[2:4]), {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
            sha = self.server.commit(name, files)
            url = f"{self.server.address}/{name}/commit/{sha}"
            return self.answer(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})
        return self.answer(200, {})  # validate-yaml and the like

    def body(self) -> bytes:
        """What came, whole or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running server."""
    with serving(HubServer()) as server:
        yield server
