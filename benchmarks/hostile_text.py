"""Hostile files of text: JSON, tables, what is packed, audit files and sentinels."""

import bz2
import gzip
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from hostile_kinds import KINDS, MIB, ROW, add_bytes, hostile, write_file

# JSON and JSON Lines.
for _suffix in ("json", "jsonl"):
    _name = f"rows.{_suffix}"
    add_bytes(f"{_suffix}: brackets", _name, (b"[", 30_000_000))
    add_bytes(f"{_suffix}: braces", _name, (b'{"a":', 5_000_000))
    add_bytes(
        f"{_suffix}: deep and closed", _name, (b"[", 2_000_000), (b"]", 2_000_000), b"\n", ROW
    )
    add_bytes(f"{_suffix}: one string", _name, b'{"prompt": "', (b"x", 300_000_000))
    add_bytes(f"{_suffix}: one number", _name, b'{"a": ', (b"1", 10_000_000), b"}\n", ROW)
    add_bytes(f"{_suffix}: an exponent", _name, b'{"a": 1e999999999, "b": -1e-999999999}\n', ROW)
    add_bytes(
        f"{_suffix}: a key twice", _name, b'{"prompt": "a", "prompt": "b", "response": "c"}\n'
    )
    add_bytes(f"{_suffix}: no numbers", _name, b'{"prompt": NaN, "response": Infinity}\n', ROW)
    add_bytes(f"{_suffix}: null bytes", _name, (b"\0", 50_000_000))
    add_bytes(f"{_suffix}: marks", _name, (b"\xef\xbb\xbf", 5_000_000), ROW)
    add_bytes(f"{_suffix}: carriage returns", _name, (ROW.replace(b"\n", b"\r"), 200_000))
    add_bytes(f"{_suffix}: no UTF-8", _name, b'{"prompt": "\xff\xfe", "response": "\xc0"}\n', ROW)
    add_bytes(
        f"{_suffix}: half characters", _name, b'{"prompt": "\\ud800", "response": "a"}\n', ROW
    )
    add_bytes(f"{_suffix}: UTF-16", _name, ROW.decode().encode("utf-16"))
    add_bytes(f"{_suffix}: UTF-32", _name, ROW.decode().encode("utf-32"))
    add_bytes(f"{_suffix}: blank lines", _name, (b"\n", 20_000_000))
    add_bytes(f"{_suffix}: backslashes", _name, b'{"prompt": "', (b"\\", 20_000_000), b"\n", ROW)
    add_bytes(f"{_suffix}: empty lists", _name, b"[", (b"[],", 200_000), b"[]]")
    add_bytes(
        f"{_suffix}: a conversation of a million turns",
        _name,
        b'{"messages": [',
        (b'{"role":"user","content":"a"},{"role":"assistant","content":"b"},', 220_000),
        b'{"role":"assistant","content":"b"}]}\n',
        ROW,
    )
add_bytes("jsonl: a long line among short ones", "rows.jsonl", ROW, (b"x", 300_000_000), b"\n", ROW)
add_bytes("jsonl: 100,000 rows of nothing", "rows.jsonl", (b"{}\n", 100_000))

# Tables of text.
add_bytes("csv: one field", "rows.csv", b"prompt,response\n", b'"', (b"x", 300_000_000))
add_bytes("csv: many columns", "rows.csv", (b"c,", 1_000_000), b"c\n", (b"1,", 1_000_000), b"1\n")
add_bytes("csv: quotes", "rows.csv", b"prompt,response\n", (b'"', 20_000_001), b"\na,b\n")
add_bytes("csv: null bytes", "rows.csv", b"prompt,response\na\0,b\n", (b"\0", 20_000_000))
add_bytes("csv: carriage returns", "rows.csv", b"prompt,response\r", (b"a,b\r", 100_000))
add_bytes("csv: no UTF-8", "rows.csv", b"prompt,response\n\xff,\xfe\n")
add_bytes("csv: a row of a million fields", "rows.csv", b"prompt,response\na,b", (b",c", 1_000_000))
add_bytes("tsv: blank lines", "rows.tsv", b"prompt\tresponse\n", (b"\n", 20_000_000))


