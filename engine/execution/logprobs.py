"""Log-probabilities of drawn and of prompt tokens, always from the raw logits."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Float32s, Int32s, LogprobRows, PromptLogprobRows


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """Of n tokens, on the device. Tokens that are equally likely share the better rank."""

    logprobs: Tensor  # [n]
    ranks: Tensor  # [n]
    top_ids: Tensor  # [n, k]
    top_logprobs: Tensor  # [n, k]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLogprobs:
    rows: Int32s
    tokens: TokenLogprobs

    def to_host(self) -> LogprobRows:
        logprobs, ranks, top_ids, top_logprobs = _host(self.tokens)
        return LogprobRows(rows=self.rows, logprobs=logprobs, ranks=ranks, top_ids=top_ids, top_logprobs=top_logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLogprobs:
    chunk: int
    first: int
    tokens: TokenLogprobs

    def to_host(self) -> PromptLogprobRows:
        logprobs, ranks, top_ids, top_logprobs = _host(self.tokens)
        return PromptLogprobRows(
            chunk=self.chunk,
            first=self.first,
            logprobs=logprobs,
            ranks=ranks,
            top_ids=top_ids,
            top_logprobs=top_logprobs,
        )


def token_logprobs(logits: Tensor, tokens: Tensor, num_top: int) -> TokenLogprobs:
    """logits [n, V], tokens [n] int64."""
    everything = logits.log_softmax(-1)
    chosen = everything.gather(1, tokens[:, None])
    top = everything.topk(num_top)
    return TokenLogprobs(
        logprobs=chosen.squeeze(1),
        ranks=(everything > chosen).sum(-1) + 1,
        top_ids=top.indices,
        top_logprobs=top.values,
    )


def joined(parts: list[TokenLogprobs]) -> TokenLogprobs:
    return TokenLogprobs(
        logprobs=torch.cat([part.logprobs for part in parts]),
        ranks=torch.cat([part.ranks for part in parts]),
        top_ids=torch.cat([part.top_ids for part in parts]),
        top_logprobs=torch.cat([part.top_logprobs for part in parts]),
    )


def _host(tokens: TokenLogprobs) -> tuple[Float32s, Int32s, Int32s, Float32s]:
    return (
        tokens.logprobs.cpu().numpy(),
        tokens.ranks.cpu().numpy().astype(np.int32),
        tokens.top_ids.cpu().numpy().astype(np.int32),
        tokens.top_logprobs.cpu().numpy(),
    )
