"""A stand-in for the hub that takes data sets, whoever has the token: its files, commit by commit."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from servers import SilentHandler, web_server

TOKEN = "hf_thisIsNoRealToken"


@dataclass
class DataHub:
    """The files of the data sets, by their names, and which of them are private."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    commits: int = 0


@contextmanager
def data_hub() -> Iterator[DataHub]:
    """The hub, while the block lasts."""
    hub = DataHub()

    class Handler(SilentHandler):
        def do_GET(self) -> None:
            name, is_listed, _ = self.path.removeprefix("/api/datasets/").partition("/tree/")
            if not is_listed:
                self._answer({"error": "no such data set"}, HTTPStatus.NOT_FOUND)
                return
            found = hub.files.get(name, {})
            listed = [
                {"type": "file", "path": path, "size": len(content), "oid": "b" * 40}
                for path, content in found.items()
            ]
            self._answer(listed)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer({"error": "who are you?"}, HTTPStatus.UNAUTHORIZED)
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.files.setdefault(name, {})
                hub.private.setdefault(name, asked.get("visibility", "private") == "private")
                self._answer({"url": f"{hub.url}/datasets/{name}"})
            elif self.path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                modes = [{"path": each["path"], "uploadMode": "regular"} for each in asked]
                self._answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
            else:
                self._commit(body)

        def _commit(self, body: bytes) -> None:
            name = self.path.removeprefix("/api/datasets/").split("/commit/")[0]
            for line in body.splitlines():
                change = json.loads(line)
                path = change["value"].get("path")
                if change["key"] == "file":
                    hub.files[name][path] = base64.b64decode(change["value"]["content"])
                elif change["key"] == "deletedFile":
                    del hub.files[name][path]
            hub.commits += 1
            url = f"{hub.url}/datasets/{name}/commit/{hub.commits:040x}"
            self._answer({"commitUrl": url, "commitOid": f"{hub.commits:040x}"})

        def _answer(self, said: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with web_server(Path.cwd(), Handler) as url:
        hub.url = url
        yield hub
