"""A scheduler with a fake runner, driven step by step from a test; every step is checked."""

from collections import deque

import numpy as np

from engine.collector import Collector, StepNews
from engine.config import EnginePlan
from engine.intake import Intake
from engine.launched_step import LaunchedStep
from engine.request import Row, RowState
from engine.scheduler import Scheduler
from protocol.block_hash import chain_root, extend_chain
from protocol.launch import EngineConfig, ModelFiles, SchedulingPolicy
from protocol.messages import Finish, Submit
from protocol.sampling import Sampling
from tests.helpers.fake_runner import FakeRunner, token_at

VOCAB = 1000
KEY = b"key"
PLACED = (RowState.RUNNING, RowState.COLLECTING)


class Bench:
    """One scheduler with a fake runner, driven step by step; every step is checked."""

    def __init__(
        self,
        *,
        depth: int = 0,
        num_blocks: int = 40,
        max_num_seqs: int = 8,
        budget: int = 32,
        max_model_len: int = 64,
        policy: SchedulingPolicy = "fcfs",
        chunked: bool = True,
        eos: tuple[int, ...] = (),
        vocab_size: int = VOCAB,
        max_num_queued_reqs: int = 4096,
        max_num_queued_tokens: int = 1 << 22,
    ) -> None:
        self.plan = EnginePlan(
            device="cpu",
            dtype="float32",
            max_model_len=max_model_len,
            block_size=4,
            num_blocks=num_blocks,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            vocab_size=vocab_size,
        )
        config = EngineConfig(
            rank=0,
            epoch=1,
            address="",
            hash_key=KEY,
            model=ModelFiles(name="m", config_dir="", weights=""),
            scheduling_policy=policy,
            max_num_queued_reqs=max_num_queued_reqs,
            max_num_queued_tokens=max_num_queued_tokens,
            supervisor_pid=0,
            control_fd=0,
            scoreboard_fd=0,
        )
        self.scheduler = Scheduler(self.plan, hash_key=KEY, eos_ids=eos, enable_chunked_prefill=chunked)
        self.intake = Intake(config, self.plan, self.scheduler.waiting)
        self.collector = Collector(self.scheduler, eos_ids=eos)
        self.runner = FakeRunner(self.plan, depth=depth)
        self.in_flight: deque[LaunchedStep] = deque()
        self.tokens: dict[int, list[int]] = {}
        self.finishes: dict[int, Finish] = {}
        self.rows: dict[int, Row] = {}
        self.started: list[int] = []
        self.failed: set[int] = set()
        self.prompt_logprobs: dict[int, list[float]] = {}

    def submit(self, submit: Submit) -> list[Row]:
        rows = self.intake.rows_of(0, submit)
        for row in rows:
            self.rows[row.number] = row
            self.tokens[row.number] = []
        self.scheduler.add(rows)
        return rows

    def step(self) -> StepNews | None:
        planned = self.scheduler.plan()
        if planned is not None:
            self.runner.launch(planned.batch)
            self.in_flight.append(planned)
        news = None
        if self.in_flight and (planned is None or len(self.in_flight) > self.runner.depth):
            news = self.collector.collect(self.in_flight.popleft(), self.runner.collect())
            self._account(news)
        self.scheduler.check()
        self._check_in_flight()
        return news

    def run(self, max_steps: int = 2000) -> None:
        for _ in range(max_steps):
            self.step()
            if not (self.in_flight or self.scheduler.slots.num_running or self.scheduler.waiting.num_rows):
                return
        raise AssertionError("rows are left over")

    def _account(self, news: StepNews) -> None:
        for row, found in news.prompt_logprobs:
            known = self.prompt_logprobs.setdefault(row.number, [])
            del known[found.first - 1 :]  # a preempted row computes its prompt again
            assert len(known) == found.first - 1, "prompt log-probabilities leave a gap"
            known += found.logprobs.tolist()
        for number, token, finish in zip(news.numbers.tolist(), news.tokens.tolist(), news.finishes, strict=True):
            assert number not in self.finishes and number not in self.failed, "a token came after the end of its row"
            self.tokens[number].append(token)
            if finish:
                self.finishes[number] = Finish(finish)
        for row in news.started:
            assert row.number in news.numbers, "a row has started without a token"
        self.started += [row.number for row in news.started]
        self.failed |= {row.number for row in news.failed}

    def _check_in_flight(self) -> None:
        slots = self.scheduler.slots
        expected = np.zeros_like(slots.num_in_flight)
        for step in self.in_flight:
            sampled = step.slots[slots.uid[step.slots] == step.uids]
            rest = [chunk.row.slot for chunk in step.chunks if not chunk.samples and chunk.row.state in PLACED]
            expected[[*sampled.tolist(), *rest]] += 1
        taken = slots.uid >= 0
        assert (slots.num_in_flight[taken] == expected[taken]).all(), "num_in_flight differs from the steps out"


def submit(
    number: int,
    prompt: list[int],
    *,
    max_tokens: int = 8,
    outputs: list[int] | None = None,
    share: bool = True,
    num_choices: int = 1,
    priority: int = 0,
    salt: str = "",
    seed: int | None = None,
    prompt_logprobs: int | None = None,
    **sampling: object,
) -> Submit:
    data = np.array(prompt, np.int32).tobytes()
    hashes = b"".join(extend_chain(KEY, chain_root(KEY, salt=salt), data, 4)) if share else b""
    seed = number if seed is None else seed
    return Submit(
        seq=0,
        epoch=1,
        number=number,
        prompt=data,
        outputs=np.array(outputs or [], np.int32).tobytes(),
        block_hashes=hashes,
        num_choices=num_choices,
        priority=priority,
        salt=salt,
        prompt_logprobs=prompt_logprobs,
        sampling=Sampling(seed=seed, max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]  # by keyword
    )


def expected(seed: int, prompt_len: int, count: int) -> list[int]:
    return [token_at(seed, prompt_len + i, VOCAB) for i in range(count)]
