"""Results as plain JSON and tensors, and back: what is read from a file can only ever become what
the reader asks for.

Dataclasses become mappings, tuples and lists become lists, and arrays go into a mapping of tensors
by number; the tree names them. Reading goes by the type that is wanted, never by what the file
says: a file that was tampered with may hold other numbers, but no other types.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")

# Ends the name of an array that lies in memory column by column: sums over it depend on that, in
# the last digit.
BY_COLUMN = "T"


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """The value as JSON and tensors, on the CPU. Raises TypeError where it holds anything but
    these, dataclasses and sequences.
    """
    writer = _TreeWriter()
    return writer.tree(value), writer.tensors


class _TreeWriter:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        # Of arrays by their identity: one that comes twice is kept once.
        self._names: dict[int, str] = {}

    def tree(self, value: Any) -> Any:
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, (list, tuple)):
            return [self.tree(item) for item in value]
        if isinstance(value, (Tensor, np.ndarray)):
            return self._names.get(id(value)) or self._array(value)
        if is_dataclass(value):
            return {field.name: self.tree(getattr(value, field.name)) for field in fields(value)}
        raise TypeError(f"{type(value).__name__} cannot be kept")

    def _array(self, value: Tensor | NDArray[Any]) -> str:
        name = str(len(self.tensors))
        if isinstance(value, Tensor):
            array = value.detach()
        elif value.flags.f_contiguous and not value.flags.c_contiguous:
            name += BY_COLUMN
            array = torch.from_numpy(np.ascontiguousarray(value.T))
        else:
            array = torch.from_numpy(np.ascontiguousarray(value))
        self.tensors[name], self._names[id(value)] = array.contiguous().cpu(), name
        return name


def unpack(
    kind: type[T], tree: Any, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> T:
    """The value of a `kind` that was packed, its tensors on the device. Raises ValueError where
    tree and tensors hold no such value.
    """
    return cast(T, _TreeReader(tensors, device).read(kind, tree))


@dataclass(frozen=True, slots=True)
class _TreeReader:
    tensors: Mapping[str, Tensor]
    device: torch.device | str

    def read(self, kind: Any, tree: Any) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            # The only unions there are: a kind, or None.
            (other,) = set(arguments) - {type(None)}
            if tree is None:
                return None
            return self.read(other, tree)
        if origin is Literal and tree in arguments:
            return tree
        if origin is list and isinstance(tree, list):
            return [self.read(arguments[0], item) for item in tree]
        if origin is tuple and isinstance(tree, list):
            if arguments[1:] == (...,):
                arguments = arguments[:1] * len(tree)
            return tuple(self.read(of, item) for of, item in zip(arguments, tree, strict=True))
        if origin is np.ndarray:
            return self._array(tree, np.dtype(get_args(arguments[1])[0]))
        if kind is Tensor:
            return self._tensor(tree).to(self.device)
        if kind in (str, bool, int) and type(tree) is kind:
            return tree
        if kind is float and type(tree) in (float, int):
            return tree
        if is_dataclass(kind) and isinstance(tree, dict):
            return self._dataclass(kind, tree)
        raise ValueError(f"no {getattr(kind, '__name__', kind)} was kept here")

    def _dataclass(self, kind: Any, tree: dict[str, Any]) -> Any:
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        if set(names) != tree.keys():
            raise ValueError(f"no {kind.__name__} was kept here")
        return kind(**{name: self.read(hints[name], tree[name]) for name in names})

    def _tensor(self, tree: Any) -> Tensor:
        if not isinstance(tree, str) or tree not in self.tensors:
            raise ValueError("an array is named that is not there")
        return self.tensors[tree]

    def _array(self, tree: Any, dtype: np.dtype[Any]) -> Any:
        array = self._tensor(tree).numpy()
        if array.dtype != dtype:
            raise ValueError(f"an array of {array.dtype} was kept where one of {dtype} belongs")
        if tree.endswith(BY_COLUMN):
            return array.T
        return array
