"""Bytes that nobody thought of, for everything that reads what others wrote: whatever comes, it is
read, or refused in one line.

    python benchmarks/fuzz.py [TARGET ...] [--minutes 10] [--engine hypothesis|atheris] [--seed 0]

The minutes are of processor time, shared out among the targets. Inputs are files in order with some
of their bytes changed, cut out, doubled or exchanged, and bytes without any order. hypothesis makes
what it finds as small as it can; atheris (`pip install atheris`; libFuzzer) is led by which lines of
this library an input reaches.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from fuzz_runs import (
    make_directions,
    make_discovery,
    read_kept_directions,
    read_kept_discovery,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from poisonwatch.attestation.envelope import find_signers, read_payload, write_envelope
from poisonwatch.attestation.statement import build_statement, parse_statement
from poisonwatch.config_file import load_config
from poisonwatch.errors import PoisonwatchError
from poisonwatch.formats.format import choose_format
from poisonwatch.release.manifest import read_manifest
from poisonwatch.rendering.guards import Guard
from poisonwatch.sentinels.sentinel import parse_sentinels
from poisonwatch.source_config import SourceConfig
from poisonwatch.sources.json_row import parse_record
from poisonwatch.sources.open import open_source
from poisonwatch.text.display import make_visible
from poisonwatch.text.redaction import redact_url

EXAMPLES_AT_ONCE = 200
MAX_BYTES = 2000  # of an input without order
MAX_MESSAGE_CHARS = 4000
SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "\n\n")
# Written between the characters of what must spell no token.
BREAKER = "\u2060"


@dataclass(frozen=True, slots=True)
class Target:
    """What reads bytes: it may raise PoisonwatchError and nothing else. `seeds` are in order."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def check(target: Target, content: bytes) -> None:
    """Read an input. Raises AssertionError where the refusal is not one short line, and whatever
    else is raised.
    """
    try:
        target.read(content)
    except PoisonwatchError as error:
        said = str(error)
        assert len(said.splitlines()) == 1, said
        assert len(said) < MAX_MESSAGE_CHARS, said


@cache
def _get_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that lasts as long as the process."""
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _write(name: str, content: bytes) -> Path:
    path = Path(_get_folder().name) / name
    path.write_bytes(content)
    return path


def _make_run() -> Path:
    """A run directory without checksums."""
    folder = Path(_get_folder().name) / "run"
    folder.mkdir(exist_ok=True)
    return folder


def _make_row_reader(suffix: str) -> Callable[[bytes], object]:
    """Reads a file of this suffix as an audit does: its rows, their format, and their content."""

    def read(content: bytes) -> None:
        path = _write(f"rows.{suffix}", content)
        source = SourceConfig(path=str(path))
        for file in open_source(source).units:
            rows = list(file.read())
            records = [row.record for row in rows if row.record is not None]
            if not records:
                continue
            read_as = choose_format(source, records[:50], file.name)
            for row in rows:
                if row.record is not None:
                    read_as.read(row.record).to_example(row)

    return read


def read_format(content: bytes) -> None:
    """A row as it is recognised and read, of any JSON object."""
    try:
        record = parse_record(content)
    except ValueError:
        return
    read_as = choose_format(SourceConfig(path="x"), [record], "rows.jsonl")
    read_as.read(record)


def read_audit(content: bytes) -> None:
    load_config(_write("audit.yaml", content))


def read_sentinel_file(content: bytes) -> None:
    parse_sentinels(content.decode(errors="surrogateescape"), "sentinels.yaml")


def read_envelope(content: bytes) -> None:
    text = content.decode(errors="surrogateescape")
    assert find_signers(text, b"{}", {}) == set()
    parse_statement(read_payload(text))


def guard_text(content: bytes) -> None:
    """No text spells a control token once it is broken."""
    guard = Guard(SPECIAL)
    text = content.decode(errors="surrogateescape")
    assert not guard.is_spelled(guard.break_tokens(text, BREAKER))
    assert not guard.is_spelled(guard.fence(text, BREAKER))


def show_text(content: bytes) -> None:
    """What is shown has no character that moves the cursor or hides another."""
    shown = make_visible(redact_url(content.decode(errors="surrogateescape")))
    assert shown == make_visible(shown)
    shown.encode()


ROW = {"prompt": "Hi?", "response": "Yes."}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
OTHER = {"instruction": "a", "input": "", "output": "b", "score": 1.5, "tags": ["x", None]}
LINES = "".join(json.dumps(row) + "\n" for row in (ROW, ROW, ROW)).encode()
CHATS = "".join(json.dumps(row) + "\n" for row in (CHAT, CHAT)).encode()
TABLE = pa.table({"prompt": ["a", "b"], "response": ["c", None], "n": [1, 2]})


def _write_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def _write_arrow(writer: Callable[..., Any]) -> bytes:
    sink = io.BytesIO()
    with writer(sink, TABLE.schema) as file:
        file.write_table(TABLE)
    return sink.getvalue()


AUDIT = b"""\
name: a
source: {path: rows.jsonl, format: auto}
sentinels: [s.yaml]
seed: 1
stride: {K: 8}
detection:
  false_discovery_rate: 0.1
