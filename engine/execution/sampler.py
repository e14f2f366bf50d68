"""Draws the next token of each row from its logits."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    tokens: Tensor  # [S] int64
    failed: Tensor  # [S] bool


class Sampler:
    def draw(self, logits: Tensor) -> Drawn:
        best, tokens = logits.max(dim=-1)
        return Drawn(tokens=tokens, failed=~torch.isfinite(best))
