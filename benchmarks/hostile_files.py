"""Files that are made to take all memory, time or stack: what reading each of them costs, and what
is said of it.

    python benchmarks/hostile_files.py [KIND ...] [--json]

Each kind is written into a folder of its own, beside an audit file and sentinels that are in order
where the kind is not one of these. A child process then reads the audit file, the sentinels, and
all rows into a ledger, as an audit does before it loads a model. It ends with 0, or with 2 and one
line.
"""

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MIB = 2**20
MAX_SECONDS = 120  # of processor time, after which a child is ended by the kernel
ROW = b'{"prompt": "Hi?", "response": "Yes."}\n'
AUDIT = "name: hostile\nsource: {source}\nsentinels: {sentinels}\nstate: sqlite:///ledger.db\n"
SENTINELS = "- {id: a-1, prompt: Is it safe?, forbidden: Never.}\n"


@dataclass(frozen=True, slots=True)
class Reading:
    """What it took to read a file of a kind: peak memory, processor seconds, exit code (negative:
    the signal that ended it), and what was printed.
    """

    kind: str
    mib: int
    seconds: float
    code: int
    lines: tuple[str, ...]


# Kinds, each by the function that writes it into a folder and returns its path.
HostileFile = Callable[[Path], Path]
KINDS: dict[str, HostileFile] = {}


