"""What every kind of weights offers, and the check of what it has against the table of what the model needs."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch

from engine.models.config_json import ModelError
from engine.models.shape import ModelShape
from engine.models.tensors import expected_tensors, may_be_ignored, optional_tensors


class TensorSource(Protocol):
    """Tensors by the names of `engine.models.tensors`."""

    place: str  # for messages: the folder or file

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """What is there, without reading any values."""

    def read(self, name: str, out: torch.Tensor) -> None:
        """Write the values into `out`, which has the tensor's shape and any floating type. Called from threads."""


def check_tensors(source: TensorSource, shape: ModelShape) -> None:
    """Raise `ModelError` unless the source holds exactly the model's tensors, each in its shape."""
    found, expected = source.shapes(), expected_tensors(shape)
    missing = [name for name in expected if name not in found]
    if missing:
        raise ModelError(f"{source.place} lacks {_listed(missing)}, which {shape.architecture} needs")
    optional = optional_tensors(shape)
    known = expected | optional
    surplus = [name for name in found if name not in known and not may_be_ignored(name, shape)]
    if surplus:
        raise ModelError(f"{source.place} holds {_listed(surplus)}, which {shape.architecture} does not use")
    for name, dims in known.items():
        if name in found and tuple(found[name]) != dims:
            raise ModelError(
                f"{source.place}: tensor {name} has shape {list(found[name])}; config.json asks for {list(dims)}"
            )


def _listed(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"tensor {first}" + (f" and {len(rest)} more" if rest else "")
