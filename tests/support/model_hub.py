"""A stand-in for the hub that has one model, somebody/tiny: the files of a folder."""

import json
from http import HTTPStatus
from pathlib import Path

import pytest
from servers import SilentHandler

COMMIT = "c" * 40


def use_hub(patch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Have this process ask the hub at an address, and keep what it gets in a folder."""
    patch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


class ModelHub(SilentHandler):
    """Tells what there is at its commit, and hands it out."""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        folder = Path(self.directory)
        path = self.path.partition("?")[0]
        file = folder / path.rpartition(f"/somebody/tiny/resolve/{COMMIT}/")[2]
        files = sorted(folder.iterdir())
        if path.startswith("/api/models/somebody/tiny/revision/"):
            names = [{"rfilename": found.name} for found in files]
            body = json.dumps({"id": "somebody/tiny", "sha": COMMIT, "siblings": names}).encode()
        elif path.startswith("/api/models/somebody/tiny/tree/"):
            body = json.dumps([_describe(found) for found in files]).encode()
        elif file.is_file():
            body = file.read_bytes()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(body)}-{file.name}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _describe(file: Path) -> dict[str, object]:
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "b" * 40}
