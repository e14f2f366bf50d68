"""The GPU's sampler draws what the CPU's draws, token for token, in batches of rows that ask for anything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.execution.gpu import sampler as sampler_module
from engine.execution.gpu.sampler import GpuSampler
from engine.execution.gpu.sampling_layout import sampler_bytes
from engine.execution.slot_tables import SlotTables
from protocol.sampling import Sampling
from tests.helpers.both_samplers import BothSamplers, check_logprobs, sampling_plan

VOCAB, SLOTS = 150, 7

# numpy, which the interpreter computes with, warns of infinities that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def both(device: torch.device, seed: int) -> BothSamplers:
    return BothSamplers(device, seed, vocab_size=VOCAB, num_rows=SLOTS)


@pytest.mark.parametrize("seed", range(6))
def test_any_batch_draws_what_the_cpu_draws(device: torch.device, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "MAX_COPIES", 2)  # the rows of a step draw again in more than one turn
    samplers = both(device, seed)
    for turn in range(3):
        slots = samplers.rng.permutation(SLOTS)[: SLOTS - turn].astype(np.int64)
        logits = torch.from_numpy(samplers.rng.normal(0, 2, (len(slots), VOCAB)).astype(np.float32)).to(device)
        drawn = samplers.draw(logits, slots)
        kept = ~drawn.wanted.failed
        assert drawn.tokens[:, 1].tolist() == drawn.wanted.failed.int().tolist()
        assert drawn.tokens[kept, 0].tolist() == drawn.wanted.tokens[kept].tolist()
        positions = np.array([len(samplers.setups[slot].tokens) for slot in slots])
        assert samplers.tables[1].history[slots, positions].tolist() == drawn.tokens[:, 0].tolist()
        check_logprobs(drawn.logprobs, drawn.wanted)
        samplers.install([samplers.new_setup(int(slots[0]))])  # a used slot is as good as new


def test_a_row_that_asks_is_the_only_one_that_notices(device: torch.device) -> None:
    """The others keep what the step drew for them."""
    samplers = both(device, 3)
    plain = Sampling(seed=0, max_tokens=9)
    asking = Sampling(seed=0, max_tokens=9, temperature=0.0, logit_bias={77: 100.0}, logprobs=1)
    samplers.install([replace(setup, sampling=asking if setup.slot == 4 else plain) for setup in samplers.setups])
    slots = np.arange(SLOTS, dtype=np.int64)
    places = slots[::-1].astype(np.int32)
    out = torch.full((SLOTS, 2), 123, dtype=torch.int32, device=device)
    samplers.staging.begin()
    extra = samplers.gpu.extra_work(slots, slots + 30, samplers.staging, places=places)
    samplers.staging.send()
    assert extra is not None
    assert samplers.gpu.is_random(slots, extra)
    assert not samplers.gpu.is_random(slots[4:5], None)
    sent = samplers.gpu.do(extra, torch.randn(SLOTS, VOCAB).to(device), out)
    assert out.tolist() == [[77, 0] if place == SLOTS - 1 - 4 else [123, 123] for place in range(SLOTS)]
    assert sent is not None
    assert sent.to_host().rows.tolist() == [4]


def test_what_a_joining_row_sends_is_counted_before(device: torch.device) -> None:
    samplers = both(device, 4)
    samplers.staging.begin()
    for setup in samplers.setups:
        first = samplers.staging.put(np.zeros(0, np.int32)).storage_offset()
        samplers.gpu.join([setup], samplers.staging)
        used = samplers.staging.put(np.zeros(0, np.int32)).storage_offset() - first
        assert used <= samplers.gpu.num_sent(setup)


def test_the_memory_plan_counts_what_is_allocated(device: torch.device) -> None:
    plan = sampling_plan(device, vocab_size=VOCAB, num_rows=SLOTS)
    tables = SlotTables(plan, device)
    taken = storages(GpuSampler(plan, tables))
    del taken[tables.history.untyped_storage().data_ptr()]
    assert sum(taken.values()) == sampler_bytes(max_num_seqs=SLOTS, vocab_size=VOCAB, max_logprobs=plan.max_logprobs)


def storages(thing: object) -> dict[int, int]:
    """Address and bytes of all tensors in an object's attributes; those in lists are the host's."""
    if isinstance(thing, Tensor):
        return {thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()}
    names = [*getattr(thing, "__slots__", ()), *getattr(thing, "__dict__", ())]
    return {key: size for name in names for key, size in storages(getattr(thing, name)).items()}
