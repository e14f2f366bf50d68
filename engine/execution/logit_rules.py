"""What requests say about single tokens: biases, the only ids allowed, bad words, stop ids before min_tokens.

Each is a flat table over the slots that asked, applied to a step's logits by a fixed number of array operations.
"""

import numpy as np
import torch
from torch import Tensor

from engine.batch import Bools, Int64s, SlotSetup
from engine.config import EnginePlan
from engine.execution.slot_lists import SlotLists
from engine.execution.slot_tables import SlotTables
from engine.execution.slot_work import ALLOWED, BAD_WORDS, BIAS

# A bad word's entry: its last token, the number of tokens before that, then those, the nearest first.
_LAST, _COUNT, _BEFORE = 0, 1, 2


class LogitRules:
    def __init__(self, plan: EnginePlan, tables: SlotTables, max_word_tokens: int) -> None:
        self._tables = tables
        self._max_word_tokens = max_word_tokens
        slots = plan.max_num_seqs
        self._bias = SlotLists(slots, np.float64, columns=2)  # token id, bias
        self._allowed = SlotLists(slots, np.int64)
        self._stops = SlotLists(slots, np.int64)
        self._bad_words = SlotLists(slots, np.int64, columns=_BEFORE + max_word_tokens - 1)

    def install(self, setup: SlotSetup) -> None:
        slot, s = setup.slot, setup.sampling
        self._bias.set(slot, list(s.logit_bias.items()))
        self._allowed.set(slot, s.allowed_token_ids or ())
        self._stops.set(slot, setup.stop_ids if s.min_tokens else ())
        self._bad_words.set(slot, [self._word_entry(word) for word in s.bad_words])

    def apply(self, logits: Tensor, work: int, slots: Int64s, positions: Int64s, prompt_len: Int64s) -> None:
        """Change the rows' logits in place; `positions` are those of the tokens to be drawn."""
        if work & BIAS:
            self._add_bias(logits, slots)
        if work & ALLOWED:
            self._keep_allowed(logits, slots)
        if work & BAD_WORDS:
            self._ban_bad_words(logits, slots, positions, prompt_len)

    def ban_stops(self, logits: Tensor, slots: Int64s, early: Bools) -> None:
        """Rows with fewer than min_tokens outputs (`early`) cannot draw their stop ids."""
        rows, ids = self._stops.of(slots)
        kept = early[rows]
        self._ban(logits, rows[kept], ids[kept, 0])

    def _add_bias(self, logits: Tensor, slots: Int64s) -> None:
        rows, entries = self._bias.of(slots)
        values = torch.from_numpy(entries[:, 1].astype(np.float32)).to(logits.device)
        logits.index_put_(self._places(rows, entries[:, 0].astype(np.int64)), values, accumulate=True)

    def _keep_allowed(self, logits: Tensor, slots: Int64s) -> None:
        rows, ids = self._allowed.of(slots)
        limited, compact = np.unique(rows, return_inverse=True)
        places = torch.from_numpy(limited).to(logits.device)
        banned = torch.ones(len(limited), logits.shape[1], dtype=torch.bool, device=logits.device)
        banned[self._places(compact, ids[:, 0])] = False
        logits[places] = logits[places].masked_fill_(banned, -torch.inf)

    def _ban_bad_words(self, logits: Tensor, slots: Int64s, positions: Int64s, prompt_len: Int64s) -> None:
        """The last token of a word is banned where the outputs just before are the rest of it."""
        rows, entries = self._bad_words.of(slots)
        counts = entries[:, _COUNT]
        enough = positions[rows] - counts >= prompt_len[rows]
        rows, entries, counts = rows[enough], entries[enough], counts[enough]
        back = np.arange(1, int(counts.max(initial=0)) + 1)
        before = np.maximum(positions[rows][:, None] - back, 0)
        written = self._tables.tokens(self._device(np.repeat(slots[rows], len(back))), self._device(before.reshape(-1)))
        wanted = self._device(entries[:, _BEFORE : _BEFORE + len(back)])
        same = (written.view(wanted.shape) == wanted) | self._device(back > counts[:, None])
        ids = torch.where(same.all(1), self._device(entries[:, _LAST]), -1)
        hit = (ids >= 0).nonzero().squeeze(1)
        logits[self._device(rows)[hit], ids[hit]] = -torch.inf

    def _word_entry(self, word: tuple[int, ...]) -> list[int]:
        before = list(reversed(word[:-1]))
        return [word[-1], len(before), *before, *[-1] * (self._max_word_tokens - 1 - len(before))]

    def _ban(self, logits: Tensor, rows: Int64s, ids: Int64s) -> None:
        if len(rows):
            logits[self._places(rows, ids)] = -torch.inf

    def _places(self, rows: Int64s, ids: Int64s) -> tuple[Tensor, Tensor]:
        return self._device(rows), self._device(ids)

    def _device(self, numbers: Int64s | Bools) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self._tables.device)
