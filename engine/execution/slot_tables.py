"""What the device keeps of each slot between steps: the row's tokens so far and the blocks its KV cache lies in."""

import numpy as np
import torch
from torch import Tensor

from engine.batch import Int32s, Int64s, ScheduledBatch, SlotSetup
from engine.config import EnginePlan


class SlotTables:
    def __init__(self, plan: EnginePlan, device: torch.device) -> None:
        # The token drawn last may stand one past the last one that is ever an input.
        self.history_width = plan.max_model_len + 1
        self.block_size = plan.block_size
        self.device = device
        self.history = torch.zeros(plan.max_num_seqs, self.history_width, dtype=torch.int32, device=device)
        # An entry that was never given out says 0: a block that exists, whatever is read from it is masked.
        self.blocks = torch.zeros(plan.max_num_seqs, plan.max_blocks_per_row, dtype=torch.int32, device=device)

    def install(self, setup: SlotSetup) -> None:
        """A row takes the slot. What its predecessor left beyond the row's own tokens is never read."""
        self.history[setup.slot, : len(setup.tokens)] = torch.from_numpy(setup.tokens)
        self.history[setup.slot, len(setup.tokens) :] = 0
        self.blocks[setup.slot] = 0

    def give_blocks(self, batch: ScheduledBatch) -> None:
        if len(batch.block_ids):
            places = self.to_device(batch.block_slots), self.to_device(batch.block_columns)
            self.blocks[places] = torch.from_numpy(batch.block_ids).to(self.device)

    def tokens(self, slots: Tensor, positions: Tensor) -> Tensor:
        return self.history.view(-1).index_select(0, slots * self.history_width + positions)

    def write(self, slots: Int64s, positions: Int64s, tokens: Tensor) -> None:
        places = torch.from_numpy(slots * self.history_width + positions).to(self.device)
        self.history.view(-1).index_copy_(0, places, tokens.to(torch.int32))

    def cache_slots(self, slots: Tensor, positions: Tensor) -> Tensor:
        """Where in the KV cache each token lies: block * block size + offset."""
        columns = positions // self.block_size
        blocks = self.blocks.view(-1).index_select(0, slots * self.blocks.shape[1] + columns)
        return blocks * self.block_size + positions % self.block_size

    def to_device(self, numbers: Int32s) -> Tensor:
        """int64, as torch wants its indices."""
        return torch.from_numpy(numbers.astype(np.int64)).to(self.device)
