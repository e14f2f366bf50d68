"""Log-probabilities of prompt tokens, for the chunks whose requests asked."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int64s, ScheduledBatch
from engine.execution.inputs import StepRows
from engine.execution.logprobs import PromptLogprobs
from engine.execution.slot_tables import SlotTables
from engine.kernels.logprobs import joined, token_logprobs

# Prompt tokens whose logits are held at once, so that a long prompt never has [tokens, vocabulary] numbers. The memory
# plan counts on it.
MAX_ROWS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPart:
    """The positions of one chunk whose next token is a prompt token."""

    chunk: int
    num_top: int
    slot: int
    start: int  # KV position of the first
    tokens: Int64s  # their places among the step's tokens


def prompt_parts(batch: ScheduledBatch, rows: StepRows, prompt_len: Int64s) -> list[PromptPart]:
    """A loop over the chunks that asked; most steps have none."""
    num_decodes = len(batch.decode_slots)
    parts = []
    for chunk in np.flatnonzero(batch.chunk_prompt_logprobs >= 0).tolist():
        slot, start, first = (int(of[num_decodes + chunk]) for of in (rows.slots, rows.starts, rows.first))
        count = min(int(rows.lengths[num_decodes + chunk]), int(prompt_len[slot]) - 1 - start)
        if count > 0:
            num_top = int(batch.chunk_prompt_logprobs[chunk])
            tokens = np.arange(first, first + count)
            parts.append(PromptPart(chunk=chunk, num_top=num_top, slot=slot, start=start, tokens=tokens))
    return parts


def score_prompt(
    part: PromptPart, hidden: Tensor, logits_of: Callable[[Tensor], Tensor], tables: SlotTables
) -> PromptLogprobs:
    """`hidden` [n, hidden] are the part's rows."""
    count = len(part.tokens)
    following = tables.history[part.slot, part.start + 1 : part.start + 1 + count].long()
    scored = [
        token_logprobs(logits_of(rows), tokens, part.num_top)
        for rows, tokens in zip(torch.split(hidden, MAX_ROWS), torch.split(following, MAX_ROWS), strict=True)
    ]
    return PromptLogprobs(chunk=part.chunk, first=part.start + 1, tokens=joined(scored))
