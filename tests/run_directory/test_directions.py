"""Where the rows of an audit push, in few bytes a row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attributions import STRIDE, benign, fit_stream
from discovered import make_examples
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from poisonwatch.discovery.precedents import measure_pushes
from poisonwatch.errors import RunError
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.checksums import write_checksums
from poisonwatch.run_directory.directions import (
    DIRECTIONS_FILE,
    load_directions,
    save_directions,
)
from poisonwatch.stride.streamed import StreamedFit

PANS = make_examples(6)


@pytest.fixture(scope="module")
def fitted(tiny_pretrained: Pretrained) -> StreamedFit:
    return fit_stream(tiny_pretrained, [*PANS, *benign(20)], STRIDE)


def test_new_rows_push_as_their_sketches_say(fitted: StreamedFit, tmp_path: Path) -> None:
    """Nearly: those of trusted rows are not kept."""
    save_directions(tmp_path, fitted, 16, "0" * 64)
    kept = load_directions(tmp_path)
    assert kept.ids == fitted.ids[:16]
    assert (kept.model, kept.layer) == ("0" * 64, fitted.settings.layer)
    G = fitted.get_gradients(np.arange(len(PANS))).mean(dim=0, keepdim=True)
    exact = measure_pushes(fitted, G)[:16]
    assert np.corrcoef(kept.measure_pushes(G)[:, 0], exact)[0, 1] > 0.95


def test_sketches_are_taken_where_the_pass_kept_no_more(
    tiny_pretrained: Pretrained, tmp_path: Path
) -> None:
    """And nothing is written where it kept nothing."""
    small = STRIDE.model_copy(update={"memory_gb": 1e-6})
    fit = fit_stream(tiny_pretrained, [*PANS, *benign(20)], small)
    save_directions(tmp_path, fit, 10, "0" * 64)
    kept = load_directions(tmp_path)
    G = fit.get_gradients(np.arange(len(PANS))).mean(dim=0, keepdim=True)
    assert np.allclose(kept.measure_pushes(G)[:, 0], measure_pushes(fit, G)[:10], atol=1e-5)
    nothing = small.model_copy(update={"sketch": 0})
    save_directions(
        tmp_path / "none", fit_stream(tiny_pretrained, benign(20), nothing), 10, "0" * 64
    )
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_gone_changed_or_damaged_is_an_error(
    fitted: StreamedFit, tmp_path: Path
) -> None:
    """In one line each."""
    with pytest.raises(RunError, match=r"holds no directions.safetensors"):
        load_directions(tmp_path)
    (tmp_path / DIRECTIONS_FILE).write_bytes(b"nothing")
    with pytest.raises(RunError, match="cannot be read"):
        load_directions(tmp_path)
    save_directions(tmp_path, fitted, 16, "0" * 64)
    write_checksums(tmp_path)
    save_directions(tmp_path, fitted, 12, "0" * 64)
    with pytest.raises(RunError, match="is not what the audit wrote"):
        load_directions(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda tensors, metadata: tensors.pop("sketch_scale"), "there is no sketch_scale"),
        (lambda tensors, metadata: tensors.update(basis=tensors["basis"][1:]), "basis has the"),
        (lambda tensors, metadata: tensors.update(ids=tensors["ids"].float()), "there is no ids"),
        (lambda tensors, metadata: tensors.update(sketch=tensors["sketch"][:, 1:]), "sketch has"),
        (lambda tensors, metadata: metadata.update(layer="-1"), "it names no layer"),
        (lambda tensors, metadata: metadata.pop("layer"), "it names no layer"),
        (lambda tensors, metadata: metadata.update(format="9"), "has format 9"),
    ],
)
def test_what_does_not_fit_together_is_an_error(
    fitted: StreamedFit,
    tmp_path: Path,
    spoil: Callable[[dict[str, Tensor], dict[str, str]], None],
    told: str,
) -> None:
    """Of a run directory without checksums, anything may have been written."""
    save_directions(tmp_path, fitted, 16, "0" * 64)
    with safe_open(tmp_path / DIRECTIONS_FILE, "pt") as file:
        metadata = dict(file.metadata())
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    spoil(tensors, metadata)
    on_disk = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(on_disk, tmp_path / DIRECTIONS_FILE, metadata)
    with pytest.raises(RunError, match=told):
        load_directions(tmp_path)
