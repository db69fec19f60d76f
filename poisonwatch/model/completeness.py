"""Whether all files of a model are in its folder, told before it is loaded."""

import json
from pathlib import Path

from poisonwatch.errors import ModelError
from poisonwatch.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter, holds_adapter
from poisonwatch.model.fingerprints import list_weights

# As transformers saves them.
WHOLE_WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


def check_weights(folder: Path) -> Path:
    """The folder, of a model or of an adapter. Raises ModelError where something is missing."""
    weights = list_weights(folder)
    if holds_adapter(folder):
        if not weights:
            return check_adapter(folder)
        # transformers would take both, or the adapter's base instead of these weights.
        raise ModelError(
            f"model folder {folder} holds the weights of a model and an adapter: which is meant? "
            f"move {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} into a folder of their own, and name it "
            "as model.adapter or leave it out"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model folder {folder} has no config.json: "
            "name a folder saved by transformers' save_pretrained"
        )
    if not weights:
        raise ModelError(
            f"model folder {folder} has no *.safetensors weights: "
            "no other weight files are read; save the model as safetensors"
        )
    missing = _list_missing_shards(folder)
    if missing:
        raise ModelError(
            f"model folder {folder} lacks files of weights that its {WEIGHTS_INDEX} names "
            f"({missing[0]}; {len(missing)} in all): fetch or copy them again"
        )
    return folder


def _list_missing_shards(folder: Path) -> list[str]:
    """Files that the index of a model's weights names, and that are not there: as where a download
    was interrupted.
    """
    # What is there whole goes before shards.
    if (folder / WHOLE_WEIGHTS).is_file():
        return []
    try:
        index = json.loads((folder / WEIGHTS_INDEX).read_text(encoding="utf-8"))
        names = sorted({str(name) for name in index["weight_map"].values()})
    # none; what is wrong with it is said where it is loaded
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return [name for name in names if not (folder / name).is_file()]


def check_weights_and_code(folder: Path) -> Path:
    """The same, with the model's code: a cache that was filled before it was trusted lacks it."""
    check_weights(folder)
    for name in _list_code(folder):
        if not (folder / name).is_file():
            raise ModelError(f"model folder {folder} has no {name}, the code of its model")
    return folder


def _list_code(folder: Path) -> list[str]:
    """The files of code that a model's configuration names; those of other repositories are left
    out.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        places = list(config["auto_map"].values())
    # none that brings code; what is wrong with it is said where it is loaded
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    names = []
    for place in places:
        # "modeling_x.Class", of another repository "owner/name--modeling_x.Class"
        if isinstance(place, str) and "--" not in place:
            names.append(f"{place.partition('.')[0]}.py")
    return names
