"""The GPU's sampler draws what the CPU's draws, token for token, in batches of rows that ask for anything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.batch import Bools, Float32s, Int32s, Int64s, LogprobRows, SlotSetup
from engine.config import EnginePlan
from engine.execution.gpu import sampler as sampler_module
from engine.execution.gpu.sampler import GpuSampler
from engine.execution.gpu.sampling_layout import sampler_bytes
from engine.execution.sampler import Drawn, Sampler
from engine.execution.slot_tables import SlotTables
from engine.kernels.sampling_triton import sample
from engine.kernels.step_state import remember
from protocol.sampling import Sampling

VOCAB, SLOTS = 150, 7

# numpy, which the interpreter computes with, warns of infinities that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


class Staging:
    """As `engine.execution.gpu.staging.Staging`, on any device and without run-ahead."""

    def __init__(self, device: torch.device) -> None:
        self._device = torch.full((10_000,), -7, dtype=torch.int32, device=device)
        self.used = 0

    def begin(self) -> None:
        self.used = 0
        self._host: list[Int32s] = []

    def put(self, numbers: Int32s) -> Tensor:
        first, self.used = self.used, self.used + len(numbers)
        self._host.append(numbers.copy())
        return self._device[first : self.used]

    def send(self) -> None:
        self._device[: self.used] = torch.from_numpy(np.concatenate(self._host))


def plan(device: torch.device) -> EnginePlan:
    return EnginePlan(
        device=str(device),
        dtype="float32",
        max_model_len=64,
        block_size=16,
        num_blocks=8,
        max_num_seqs=SLOTS,
        max_num_batched_tokens=64,
        vocab_size=VOCAB,
    )


class Rows:
    """One row in each slot, on both samplers."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self.rng = np.random.default_rng(seed)
        self.setups = [self.setup(slot) for slot in range(SLOTS)]
        cpu = torch.device("cpu")
        self.tables = SlotTables(plan(cpu), cpu), SlotTables(plan(device), device)
        self.cpu, self.gpu = Sampler(plan(cpu), self.tables[0]), GpuSampler(plan(device), self.tables[1])
        self.staging = Staging(device)
        self.install(self.setups)

    def install(self, setups: list[SlotSetup]) -> None:
        for setup in setups:
            self.cpu.install(setup)
            for tables in self.tables:
                tables.install(setup)
        self.staging.begin()
        joining = self.gpu.join(setups, self.staging)  # type: ignore[arg-type]  # as good without a GPU
        self.staging.send()
        assert self.staging.used <= sum(map(self.gpu.num_sent, setups))
        self.gpu.install(joining)

    def replace(self, slot: int) -> None:
        """A new row takes the slot."""
        self.setups[slot] = self.setup(slot)
        self.install([self.setups[slot]])

    def setup(self, slot: int) -> SlotSetup:
        rng = self.rng
        prompt_len = int(rng.integers(1, 12))
        tokens = rng.integers(0, 10, size=int(rng.integers(prompt_len, 24))).astype(np.int32)
        return SlotSetup(
            slot=slot,
            sampling=self.sampling(),
            seed=int(rng.integers(2**64, dtype=np.uint64)),
            prompt_len=prompt_len,
            stop_ids=((), (2,), (2, 149))[int(rng.integers(3))],
            tokens=tokens,
        )

    def sampling(self) -> Sampling:
        """Each thing is asked for by about every third row."""
        rng = self.rng

        def some(size: int) -> bool:
            return bool(rng.integers(3) == 0 and size)

        def ids(most: int) -> list[int]:
            listed: list[int] = rng.permutation(12)[: int(rng.integers(1, most))].tolist()
            return listed

        return Sampling(
            seed=0,
            max_tokens=50,
            min_tokens=15 if some(1) else 0,
            temperature=float(rng.choice([0.0, 0.7, 1.0])),
            top_k=int(rng.choice([0, 1, 5])),
            top_p=float(rng.choice([1.0, 0.9])),
            min_p=float(rng.choice([0.0, 0.05])),
            presence_penalty=0.5 if some(1) else 0.0,
            frequency_penalty=-0.7 if some(1) else 0.0,
            repetition_penalty=1.4 if some(1) else 1.0,
            logprobs=int(rng.integers(4)) if some(1) else None,
            logit_bias={token: float(rng.choice([-100.0, 3.5])) for token in ids(6)} if some(1) else {},
            allowed_token_ids=tuple(ids(9)) if some(1) else None,
            bad_words=tuple(tuple(rng.integers(0, 10, size=size).tolist()) for size in (1, 2, 3)) if some(1) else (),
        )

    def draw_both(self, logits: Float32s, slots: Int64s, positions: Int64s) -> tuple[Drawn, Tensor, LogprobRows | None]:
        """The CPU's draw, the GPU's tokens [S, 2] and log-probabilities."""
        drawn = self.cpu.draw(torch.from_numpy(logits.copy()), slots, positions)
        self.staging.begin()
        put = [self.staging.put(numbers.astype(np.int32)) for numbers in (slots, positions)]
        extra = self.gpu.extra_work(slots, positions, self.staging)  # type: ignore[arg-type]  # as above
        self.staging.send()
        there = torch.from_numpy(logits).to(self.device)
        tokens, failed = sample(there, put[0], put[1], self.gpu.parameters)
        remember(self.tables[1].history, put[0], put[1], tokens)
        out = torch.stack([tokens, failed.int()], 1)
        sent = None if extra is None else self.gpu.do(extra, there, out)
        return drawn, out, None if sent is None else sent.to_host()


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the rows of one step draw again in more than one turn."""
    monkeypatch.setattr(sampler_module, "MAX_COPIES", 2)


@pytest.mark.parametrize("seed", range(8))
def test_any_batch_draws_what_the_cpu_draws(device: torch.device, seed: int) -> None:
    rows = Rows(device, seed)
    for turn in range(3):
        slots = rows.rng.permutation(SLOTS)[: SLOTS - turn].astype(np.int64)
        positions = np.array([len(rows.setups[slot].tokens) for slot in slots], np.int64)
        logits = rows.rng.normal(0, 2, (len(slots), VOCAB)).astype(np.float32)
        drawn, out, sent = rows.draw_both(logits, slots, positions)
        assert out[:, 1].tolist() == drawn.failed.int().tolist()
        kept = ~drawn.failed
        assert out[kept, 0].tolist() == drawn.tokens[kept].tolist()
        assert rows.tables[1].history[slots, positions].tolist() == out[:, 0].tolist()
        assert (sent is None) == (drawn.logprobs is None)
        if sent is not None and drawn.logprobs is not None:
            check_logprobs(sent, drawn.logprobs.to_host(), drawn.failed.numpy())
        rows.replace(int(slots[0]))  # a used slot is as good as new


def check_logprobs(found: LogprobRows, wanted: LogprobRows, failed: Bools) -> None:
    assert found.rows.tolist() == wanted.rows.tolist()
    kept = ~failed[found.rows]
    np.testing.assert_allclose(found.logprobs[kept], wanted.logprobs[kept], atol=1e-5)
    assert found.ranks[kept].tolist() == wanted.ranks[kept].tolist()
    assert found.top_ids.tolist() == wanted.top_ids.tolist()
    np.testing.assert_allclose(found.top_logprobs, wanted.top_logprobs, atol=1e-5)


def test_a_row_that_asks_is_the_only_one_that_notices(device: torch.device) -> None:
    """The others keep what the step drew for them, bit for bit."""
    rows = Rows(device, 3)
    plain = Sampling(seed=0, max_tokens=9)
    asking = Sampling(seed=0, max_tokens=9, temperature=0.0, logit_bias={77: 100.0}, logprobs=1)
    rows.install([replace(setup, sampling=asking if setup.slot == 4 else plain) for setup in rows.setups])
    slots = np.arange(SLOTS, dtype=np.int64)
    out = torch.full((SLOTS, 2), 123, dtype=torch.int32, device=device)
    rows.staging.begin()
    extra = rows.gpu.extra_work(slots, slots + 30, rows.staging)  # type: ignore[arg-type]  # as above
    rows.staging.send()
    assert extra is not None
    assert rows.gpu.is_random(slots, extra)
    assert not rows.gpu.is_random(slots[4:5], None)
    sent = rows.gpu.do(extra, torch.randn(SLOTS, VOCAB).to(device), out)
    assert out.tolist() == [[77, 0] if slot == 4 else [123, 123] for slot in range(SLOTS)]
    assert sent is not None
    assert sent.to_host().rows.tolist() == [4]


def test_the_memory_plan_counts_what_is_allocated(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "MAX_COPIES", 128)
    sizes = plan(device)
    expected = sampler_bytes(max_num_seqs=SLOTS, vocab_size=VOCAB, max_logprobs=sizes.max_logprobs)
    tables = SlotTables(sizes, device)
    taken = storages(GpuSampler(sizes, tables))
    del taken[tables.history.untyped_storage().data_ptr()]
    assert sum(taken.values()) == expected


def storages(thing: object) -> dict[int, int]:
    """Address and bytes of all tensors in an object's attributes; those in lists are the host's."""
    if isinstance(thing, Tensor):
        return {thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()}
    names = [*getattr(thing, "__slots__", ()), *getattr(thing, "__dict__", ())]
    return {key: size for name in names for key, size in storages(getattr(thing, name)).items()}
