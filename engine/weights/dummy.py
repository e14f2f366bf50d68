"""Random weights from config.json alone: to measure speed, and to try the whole server without a download."""

import zlib

import torch

from engine.models.shape import ModelShape
from engine.models.tensors import expected_tensors

SCALE = 0.02  # small, so that no activation overflows in any type


class DummyWeights:
    """Each tensor depends on the seed and its own name only, so the order of reading does not matter."""

    def __init__(self, shape: ModelShape, seed: int) -> None:
        self.place = "dummy weights"
        self._shapes = expected_tensors(shape)
        self._seed = seed

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes

    def read(self, name: str, out: torch.Tensor) -> None:
        if name.endswith("norm.weight"):
            out.fill_(1.0)
        else:
            # Hashed to 32 bits: torch's generator on the CPU looks at no more.
            generator = torch.Generator(out.device).manual_seed(zlib.crc32(f"{self._seed} {name}".encode()))
            out.uniform_(-SCALE, SCALE, generator=generator)
