"""Repetition, presence and frequency penalties in plain torch, counted from the rows' token histories."""

import torch
from torch import Tensor


def penalize(
    logits: Tensor,
    history: Tensor,
    lengths: Tensor,
    prompt_len: Tensor,
    *,
    repetition: Tensor,
    presence: Tensor,
    frequency: Tensor,
) -> Tensor:
    """logits [P, V] after the penalties of P rows with histories [P, T], of which `lengths` [P] tokens count.

    Every token of prompt and output is divided (if negative: multiplied) by the repetition penalty; then each output
    token loses the presence penalty once and the frequency penalty as often as it was drawn.
    """
    places = torch.arange(history.shape[1], device=history.device)
    counts = places < lengths[:, None]
    # What lies behind a row's end stands for its first token once more: it gets the same value, written twice.
    ids = torch.where(counts, history, history[:, :1]).long()
    outputs = (counts & (places >= prompt_len[:, None])).float()
    drawn = torch.zeros_like(logits).scatter_add_(1, ids, outputs).gather(1, ids)
    values = logits.gather(1, ids)
    factor = repetition[:, None]
    values = torch.where(values > 0, values / factor, values * factor)
    values -= drawn * frequency[:, None] + (drawn > 0) * presence[:, None]
    return logits.scatter(1, ids, values)
