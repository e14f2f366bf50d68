"""What sampling parameters mean, one row and one token at a time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from protocol.sampling import Sampling

Row = npt.NDArray[np.float64]


def constrained(
    logits: Row, s: Sampling, *, prompt: Sequence[int], outputs: Sequence[int], stop_ids: Sequence[int]
) -> Row:
    """Biases, bans and penalties."""
    row = logits.copy()
    for token, bias in s.logit_bias.items():
        row[token] += bias
    if s.allowed_token_ids is not None:
        for token in range(len(row)):
            if token not in s.allowed_token_ids:
                row[token] = -np.inf
    for word in s.bad_words:
        before = list(word[:-1])
        if list(outputs[len(outputs) - len(before) :]) == before and len(outputs) >= len(before):
            row[word[-1]] = -np.inf
    if len(outputs) < s.min_tokens:
        row[list(stop_ids)] = -np.inf
    for token in {*prompt, *outputs}:
        row[token] = row[token] / s.repetition_penalty if row[token] > 0 else row[token] * s.repetition_penalty
    for token in set(outputs):
        row[token] -= s.presence_penalty + s.frequency_penalty * list(outputs).count(token)
    return row


def probabilities(logits: Row, s: Sampling) -> Row:
    """Of each token to be drawn."""
    scaled = logits / s.temperature
    weights = np.exp(scaled - scaled.max())
    if 0 < s.top_k < len(weights):
        weights[weights < np.sort(weights)[-s.top_k]] = 0.0
    if s.top_p < 1.0:
        ordered = np.sort(weights)[::-1]
        reached = np.cumsum(ordered) >= s.top_p * weights.sum()
        weights[weights < ordered[np.argmax(reached)]] = 0.0
    weights[weights < s.min_p * weights.max()] = 0.0
    shares: Row = weights / weights.sum()
    return shares
