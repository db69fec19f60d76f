"""What an audit would take is told from sizes, without loading a model."""

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from poisonwatch.config import DEFAULT_MODEL
from poisonwatch.model.effort import (
    DEFAULT_PARAMETERS,
    DEMO_GFLOPS,
    DEMO_S,
    DEMO_TOKENS,
    START_UP_S,
    count_parameters,
    estimate_seconds,
    measure_gflops,
)


def test_the_headers_of_a_models_files_tell_its_size(tiny_folder: Path) -> None:
    """As many as its tensors have elements."""
    (file,) = tiny_folder.glob("*.safetensors")
    with safe_open(file, framework="numpy") as tensors:
        elements = sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118
    assert count_parameters(str(tiny_folder)) == elements > 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (DEFAULT_MODEL, DEFAULT_PARAMETERS),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9),
        ("google/gemma-3-270m-it", 270e6),
        ("meta-llama/Llama-3.2-1B", 1e9),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
        ("some_7b_chat", 7e9),
        ("gpt2", None),
        ("Base64Bytes/model", None),
    ],
)
def test_a_hub_models_name_tells_its_size(name: str, parameters: float | None) -> None:
    """Millions and billions, experts by their number; None where no size is in the name."""
    assert count_parameters(name) == parameters


def test_the_demo_is_what_estimates_are_measured_by() -> None:
    """The demo's rows, model and machine give the demo's time; above the start, time grows with
    rows and model, and falls with speed.
    """
    demo = estimate_seconds(DEMO_TOKENS, DEFAULT_PARAMETERS, DEMO_GFLOPS)
    assert demo == pytest.approx(DEMO_S)
    twice = estimate_seconds(2 * DEMO_TOKENS, DEFAULT_PARAMETERS, DEMO_GFLOPS)
    assert twice - START_UP_S == pytest.approx(2 * (demo - START_UP_S))
    larger = estimate_seconds(DEMO_TOKENS, 10 * DEFAULT_PARAMETERS, 10 * DEMO_GFLOPS)
    assert larger == pytest.approx(demo)


def test_a_machine_is_measured_in_a_moment() -> None:
    """A real number of billions a second, that grows with the cores."""
    one, many = measure_gflops(1), measure_gflops(1000)
    assert 0.1 < one < 1e5
    assert many > 100 * one


def test_estimates_load_no_torch() -> None:
    """They are for whoever has not decided yet."""
    code = (
        "import sys, poisonwatch.model.effort as effort; effort.measure_gflops(1); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
