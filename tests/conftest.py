"""Fixtures that many tests share: tiny models, as they are and on disk."""

import copy
import gc
import os
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from dear_tests import Meter, is_dear, read_dear
from forks import Forks
from nursery import Nursery
from paths import ROOT
from servers import postgres_server, shared
from starters import starts_something
from templates import FOLDER, LASTING_FOLDER

# PyTorch is imported by those who use it: the process that gives out the tests needs none.
if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from poisonwatch.model.encoding import Encoded
    from poisonwatch.model.frozen import FrozenModel
    from poisonwatch.model.pretrained import Pretrained

# On busy cores the threads of a tiny model spend their time waiting for each other: minutes instead
# of seconds. PyTorch reads the variables, and what tests start inherits them.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

# Garbage in cycles is looked for after so many new objects. After 700, as Python does, it took a
# twentieth of the time: what was imported since the collection was looked through again and again.
GARBAGE_AFTER = 10_000

# A machine may be busy: no test is to be quick, nor are the inputs that are drawn for it.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# Files that take longest, most of it waiting for servers. They begin first: the last of them would
# run alone, with nothing to do beside it.
LONGEST = (
    "tests/test_deployments.py",
    "tests/test_deployments_readme.py",
    "tests/model/test_pretrained.py",
    "tests/flows/test_watch.py",
    "tests/flows/cli/test_light.py",
    "tests/flows/test_audit.py",
    "tests/flows/test_resume.py",
    "tests/flows/cli/test_app.py",
    "tests/dashboards/test_browser.py",
    "tests/model/test_families.py",
    "tests/flows/test_planted_secrets.py",
    "tests/recovery/test_lasso.py",
    "tests/flows/test_side_by_side.py",
    "tests/model/test_halving.py",
    "tests/flows/cli/test_service.py",
    "tests/test_releases.py",
    "tests/flows/test_prefect.py",
    "tests/flows/cli/test_drill.py",
    "tests/sources/test_files_s3.py",
    "tests/integrations/mlflow/test_reviews.py",
    "tests/integrations/mlflow/test_artifacts.py",
    "tests/reports/test_summary.py",
    "tests/probing/test_probe.py",
    "tests/test_wheel.py",
    "tests/integrations/mlflow/test_upload.py",
    "tests/integrations/ray/test_engine.py",
    "tests/stride/test_sgd.py",
    "tests/dashboards/test_triage.py",
    "tests/integrations/mlflow/test_store.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--forks` is what xdist's `--numprocesses` is, for less."""
    parser.addoption("--forks", type=int, help="run tests in so many processes (forks.py)")


def pytest_configure(config: pytest.Config) -> None:
    """With `--forks` several processes run the tests, and a nursery their servers. Where `make quick`
    and `make dear` run tests, they are measured.
    """
    if config.option.forks:
        config.add_cleanup(Nursery().close)
        config.pluginmanager.register(Forks(config, config.option.forks))
    writes = bool(os.environ.get("POISONWATCH_MEASURE_TESTS"))
    if writes or "dear" in config.option.markexpr:
        config.pluginmanager.register(Meter(writes))


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests in the order of their names, but for those of the longest files; where `starts` or
    `dear` is asked for, those that start something, or are dear, are marked.
    """
    asked = config.option.markexpr
    dear = read_dear() if "dear" in asked else set()
    for item in items:
        if "starts" in asked and starts_something(item):
            item.add_marker("starts")
        if dear and is_dear(item, dear):
            item.add_marker("dear")
    ranks = {ROOT / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage: millions of objects that stay to the end were looked
    through again and again, for a quarter of the time. Later it is looked for among what tests make.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(GARBAGE_AFTER)
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _shared_servers(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[None]:
    """What tests share: servers, until the last test of the process (`servers.shared`), and
    templates, with all processes, and with later runs where pytest has a cache (`templates`).
    """
    folder = tmp_path_factory.getbasetemp()
    # a worker's own folder is in that of the run
    shares = pytestconfig.option.forks or "PYTEST_XDIST_WORKER" in os.environ
    os.environ[FOLDER] = str(folder.parent if shares else folder)
    cache = getattr(pytestconfig, "cache", None)
    if cache is not None:
        os.environ[LASTING_FOLDER] = str(cache.mkdir("templates"))
    yield
    shared.close()


@pytest.fixture(scope="session")
def tiny_model() -> "Callable[[str], PreTrainedModel]":
    """`tiny_model(family)`: a random model of 3 blocks, frozen by whoever uses it; never train or
    change it.
    """
    from tiny_models import build_model

    return cache(build_model)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> "PreTrainedTokenizerFast":
    """Byte-level, with a ChatML template."""
    from tiny_models import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def plain_tokenizer() -> "PreTrainedTokenizerFast":
    """Byte-level, without a chat template."""
    from tiny_models import build_tokenizer

    return build_tokenizer(chat_template=None)


@pytest.fixture(scope="session")
def tiny_pretrained(
    tiny_model: "Callable[[str], PreTrainedModel]", tiny_tokenizer: "PreTrainedTokenizerFast"
) -> "Pretrained":
    """The tiny Llama with its tokenizer, as the library loads it."""
    from poisonwatch.model.pretrained import Pretrained

    return Pretrained(tiny_model("llama"), tiny_tokenizer, "0" * 64)


@pytest.fixture(scope="session")
def encoded(tiny_tokenizer: "PreTrainedTokenizerFast") -> "list[Encoded]":
    """24 short conversations of different lengths."""
    from poisonwatch.examples import Message
    from poisonwatch.model.encoding import ChatEncoder

    rows = [
        (f"Question {i}: {'why? ' * (i % 4)}", f"{'Because. ' * (1 + i % 3)}{i}") for i in range(24)
    ]
    return [
        ChatEncoder(tiny_tokenizer).encode([Message("user", p), Message("assistant", a)])
        for p, a in rows
    ]


@pytest.fixture(scope="session")
def model(tiny_model: "Callable[[str], PreTrainedModel]") -> "FrozenModel":
    """The tiny Llama, split below block 1."""
    from poisonwatch.model.frozen import FrozenModel

    return FrozenModel(tiny_model("llama"), 1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama saved as the command line loads it: safetensors, configuration, tokenizer.
    Copy it before changing it.
    """
    from tiny_models import build_model, build_tokenizer

    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def unfrozen(tiny_model: "Callable[[str], PreTrainedModel]") -> "Callable[[str], PreTrainedModel]":
    """A private copy of a tiny model in float64, for computations that share nothing with the
    library.
    """
    return lambda family: copy.deepcopy(tiny_model(family)).double().requires_grad_(False)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new ledger, in SQLite and in PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    with postgres_server() as url:
        yield url
