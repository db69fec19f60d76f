"""A server of S3 on this machine, and a proxy before a server that takes no large bodies."""

import http.client
import http.server
import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import boto3
import requests
from moto.server import ThreadedMotoServer
from servers import SilentHandler

KEYS = {
    "AWS_ACCESS_KEY_ID": "root",
    "AWS_SECRET_ACCESS_KEY": "hunter2hunter2",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """A server that takes any key, with empty buckets: its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        for bucket in buckets:
            open_bucket(url).create_bucket(Bucket=bucket)
        yield url
    finally:
        # What it holds and asks is kept by the process, for the next server in it, too.
        check_keys(url, after="inf")
        requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()
        server.stop()


def check_keys(url: str, after: str = "0") -> None:
    """Have a server ask for keys and policies that it knows, after so many requests."""
    requests.post(f"{url}/moto-api/reset-auth", data=after, timeout=10).raise_for_status()


def open_bucket(url: str, service: str = "s3") -> "boto3.client":
    """A client that may do anything, until keys are checked."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=KEYS["AWS_DEFAULT_REGION"],
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )


class BodyLimit(http.server.ThreadingHTTPServer):
    """A proxy before the server `behind`, which takes bodies of at most `most` bytes."""

    def __init__(self, behind: str, most: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind, self.most = urlsplit(behind).netloc, most
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Passing(SilentHandler):
    """Hands requests on, and answers 413 to longer bodies, as nginx does."""

    server: BodyLimit

    def do_GET(self) -> None:
        body = self._read_body()
        if len(body) > self.server.most:
            self.send_error(413, "Request Entity Too Large")
            return
        headers = {**self.headers, "Host": self.server.behind, "Connection": "close"}
        headers.pop("Transfer-Encoding", None)
        headers["Content-Length"] = str(len(body))
        with closing(http.client.HTTPConnection(self.server.behind, timeout=60)) as connection:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET


@contextmanager
def body_limit(behind: str, most: int) -> Iterator[BodyLimit]:
    """A proxy before a server, whose limit may be raised."""
    with BodyLimit(behind, most) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
