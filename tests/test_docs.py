"""What the README says is so."""

import re
import tomllib

import pytest
import yaml
from paths import ROOT

from poisonwatch.config_file import resolve_config
from poisonwatch.flows.cli.app import MODULES, read_commands
from poisonwatch.source_config import SourceConfig

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_readme_commands_exist() -> None:
    """Every `make X` in README and CONTRIBUTING is a target of the Makefile."""
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), target


def test_the_tour_names_places_that_exist() -> None:
    """Every path in README and CONTRIBUTING that looks like one of the checkout's is there."""
    named = set()
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        named |= set(
            re.findall(
                r"`((?:poisonwatch|tasks|flows|dashboards|tests|benchmarks|docs)/[\w./-]*)`", text
            )
        )
    assert len(named) >= 50
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_package_has_its_line_in_the_map() -> None:
    """A newcomer finds each package of the library in CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "poisonwatch").glob("*/__init__.py")}
    library = packages - {"tasks", "flows", "dashboards"}
    assert len(library) >= 16
    assert {name for name in library if f"`poisonwatch/{name}`" not in text} == set()


def test_readme_audit_file_is_valid() -> None:
    """The YAML shown is an audit file that loads."""
    for block in re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL):
        settings = yaml.safe_load(block)
        if isinstance(settings, dict) and "sentinels" in settings:
            assert resolve_config(settings, ROOT).source.path


def test_readme_sources_are_valid() -> None:
    """Every `source:` shown is one."""
    shown = re.findall(r"^source: .*$", README, flags=re.MULTILINE)
    assert len(shown) > 3
    for line in shown:
        source = yaml.safe_load(line)["source"]
        assert SourceConfig.model_validate(
            {"path": source} if isinstance(source, str) else source
        ).address


def test_readme_starts_with_the_two_commands() -> None:
    """One sentence, then make demo and make test, before anything else."""
    first = README.index("make demo"), README.index("make test")
    assert max(first) < 800


def test_every_dependency_is_pinned() -> None:
    """Each direct dependency, optional ones included, has its tested version in constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        item for extra in project["optional-dependencies"].values() for item in extra
    ]
    names = {
        re.split(r"[\[<>=!~ ]", requirement)[0].lower().replace("_", "-") for requirement in wanted
    }
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert names - pinned == {project["name"]}  # its own extras, in `dev`
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
    ],
)
def test_local_links_lead_somewhere(file: str) -> None:
    """Relative links name files of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / file).read_text(encoding="utf-8")):
        assert ((ROOT / file).parent / target).exists(), target


def test_readme_leads_to_every_page_of_the_docs() -> None:
    """By the docs' first page: one that nothing leads to is not read."""
    assert "(docs/index.md)" in README
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}
    assert len(pages) >= 20
    assert {page for page in pages if f"({page})" not in first} == set()


def test_the_changelog_tells_of_every_migration() -> None:
    """By its revision, alone or in a range: whoever upgrades looks for the ledger's own."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    told: set[str] = set()
    for first in re.findall(r"^\| (\d{4}[^|]*) \|", text, flags=re.MULTILINE):
        numbers = [int(number) for number in re.findall(r"\d{4}", first)]
        span = range(numbers[0], numbers[-1] + 1) if " to " in first else numbers
        told |= {f"{number:04}" for number in span}
    folder = ROOT / "poisonwatch" / "ledger" / "migrations" / "versions"
    assert told == {path.name[:4] for path in folder.glob("0*.py")}


def test_the_readme_installs_from_the_checkout() -> None:
    """Nothing tells a newcomer to install a stranger's package of our name; commands are on the
    path, and each of them exists.
    """
    first = README[: README.index("## Audit your own rows")]
    assert "pip install --constraint constraints.txt ." in first
    assert "is not ours" in first
    fences = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    blocks = "\n".join(block for language, block in fences if not language)
    assert "pip install poisonwatch" not in blocks
    assert "pip install 'poisonwatch" not in blocks
    commands = re.findall(r"^(\S*poisonwatch) (--\w+|[a-z-]+)", blocks, flags=re.MULTILINE)
    assert len(commands) >= 10
    assert {name for name, _ in commands} == {"poisonwatch"}
    known = {name for module in MODULES for name, _, _ in read_commands(module)}
    assert {word for _, word in commands} - {"--help"} <= known


def test_extras_that_the_readme_names_exist() -> None:
    """With the installation from the checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"'\.\[([\w,]+)\]'", README)
    assert named
    assert {extra for some in named for extra in some.split(",")} <= set(
        project["optional-dependencies"]
    )
