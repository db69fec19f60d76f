"""Identity providers that speak OpenID Connect: a well-behaved one, and one that lies.

The first is the package oidc-provider-mock in a process of its own, which asks clients for their
secret, and for PKCE on top of that. The second answers whatever a test tells it to.

    python tests/support/identity_provider.py PORT
"""

import base64
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from servers import free_port

CLIENT = "poisonwatch"


@dataclass(frozen=True)
class Provider:
    """A running provider, and the client that it knows."""

    issuer: str
    client_id: str
    client_secret: str

    def set_claims(self, subject: str, **claims: Any) -> None:
        """What the provider says of somebody."""
        place = f"{self.issuer}/users/{urllib.parse.quote(subject)}"
        httpx.put(place, json=claims).raise_for_status()

    def log_in(self, asked: str, subject: str) -> str:
        """Log in as somebody at the address that a browser was sent to: where it is sent then."""
        answer = httpx.post(asked, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]


@contextmanager
def identity_provider(back: str) -> Iterator[Provider]:
    """A provider with one client, whose browsers come back to `back`."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), str(port)]
    issuer = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    httpx.get(issuer)
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    time.sleep(0.05)
            client = httpx.post(f"{issuer}/oauth2/clients", json={"redirect_uris": [back]}).json()
            yield Provider(issuer, client["client_id"], client["client_secret"])
        finally:
            process.terminate()


def _serve(port: int) -> None:
    """Serve until terminated."""
    import flask
    import oidc_provider_mock
    from werkzeug.serving import make_server

    app = oidc_provider_mock.app(require_client_registration=True, require_nonce=True)
    challenges: dict[str, str] = {}

    @app.before_request
    def check_pkce() -> Any:
        if flask.request.path == "/oauth2/authorize":
            if flask.request.args.get("code_challenge_method") != "S256":
                return "PKCE by S256 is asked for", 400
            challenges[flask.request.args["nonce"]] = flask.request.args["code_challenge"]
        if flask.request.path == "/oauth2/token":
            verifier = flask.request.form["code_verifier"].encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest())
            if digest.rstrip(b"=").decode() not in challenges.values():
                return "the verifier belongs to no challenge", 400
        return None

    @app.after_request
    def drop_stylesheet(answer: Any) -> Any:
        # of another host: nothing here looks outside
        if answer.mimetype == "text/html":
            answer.set_data(re.sub(rb"<link[^>]*>", b"", answer.get_data()))
        return answer

    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


@dataclass
class Lies:
    """What a provider says, beside or in place of the truth."""

    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    # how ID tokens are signed; the key set holds another key where it is not the provider's
    key: Any = None
    algorithm: str = "RS256"
    body: bytes | None = None
    nonce: str = ""


@contextmanager
def lying_provider(lies: Lies) -> Iterator[str]:
    """A provider that sends everybody back at once, as "ann@example.org": its issuer."""
    own_key = RSAKey.generate_key(2048, {"kid": "1"})

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            issuer = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
            path, _, _ = self.path.partition("?")
            if path == "/.well-known/openid-configuration":
                endpoints = {
                    "issuer": issuer,
                    "authorization_endpoint": f"{issuer}/authorize",
                    "token_endpoint": f"{issuer}/token",
                    "userinfo_endpoint": f"{issuer}/userinfo",
                    "jwks_uri": f"{issuer}/keys",
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
                self.answer(endpoints | lies.metadata)
            elif path == "/keys":
                public = own_key.as_dict(private=False)
                secret = OctKey.import_key("a secret that everybody knows....", {"kid": "2"})
                self.answer({"keys": [public, secret.as_dict()]})
            elif path == "/userinfo":
                self.answer({"sub": "1", **lies.userinfo})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if lies.body is not None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(lies.body)
                return
            now = int(time.time())
            claims = {
                "iss": f"http://127.0.0.1:{self.server.server_port}",  # type: ignore[attr-defined]
                "sub": "1",
                "aud": CLIENT,
                "iat": now,
                "exp": now + 600,
                "nonce": lies.nonce,
                "email": "ann@example.org",
                "email_verified": True,
                "groups": ["poisonwatch-admin"],
            }
            claims = {key: value for key, value in (claims | lies.claims).items() if value != ""}
            header = {"alg": lies.algorithm, "kid": "1", **lies.header}
            signed = jwt.encode(header, claims, lies.key or own_key, algorithms=[lies.algorithm])
            self.answer({"access_token": "x", "token_type": "Bearer", "id_token": signed})

        def answer(self, value: Any) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