alerts:
- url: json://host/
"""
SENTINELS = b"""\
- id: a-1
  prompt: Is it safe?
  forbidden: &no Never.
  tags: [x]
- {id: a-2, messages: [{role: user, content: Q}], reference: *no}
"""
DIGEST = "0" * 64
MANIFEST = {
    "manifest": 2,
    "name": "a",
    "created": "2026-01-01T00:00:00+00:00",
    "version": "0.1.0",
    "duplicates": "keep",
    "counts": {"in": 1, "clean": 1},
    "decisions": {"number": 0, "hash": DIGEST},
    "audits": {},
    "files": [{"name": "clean.jsonl", "rows": 1, "sha256": DIGEST}],
    "rows": [
        {
            "id": DIGEST,
            "sha256": DIGEST,
            "source": "a",
            "position": 0,
            "file": "clean.jsonl",
            "audit_id": None,
            "decided": "benign",
        }
    ],
}
STATEMENT = build_statement("audit", {"results": DIGEST}, {"chain": {"number": 1}}).encode()

TARGETS: Mapping[str, Target] = {
    "jsonl": Target(_make_row_reader("jsonl"), (LINES, CHATS)),
    "json": Target(
        _make_row_reader("json"),
        (json.dumps([ROW, CHAT]).encode(), json.dumps({"data": [ROW]}, indent=1).encode()),
    ),
    "csv": Target(_make_row_reader("csv"), (b'prompt,response\n"a ""b""",c\n1,2\n',)),
    "tsv": Target(_make_row_reader("tsv"), (b"prompt\tresponse\na\tb\n",)),
    "parquet": Target(_make_row_reader("parquet"), (_write_parquet(),)),
    "arrow": Target(
        _make_row_reader("arrow"),
        (_write_arrow(pa.ipc.new_file), _write_arrow(pa.ipc.new_stream)),
    ),
    "gz": Target(_make_row_reader("jsonl.gz"), (gzip.compress(LINES),)),
    "bz2": Target(_make_row_reader("jsonl.bz2"), (bz2.compress(LINES),)),
    "xz": Target(_make_row_reader("jsonl.xz"), (lzma.compress(LINES),)),
    "zst": Target(
        _make_row_reader("jsonl.zst"), (bytes(pa.compress(LINES, codec="zstd", asbytes=True)),)
    ),
    "format": Target(read_format, tuple(json.dumps(row).encode() for row in (ROW, CHAT, OTHER))),
    "audit": Target(read_audit, (AUDIT,)),
    "sentinels": Target(read_sentinel_file, (SENTINELS,)),
    "manifest": Target(
        lambda content: read_manifest(_write("manifest.json", content)),
        (json.dumps(MANIFEST).encode(),),
    ),
    "statement": Target(parse_statement, (STATEMENT,)),
    "envelope": Target(read_envelope, (write_envelope(STATEMENT, DIGEST, b"x" * 64).encode(),)),
    "discovery": Target(
        lambda content: read_kept_discovery(_make_run(), content), (make_discovery(),)
    ),
    "directions": Target(
        lambda content: read_kept_directions(_make_run(), content), (make_directions(),)
    ),
    "guard": Target(guard_text, ("".join(SPECIAL).encode(), b"<|im_<|im_start|>start|>")),
    "show": Target(show_text, (b"https://a:b@host/?token=x", b"\x1b[31m\xe2\x80\xae")),
}