# Packed.
def _pack(compress: Callable[[bytes], bytes], size: int) -> bytes:
    """So many bytes of nothing in members of 64 MiB each: what packs them holds one."""
    return compress(b"x" * 64 * MIB) * (size // (64 * MIB))


def add_packed(suffix: str, compress: Callable[[bytes], bytes]) -> None:
    """A bomb of 8 GB in each packing."""

    def write(folder: Path) -> Path:
        path = folder / f"rows.jsonl.{suffix}"
        path.write_bytes(_pack(compress, 8 * 2**30))
        return path

    KINDS[f"{suffix}: a bomb of 8 GB"] = write


def _compress_zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


add_packed("gz", lambda content: gzip.compress(content, 9))
add_packed("bz2", bz2.compress)
add_packed("xz", lzma.compress)
add_packed("zst", _compress_zstd)
add_bytes("gz: empty members", "rows.jsonl.gz", (gzip.compress(b""), 300_000))
add_bytes("gz: cut off", "rows.jsonl.gz", gzip.compress(ROW * 1000)[:-20])
add_bytes("gz: something else", "rows.jsonl.gz", os.urandom(1000))


@hostile
def gz_of_rows_of_nothing(folder: Path) -> Path:
    """Twenty million."""
    return write_file(folder / "rows.jsonl.gz", gzip.compress(b"{}\n" * 20_000_000))


@hostile
def jsonl_with_a_million_keys(folder: Path) -> Path:
    """In one row."""
    keys = ", ".join(f'"k{number}": 1' for number in range(1_000_000))
    return write_file(folder / "rows.jsonl", b"{" + keys.encode() + b"}\n" + ROW)


@hostile
def jsonl_with_other_keys_in_every_row(folder: Path) -> Path:
    """Three hundred thousand fields."""
    with (folder / "rows.jsonl").open("w") as file:
        for row in range(30_000):
            more = ", ".join(f'"k{row}-{number}": "x"' for number in range(10))
            file.write(f'{{"prompt": "a", "response": "b", {more}}}\n')
    return folder / "rows.jsonl"


@hostile
def xz_with_a_dictionary_of_4_GB(folder: Path) -> Path:
    """A header that asks for memory."""
    packed = bytearray(lzma.compress(ROW))
    # after the stream's header of 12 bytes: size, flags, filter, its properties, of which the one
    # is the dictionary's size
    size = (packed[12] + 1) * 4
    packed[16] = 40
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    return write_file(folder / "rows.jsonl.xz", bytes(packed))


# Audit files and sentinels: (audit.yaml or sentinels.yaml, bytes).
_LAUGHS = "- &a0 [ha, ha, ha]\n" + "".join(
    f"- &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10)
)
YAML = {
    "billion laughs": _LAUGHS.encode(),
    "brackets": b"[" * 1_000_000,
    "dashes": b"- " * 500_000,
    "a huge number": b"a: " + b"1" * 1_000_000,
    "a huge exponent": b"seed: 1e999999999\n",
    "an alias of itself": b"&a [*a]",
    "a key twice": b"name: a\nname: b\n",
    "null bytes": b"\0" * 1_000_000,
    "no UTF-8": b"name: \xff",
    "two megabytes": b"#" * 2_000_000,
    "many values": b"[" + b"1," * 500_000 + b"]",
    "code": b"!!python/object/apply:os.system ['touch ran']",
    "keys of every kind": b"{1: a, null: b, 2.5: c, true: d, 2024-01-01: e}",
    "many faults": b"- {id: 1, x: 2}\n" * 30_000,
}


def _add_yaml(kind: str, name: str, content: bytes) -> None:
    add_bytes(f"{name}: {kind}", name, content)


for _kind, _content in YAML.items():
    _add_yaml(_kind, "audit.yaml", _content)
    _add_yaml(_kind, "sentinels.yaml", _content)


@hostile
def an_audit_file_that_is_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "audit.yaml")
    return folder / "audit.yaml"


@hostile
def sentinels_that_are_a_device(folder: Path) -> Path:
    (folder / "sentinels.yaml").symlink_to("/dev/zero")
    return folder / "sentinels.yaml"
