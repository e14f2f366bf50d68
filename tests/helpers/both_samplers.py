"""Random rows on the CPU's sampler and on the GPU's, which must draw the same tokens for them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch import Bools, Int32s, Int64s, LogprobRows, SlotSetup
from engine.config import EnginePlan
from engine.execution.gpu.sampler import GpuSampler
from engine.execution.gpu.staging import Staging
from engine.execution.sampler import Drawn, Sampler
from engine.execution.slot_tables import SlotTables
from engine.kernels.sampling_triton import sample
from engine.kernels.step_state import remember
from protocol.sampling import Sampling

IDS = 12  # few, so that what rows ask for and what they have said meet
MAX_LEN = 64


def sampling_plan(device: torch.device, *, vocab_size: int, num_rows: int) -> EnginePlan:
    return EnginePlan(
        device=str(device),
        dtype="float32",
        max_model_len=MAX_LEN,
        block_size=16,
        num_blocks=8,
        max_num_seqs=num_rows,
        max_num_batched_tokens=64,
        vocab_size=vocab_size,
    )


class HostStaging(Staging):
    """The same where there is no GPU: nothing is pinned, nothing is asynchronous."""

    def __init__(self, *, free: int) -> None:
        self.device = torch.full((free,), -7, dtype=torch.int32)
        self._host: list[Int32s] = []

    def begin(self) -> Int32s:
        self._used, self._host = 0, []
        return np.empty(0, np.int32)

    def put(self, numbers: Int32s) -> Tensor:
        first, self._used = self._used, self._used + len(numbers)
        self._host.append(numbers.copy())
        return self.device[first : self._used]

    def send(self) -> None:
        self.device[: self._used] = torch.from_numpy(np.concatenate(self._host))


def staging_on(device: torch.device, *, free: int) -> Staging:
    return Staging(fixed=0, free=free, device=device) if device.type == "cuda" else HostStaging(free=free)


@dataclass(frozen=True, kw_only=True)
class DrawnTwice:
    wanted: Drawn  # the CPU's
    tokens: Tensor  # [S, 2] the GPU's, on the host
    logprobs: LogprobRows | None


class BothSamplers:
    """One row in each slot."""

    def __init__(self, device: torch.device, seed: int, *, vocab_size: int, num_rows: int) -> None:
        self.device, self.vocab_size, cpu = device, vocab_size, torch.device("cpu")
        self.rng = np.random.default_rng(seed)
        plans = [sampling_plan(on, vocab_size=vocab_size, num_rows=num_rows) for on in (cpu, device)]
        self.tables = SlotTables(plans[0], cpu), SlotTables(plans[1], device)
        self.cpu, self.gpu = Sampler(plans[0], self.tables[0]), GpuSampler(plans[1], self.tables[1])
        self.staging = staging_on(device, free=num_rows * (vocab_size // 16 + 5000))
        self.setups = [self.new_setup(slot) for slot in range(num_rows)]
        self.install(self.setups)

    def install(self, setups: list[SlotSetup]) -> None:
        for setup in setups:
            self.setups[setup.slot] = setup
            self.cpu.install(setup)
            for tables in self.tables:
                tables.install(setup)
        self.staging.begin()
        joining = self.gpu.join(setups, self.staging)
        self.staging.send()
        self.gpu.install(joining)

    def draw(self, logits: Tensor, slots: Int64s) -> DrawnTwice:
        """logits [S, V] on the device."""
        positions = np.array([len(self.setups[slot].tokens) for slot in slots], np.int64)
        wanted = self.cpu.draw(logits.float().cpu().clone(), slots, positions)
        self.staging.begin()
        put = [self.staging.put(numbers.astype(np.int32)) for numbers in (slots, positions)]
        extra = self.gpu.extra_work(slots, positions, self.staging)
        self.staging.send()
        tokens, failed = sample(logits, put[0], put[1], self.gpu.parameters)
        remember(self.tables[1].history, put[0], put[1], tokens)
        out = torch.stack([tokens, failed.int()], 1)
        sent = None if extra is None else self.gpu.do(extra, logits, out)
        found = out.cpu()  # waits for what was sent, too
        return DrawnTwice(wanted=wanted, tokens=found, logprobs=None if sent is None else sent.to_host())

    def new_setup(self, slot: int) -> SlotSetup:
        rng = self.rng
        prompt_len = int(rng.integers(1, IDS))
        return SlotSetup(
            slot=slot,
            sampling=self._sampling(),
            seed=int(rng.integers(2**64, dtype=np.uint64)),
            prompt_len=prompt_len,
            stop_ids=((), (2,), (2, self.vocab_size - 1))[int(rng.integers(3))],
            tokens=rng.integers(0, IDS, size=int(rng.integers(prompt_len, 24))).astype(np.int32),
        )

    def _sampling(self) -> Sampling:
        """Each thing is asked for by every third row or so."""
        rng = self.rng
        asks = rng.integers(3, size=8) == 0
        words = tuple(tuple(rng.integers(0, IDS, size=size).tolist()) for size in (1, 2, 3))
        biases = {token: float(rng.choice([-100.0, 3.5])) for token in self._ids(6)}
        return Sampling(
            seed=0,
            max_tokens=50,
            min_tokens=15 if asks[0] else 0,
            temperature=float(rng.choice([0.0, 0.7, 1.0])),
            top_k=int(rng.choice([0, 1, 5])),
            top_p=float(rng.choice([1.0, 0.9])),
            min_p=float(rng.choice([0.0, 0.05])),
            presence_penalty=0.5 if asks[1] else 0.0,
            frequency_penalty=-0.7 if asks[2] else 0.0,
            repetition_penalty=1.4 if asks[3] else 1.0,
            logprobs=int(rng.integers(4)) if asks[4] else None,
            logit_bias=biases if asks[5] else {},
            allowed_token_ids=tuple(self._ids(9)) if asks[6] else None,
            bad_words=words if asks[7] else (),
        )

    def _ids(self, most: int) -> list[int]:
        listed: list[int] = self.rng.permutation(IDS)[: int(self.rng.integers(1, most))].tolist()
        return listed


def check_logprobs(found: LogprobRows | None, drawn: Drawn, *, may_tie: bool = False) -> None:
    """Of rows that failed only the alternatives are compared: their tokens mean nothing. `may_tie`: in any order."""
    assert (found is None) == (drawn.logprobs is None)
    if found is None or drawn.logprobs is None:
        return
    wanted = drawn.logprobs.to_host()
    assert found.rows.tolist() == wanted.rows.tolist()
    kept: Bools = ~drawn.failed.numpy()[found.rows]
    np.testing.assert_allclose(found.logprobs[kept], wanted.logprobs[kept], atol=2e-5)
    np.testing.assert_allclose(found.top_logprobs, wanted.top_logprobs, atol=2e-5)
    assert found.ranks[kept].tolist() == wanted.ranks[kept].tolist()
    assert may_tie or found.top_ids.tolist() == wanted.top_ids.tolist()