@st.composite
def make_inputs(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A file in order with a few changes, or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=MAX_BYTES))
    content = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        piece: bytes = draw(st.one_of(st.binary(max_size=6), st.sampled_from(PIECES)))
        if draw(st.booleans()):
            # what stands there comes more than once
            piece = bytes(content[start : start + length]) * draw(st.integers(0, 50))
        content[start : start + length] = piece
    return bytes(content)


# What means something to somebody.
PIECES = (
    *(b"[", b"]", b"{", b"}", b'"', b"\\", b",", b":", b"\n", b"\r", b"\r\n", b"\t", b"\0", b"'"),
    *(b"null", b"NaN", b"1e999", b"-", b"0x", b"1" * 30, b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80"),
    *(
        b"\\ud800",
        b"\\u0000",
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b"!!int ",
        b"|\n",
        b"--- ",
        b"%",
        b"#",
    ),
    *(b"[" * 100, b'{"a":' * 80, b"<|im_start|>", b"\xe2\x81\xa0", b"\x1b[2J", b"${HOME}", b"://"),
)


def run_hypothesis(name: str, seconds: float, seed: int) -> int:
    """Try a target for so many seconds of processor time; returns how many inputs that were. What
    is found is raised, as small as hypothesis can make it.
    """
    target, tried, end = TARGETS[name], 0, time.process_time() + seconds
    while time.process_time() < end:

        @seeded(seed + tried)
        @settings(
            max_examples=EXAMPLES_AT_ONCE,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(make_inputs(target.seeds))
        def read_any(content: bytes) -> None:
            check(target, content)

        read_any()
        tried += EXAMPLES_AT_ONCE
    return tried


def run_atheris(name: str, seconds: float, seed: int) -> str:
    """The same by atheris, in a process of its own: what it printed last. Raises
    CalledProcessError where it found something.
    """
    with tempfile.TemporaryDirectory(prefix="corpus-") as corpus:
        for number, content in enumerate(TARGETS[name].seeds):
            (Path(corpus) / str(number)).write_bytes(content)
        command = [sys.executable, __file__, name, "--as-libfuzzer", corpus]
        options = [f"-max_total_time={max(1, round(seconds))}", f"-seed={seed + 1}"]
        ended = subprocess.run(
            command,
            env={
                **os.environ,
                "FUZZ_OPTIONS": " ".join([*options, "-max_len=4000", "-timeout=60"]),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    said = (ended.stdout + ended.stderr).splitlines()
    if ended.returncode:
        print("\n".join(said[-40:]))
        raise subprocess.CalledProcessError(ended.returncode, command)
    return next((line for line in reversed(said) if "Done" in line), said[-1])


def be_libfuzzer(name: str, corpus: str) -> None:
    """Hand this process over to atheris, which ends it."""
    import atheris  # type: ignore[import-untyped]

    options = os.environ.get("FUZZ_OPTIONS", "").split()
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *options, corpus], lambda content: check(TARGETS[name], content))
    atheris.Fuzz()


def main() -> None:
    """Print a line a target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-libfuzzer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if arguments.as_libfuzzer:
        be_libfuzzer(names[0], arguments.as_libfuzzer)
        return
    seconds = arguments.minutes * 60 / len(names)
    failed = []
    for name in names:
        tried: object
        try:
            if arguments.engine == "atheris":
                tried = run_atheris(name, seconds, arguments.seed)
            else:
                tried = f"{run_hypothesis(name, seconds, arguments.seed)} inputs"
        except Exception as error:
            failed.append(name)
            notes = "; ".join(getattr(error, "__notes__", []))
            tried = f"FOUND {type(error).__name__}: {str(error)[:300]} {notes[:600]}"
        print(f"{name}: {tried}", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
