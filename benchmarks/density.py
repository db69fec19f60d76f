"""How dense the code is to read, a line a folder; compare before and after a change of style.

    python benchmarks/density.py poisonwatch tasks flows dashboards

Migrations are left out, and so are folders that symlinks lead to. Shares and rates per 1,000 are of lines that are not blank.
A comprehension is nested where it holds another one, or two `for`s. A comment counts where it has a line to itself.
"""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

WIDE = 100  # columns
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Density:
    """The figures of one folder, named as they are printed."""

    files: int
    lines: int
    longest_file: int
    wide_percent: float
    comment_percent: float
    comprehensions: float
    nested: float
    conditional_expressions: float
    median_function: float


def list_files(folder: Path) -> Iterator[Path]:
    linked = {path for path in folder.iterdir() if path.is_symlink()}
    for path in sorted(folder.rglob("*.py")):
        if "migrations" not in path.parts and not linked.intersection(path.parents):
            yield path


def is_nested(node: ast.AST) -> bool:
    if len(getattr(node, "generators", ())) > 1:
        return True
    return any(isinstance(inner, COMPREHENSIONS) for inner in ast.walk(node) if inner is not node)


def measure(folder: Path) -> Density:
    sources = [path.read_text(encoding="utf-8") for path in list_files(folder)]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    lines = [line for source in sources for line in source.splitlines()]
    written = [line for line in lines if line.strip()]
    comprehensions = [node for node in nodes if isinstance(node, COMPREHENSIONS)]
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return Density(
        files=len(sources),
        lines=len(lines),
        longest_file=max(len(source.splitlines()) for source in sources),
        wide_percent=100 * sum(len(line) > WIDE for line in written) / len(written),
        comment_percent=100 * sum(line.lstrip().startswith("#") for line in written) / len(written),
        comprehensions=1000 * len(comprehensions) / len(written),
        nested=1000 * sum(map(is_nested, comprehensions)) / len(written),
        conditional_expressions=1000
        * sum(isinstance(node, ast.IfExp) for node in nodes)
        / len(written),
        median_function=median(lengths),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    names = [field.name.replace("_", " ") for field in fields(Density)]
    print("| folder | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for folder in options.folders:
        figures = [getattr(measure(folder), field.name) for field in fields(Density)]
        print(
            f"| {folder} | "
            + " | ".join(f"{figure:,.1f}".removesuffix(".0") for figure in figures)
            + " |"
        )


if __name__ == "__main__":
    main()
