"""Secrets planted in every setting that may hold one, and looked for in whatever was left.

`benchmarks/attack.py` counts with these, too.
"""

import base64
import html
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

# Letters, digits, and what ends a host, a query or a text, is quoted, or nobody expects.
CHARACTERS = "abcXYZ0123456789/:@#?%&=+ '\"\\;,.-_~$!*()[]|<>^`äß漢🙂"


def plant_in_settings(secret: str) -> dict[str, Any]:
    """An audit's settings with a secret wherever one may stand; nothing in them answers."""
    text = secret.replace("'", "''")
    return {
        "name": "planted",
        "source": {
            "sql": f"postgresql://ann:{secret}@127.0.0.1:9/rows?sslpassword={secret}",
            "query": f"SELECT * FROM unlock('{text}') -- {secret}",
        },
        "reference": f"https://ann:{secret}@127.0.0.1:9/t.jsonl?X-Amz-Signature={secret}#{secret}",
        "sentinels": [f"https://ann:{secret}@127.0.0.1:9/s.yaml?sig={secret}"],
        "state": f"postgresql://ann:{secret}@127.0.0.1:9/ledger?password={secret}",
        "tracking": f"http://ann:{secret}@127.0.0.1:9/?token={secret}",
        "mlflow_ui": f"http://ann:{secret}@127.0.0.1:9/?token={secret}#{secret}",
        "openlineage": f"http://ann:{secret}@127.0.0.1:9/?token={secret}",
        "dashboard": f"http://{secret}@127.0.0.1:9/#{secret}",
        "alerts": plant_in_alerts(secret),
        "schedule": {"every": "1h", "ping": f"http://127.0.0.1:9/{secret}?token={secret}"},
    }


def plant_in_alerts(secret: str) -> list[str]:
    """Addresses of messages with a secret in each of the places that Apprise takes one in."""
    return [
        f"json://ann:{secret}@127.0.0.1:9/path",
        f"json://127.0.0.1:9/{secret}",
        f"slack://{secret}/B1234567/abcdefgh",
        f"tgram://123456789:{secret}/456",
        f"discord://1234567890/{secret}",
        f"mailto://ann:{secret}@127.0.0.1:9",
        f"https://hooks.slack.com/services/T1/B2/{secret}",
        secret,
    ]


def find_forms(secret: str) -> set[str]:
    """A secret as it is, and as others write it."""
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    forms |= {form.replace("%2F", "%2f") for form in forms}
    forms |= {repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret)}
    forms.add(base64.b64encode(f"ann:{secret}".encode()).decode())
    return forms


def count_in_files(folder: Path, secret: str, besides: Iterable[str] = ()) -> dict[str, int]:
    """How often a secret, in any of its forms, stands in the files below a folder, by their names;
    those `besides` are not looked at. SQLite's are read as they would be dumped, too.
    """
    counts = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in set(besides):
            continue
        content = path.read_bytes()
        if content.startswith(b"SQLite format 3\0"):
            content += "\n".join(_dump(path)).encode(errors="surrogateescape")
        found = sum(content.count(form.encode()) for form in find_forms(secret))
        if found:
            counts[str(path.relative_to(folder))] = found
    return counts


def count_in_text(text: str, secret: str) -> int:
    """How often a secret, in any of its forms, stands in a text."""
    return sum(text.count(form) for form in find_forms(secret))


def _dump(path: Path) -> Iterator[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        yield from connection.iterdump()
