"""Log-probabilities of tokens in plain torch: theirs, their rank, and the most likely ones beside them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """Of n tokens. Tokens that are equally likely share the better rank."""

    logprobs: Tensor  # [n]
    ranks: Tensor  # [n]
    top_ids: Tensor  # [n, k]
    top_logprobs: Tensor  # [n, k]


def token_logprobs(logits: Tensor, tokens: Tensor, num_top: int) -> TokenLogprobs:
    """logits [n, V] float32, tokens [n] int64."""
    total = logits.logsumexp(-1, keepdim=True)
    chosen = logits.gather(1, tokens[:, None])
    top = logits.topk(num_top)
    return TokenLogprobs(
        logprobs=(chosen - total).squeeze(1),
        ranks=(logits > chosen).sum(-1) + 1,
        top_ids=top.indices,
        top_logprobs=top.values - total,
    )


def joined(parts: list[TokenLogprobs]) -> TokenLogprobs:
    return TokenLogprobs(
        logprobs=torch.cat([part.logprobs for part in parts]),
        ranks=torch.cat([part.ranks for part in parts]),
        top_ids=torch.cat([part.top_ids for part in parts]),
        top_logprobs=torch.cat([part.top_logprobs for part in parts]),
    )