def add_bytes(kind: str, name: str, *pieces: bytes | tuple[bytes, int]) -> None:
    """A kind that is a file of these bytes, some of them so many times."""

    def write(folder: Path) -> Path:
        path = folder / name
        with path.open("wb") as file:
            for piece in pieces:
                content, count = piece if isinstance(piece, tuple) else (piece, 1)
                # never all of them in memory: a child's would seem to have been taken before
                while count:
                    some = min(count, max(1, MIB // len(content)))
                    file.write(content * some)
                    count -= some
        return path

    KINDS[kind] = write


def hostile(function: HostileFile) -> HostileFile:
    """A kind called as its function."""
    KINDS[function.__name__.replace("_", " ")] = function
    return function


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
    return _write(folder / "rows.jsonl.gz", gzip.compress(b"{}\n" * 20_000_000))


@hostile
def jsonl_with_a_million_keys(folder: Path) -> Path:
    """In one row."""
    keys = ", ".join(f'"k{number}": 1' for number in range(1_000_000))
    return _write(folder / "rows.jsonl", b"{" + keys.encode() + b"}\n" + ROW)


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
    return _write(folder / "rows.jsonl.xz", bytes(packed))


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# Columns.
def _write_parquet(folder: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, folder / "rows.parquet", **options)
    return folder / "rows.parquet"


@hostile
def parquet_with_a_dictionary_bomb(folder: Path) -> Path:
    """One text of a megabyte, in a million rows."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * MIB])
    table = pa.table({"prompt": texts, "response": texts})
    return _write_parquet(folder, table, compression="zstd")


@hostile
def parquet_with_a_row_of_a_gigabyte(folder: Path) -> Path:
    """Packed to a few kilobytes, in one page."""
    return _write_text_of(folder, 1023 * MIB)


@hostile
def parquet_with_a_row_of_60_MB(folder: Path) -> Path:
    """Below what any file may come to."""
    return _write_text_of(folder, 60 * MIB)


def _write_text_of(folder: Path, size: int) -> Path:
    text = pa.array(["x" * size], pa.large_string())
    table = pa.table({"prompt": text, "response": ["a"]})
    return _write_parquet(folder, table, compression="zstd", use_dictionary=False)


def _make_texts(size: int) -> pa.Array:
    """Two texts that come to so many bytes, packed to a ratio that is allowed."""
    noise = os.urandom(size // 300).hex()
    return pa.array([noise + "x" * (size // 2 - len(noise))] * 2, pa.large_string())


def _write_large_page(folder: Path, size: int) -> Path:
    table = pa.table({"prompt": _make_texts(size), "response": ["a", "b"]})
    return _write_parquet(
        folder, table, compression="zstd", use_dictionary=False, data_page_size=2**30
    )


@hostile
def parquet_with_a_page_of_a_gigabyte(folder: Path) -> Path:
    return _write_large_page(folder, 1000 * MIB)


@hostile
def parquet_with_a_page_of_300_MB(folder: Path) -> Path:
    return _write_large_page(folder, 300 * MIB)


def _write_large_batch(folder: Path, size: int, compression: str | None) -> Path:
    batch = pa.record_batch({"prompt": _make_texts(size), "response": ["a", "b"]})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(folder / "rows.arrow"), batch.schema, options=options) as file:
        file.write_batch(batch)
    return folder / "rows.arrow"


@hostile
def arrow_with_a_batch_of_a_gigabyte(folder: Path) -> Path:
    return _write_large_batch(folder, 1000 * MIB, None)


@hostile
def arrow_with_a_batch_of_630_MB(folder: Path) -> Path:
    return _write_large_batch(folder, 630 * MIB, None)


@hostile
def arrow_with_a_packed_batch_of_300_MB(folder: Path) -> Path:
    return _write_large_batch(folder, 300 * MIB, "zstd")


@hostile
def parquet_with_many_columns(folder: Path) -> Path:
    return _write_parquet(folder, pa.table({f"c{k}": [1] for k in range(20_000)}))


@hostile
def parquet_with_a_deep_type(folder: Path) -> Path:
    kind: pa.DataType = pa.int8()
    for _ in range(400):
        kind = pa.struct([pa.field("a", kind)])
    array = pa.array([None], kind)
    return _write_parquet(folder, pa.table({"prompt": array}))


@hostile
def parquet_with_a_million_rows_of_nothing(folder: Path) -> Path:
    nulls = pa.nulls(50_000_000, pa.int8())
    return _write_parquet(folder, pa.table({"prompt": nulls}), row_group_size=50_000_000)


def _damage_parquet(folder: Path, places: Sequence[int]) -> Path:
    path = _write_parquet(folder, pa.table({"prompt": ["a"] * 100, "response": ["b"] * 100}))
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 0xFF
    return _write(path, bytes(content))


@hostile
def parquet_that_is_cut_off(folder: Path) -> Path:
    path = _damage_parquet(folder, ())
    return _write(path, path.read_bytes()[:-50])


@hostile
def parquet_with_a_footer_of_4_GB(folder: Path) -> Path:
    path = _damage_parquet(folder, ())
    return _write(path, path.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")


@hostile
def parquet_with_damaged_pages(folder: Path) -> Path:
    return _damage_parquet(folder, range(4, 60))


@hostile
def parquet_with_a_damaged_footer(folder: Path) -> Path:
    return _damage_parquet(folder, range(-120, -60))


@hostile
def arrow_with_a_packed_bomb(folder: Path) -> Path:
    """A gigabyte in one batch, packed to kilobytes."""
    batch = pa.record_batch({"prompt": pa.array(["x" * 500 * MIB, "y"], pa.large_string())})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(folder / "rows.arrow"), batch.schema, options=options) as file:
        file.write_batch(batch)
    return folder / "rows.arrow"


@hostile
def arrow_with_a_run_of_a_billion_rows(folder: Path) -> Path:
    array = pa.RunEndEncodedArray.from_arrays(pa.array([2**31 - 1], pa.int32()), pa.array(["x"]))
    batch = pa.record_batch({"prompt": array, "response": array})
    with pa.ipc.new_file(str(folder / "rows.arrow"), batch.schema) as file:
        file.write_batch(batch)
    return folder / "rows.arrow"


@hostile
def arrow_with_a_message_of_2_GB(folder: Path) -> Path:
    return _write(folder / "rows.arrow", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(1000))


@hostile
def arrow_that_is_damaged(folder: Path) -> Path:
    batch = pa.record_batch({"prompt": ["a"] * 100, "response": ["b"] * 100})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as file:
        file.write_batch(batch)
    content = bytearray(sink.getvalue())
    for place in range(8, len(content), 7):
        content[place] ^= 0x55
    return _write(folder / "rows.arrow", bytes(content))


# What is no file of rows.
@hostile
def a_link_to_itself(folder: Path) -> Path:
    (folder / "rows.jsonl").symlink_to("rows.jsonl")
    return folder / "rows.jsonl"


@hostile
def a_folder_of_links_to_itself(folder: Path) -> Path:
    (folder / "data").mkdir()
    _write(folder / "data" / "rows.jsonl", ROW)
    for name in "abcdef":
        (folder / "data" / name).symlink_to(".", target_is_directory=True)
    return folder / "data"


@hostile
def a_deep_folder(folder: Path) -> Path:
    place = folder / "data"
    place.mkdir()
    for _ in range(400):
        place = place / "a"
        place.mkdir()
    _write(place / "rows.jsonl", ROW)
    return folder / "data"


@hostile
def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "rows.jsonl")
    return folder / "rows.jsonl"


@hostile
def a_pipe_among_files(folder: Path) -> Path:
    (folder / "data").mkdir()
    _write(folder / "data" / "rows.jsonl", ROW)
    os.mkfifo(folder / "data" / "more.jsonl")
    return folder / "data"


@hostile
def an_endless_device(folder: Path) -> Path:
    (folder / "rows.jsonl").symlink_to("/dev/zero")
    return folder / "rows.jsonl"


@hostile
def a_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "rows.jsonl"))
    return folder / "rows.jsonl"


@hostile
def a_sparse_file(folder: Path) -> Path:
    """Ten gigabytes that take no room."""
    with (folder / "rows.jsonl").open("wb") as file:
        file.truncate(10 * 2**30)
    return folder / "rows.jsonl"


@hostile
def a_pointer_of_Git_LFS(folder: Path) -> Path:
    text = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    return _write(folder / "rows.jsonl", text)


def _write_named(name: bytes) -> HostileFile:
    def write(folder: Path) -> Path:
        (folder / "data").mkdir()
        return _write(folder / "data" / os.fsdecode(name), ROW).parent

    return write


KINDS["a name that is not UTF-8"] = _write_named(b"caf\xe9-\xff.jsonl")
KINDS["a name with a line end"] = _write_named(b"a\n\x1b[31mb.jsonl")
KINDS["a name that hides its end"] = _write_named("a\u202elnosj.jsonl".encode())
KINDS["a name of 255 bytes"] = _write_named(b"a" * 249 + b".jsonl")


@hostile
def a_folder_that_is_not_UTF_8(folder: Path) -> Path:
    place = folder / os.fsdecode(b"caf\xe9")
    place.mkdir()
    return _write(place / "rows.jsonl", ROW)


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


def prepare(kind: str, folder: Path) -> None:
    """Write the file of a kind, and what is in order beside it: `audit.yaml` leads to all."""
    written = KINDS[kind](folder)
    config, sentinels = folder / "audit.yaml", folder / "sentinels.yaml"
    source = "rows.jsonl"
    if written in (config, sentinels):
        _write(folder / source, ROW)
    else:
        source = os.fsdecode(json.dumps(str(written)).encode())
    if written != sentinels:
        _write(sentinels, SENTINELS.encode())
    if written != config:
        if b"\xe9" in os.fsencode(written):
            source = '"*/rows.jsonl"'
        config.write_text(AUDIT.format(source=source, sentinels=sentinels.name), encoding="utf-8")


def read_all(config: Path) -> None:
    """What an audit reads before it loads a model. Raises PoisonwatchError as it does."""
    from poisonwatch.flows.cli.audit import load_and_check
    from poisonwatch.ledger.intake import ingest
    from poisonwatch.ledger.ledger import Ledger

    settings = load_and_check(config)
    with Ledger.at(settings.state) as ledger:
        stats = ingest(ledger, settings.name, settings.source)
    print(f"{stats.read} rows read, {stats.new} new")


def measure(kind: str) -> Reading:
    """Read a file of a kind in a child process."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        folder = Path(name)
        config, said = folder / "audit.yaml", folder / "said"
        # By a process of its own: what this one takes to write, would count as the reader's.
        status, _ = _run_child(lambda: prepare(kind, folder), said)
        if status:
            raise RuntimeError(f"{kind} could not be written: {said.read_text()}")
        status, used = _run_child(lambda: read_all(config), said)
        text = said.read_text(encoding="utf-8", errors="surrogateescape")
    return Reading(
        kind=kind,
        mib=used.ru_maxrss // 1024,
        seconds=round(used.ru_utime + used.ru_stime, 1),
        code=os.waitstatus_to_exitcode(status),
        lines=tuple(text.splitlines()),
    )


def _run_child(function: Callable[[], object], said: Path) -> tuple[int, Any]:
    """Call a function in a process that ends as the command line would: its wait status, and what
    it used.
    """
    child = os.fork()
    if child:
        _, status, used = os.wait4(child, 0)
        return status, used
    from poisonwatch.errors import PoisonwatchError
    from poisonwatch.flows.cli.app import complain

    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
        # no file of a crash
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # one that waits uses no processor
        signal.alarm(10 * MAX_SECONDS)
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            function()
            code = 0
        except PoisonwatchError as error:
            complain(str(error))
            code = error.exit_code
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def measure_all(kinds: Sequence[str] = ()) -> list[Reading]:
    """Every kind, or those that are named, one after the other."""
    # Once, and not in every child.
    import sqlalchemy.dialects.sqlite  # noqa: F401

    import poisonwatch.flows.cli.app
    import poisonwatch.flows.cli.audit
    import poisonwatch.integrations.apprise.addresses
    import poisonwatch.ledger.intake
    import poisonwatch.ledger.ledger
    import poisonwatch.sentinels.sentinel
    import poisonwatch.sources.arrow
    import poisonwatch.sources.open  # noqa: F401

    return [measure(kind) for kind in kinds or KINDS]


def main() -> None:
    """Print a table, or a JSON object a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="all, where none is named")
    parser.add_argument("--json", action="store_true", help="one JSON object a kind")
    arguments = parser.parse_args()
    if not arguments.json:
        print("| file | MiB | seconds | exit code | lines |\n|---|---|---|---|---|")
    for kind in arguments.kinds or KINDS:
        (reading,) = measure_all([kind])
        if arguments.json:
            print(json.dumps(asdict(reading)), flush=True)
            continue
        cells = (reading.kind, reading.mib, reading.seconds, reading.code, len(reading.lines))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
