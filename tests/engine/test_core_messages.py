"""What a core sends, beside a step's tokens: aborts, failures, prompt log-probabilities, heartbeats."""

import time

import msgspec
import numpy as np
import pytest

from protocol.codec import decode_from_engine, encode, float32s, int64s
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    Finish,
    FromEngine,
    Heartbeat,
    Hello,
    PromptLogprobs,
    RequestFailed,
    StepOutput,
    Submit,
    ToEngine,
)
from protocol.sampling import Sampling
from protocol.sockets import MAX_MESSAGE_BYTES, new_identity
from tests.helpers.joined_core import EPOCH, VOCAB, JoinedCore


class Client:
    """A peer that only keeps what comes."""

    def __init__(self, core: JoinedCore) -> None:
        self.core = core
        self.identity = new_identity(0)
        self.seq = 0
        self.send(Hello(seq=0, version=PROTOCOL_VERSION, place=0, life=1))
        core.step()
        self.take()

    def send(self, message: ToEngine) -> None:
        self.core.router.push(self.identity, encode(msgspec.structs.replace(message, seq=self.seq)))
        self.seq += 1

    def submit(self, number: int, prompt: list[int], **fields: object) -> None:
        self.send(
            Submit(
                seq=0,
                epoch=EPOCH,
                number=number,
                prompt=np.array(prompt, np.int32).tobytes(),
                **{"sampling": Sampling(seed=number, max_tokens=8), **fields},  # type: ignore[arg-type]  # by keyword
            )
        )

    def take(self) -> list[FromEngine]:
        messages = [decode_from_engine(frames)[0] for frames in self.core.router.take(self.identity)]
        return [message for message in messages if not isinstance(message, Heartbeat)]


@pytest.mark.parametrize("depth", [0, 1])
def test_an_abort_of_many_rows_is_answered_in_one_message(depth: int) -> None:
    core = JoinedCore(depth=depth)
    client = Client(core)
    for number in range(10):
        client.submit(number, [1, 2, 3])
    core.step()
    core.step()
    client.take()
    client.send(Abort(seq=0, epoch=EPOCH, numbers=[*range(10), 3, 99]))
    core.step()
    (answer,) = client.take()
    assert isinstance(answer, StepOutput)
    assert int64s(answer.rows).tolist() == list(range(10))
    assert set(answer.finishes) == {Finish.ABORT}


def test_an_abort_of_rows_that_have_ended_is_not_answered() -> None:
    core = JoinedCore()
    client = Client(core)
    client.send(Abort(seq=0, epoch=EPOCH, numbers=[1, 2, 3]))
    core.step()
    assert client.take() == []


@pytest.mark.parametrize("depth", [0, 1])
def test_nothing_follows_the_failure_of_a_row(depth: int) -> None:
    core = JoinedCore(depth=depth)
    core.runner.bad_seeds.add(1)
    client = Client(core)
    client.submit(0, [1, 2, 3])
    client.submit(1, [1, 2, 3], prompt_logprobs=0)
    failed_at = None
    for _ in range(12):
        core.step()
        for message in client.take():
            if isinstance(message, RequestFailed):
                assert (message.number, message.code, failed_at) == (1, "internal", None)
                failed_at = message.seq
            elif isinstance(message, StepOutput) and failed_at is not None:
                assert 1 not in int64s(message.rows)
                assert 1 not in int64s(message.started_rows)
            elif isinstance(message, PromptLogprobs):
                assert failed_at is None
    assert failed_at is not None


def test_prompt_logprobs_of_a_large_step_come_in_messages_that_are_let_through() -> None:
    length = 6000
    core = JoinedCore(budget=8192, max_model_len=8192, num_blocks=2048, max_logprobs=VOCAB)
    client = Client(core)
    client.submit(0, [5] * length, prompt_logprobs=VOCAB)
    core.step()
    frames = core.router.take(client.identity)
    assert max(len(frame) for message in frames for frame in message) <= MAX_MESSAGE_BYTES // 2
    parts = [message for message, _ in map(decode_from_engine, frames) if isinstance(message, PromptLogprobs)]
    assert len(parts) > 1
    assert [part.first for part in parts] == [1 + sum(len(p.ranks) // 4 for p in parts[:i]) for i in range(len(parts))]
    assert sum(len(float32s(part.logprobs)) for part in parts) == length - 1
    assert {part.width for part in parts} == {VOCAB}


def test_the_board_beats_no_earlier_than_the_peers_were_told() -> None:
    core = JoinedCore()
    client = Client(core)
    told: list[int] = []
    send = core.router.send

    def watched(frame: bytes, flags: int) -> None:
        if frame == client.identity:
            told.append(core.row.get("heartbeat_ns"))
        send(frame, flags)

    core.router.send = watched  # type: ignore[method-assign]  # a spy
    before = core.row.get("heartbeat_ns")
    deadline = time.monotonic() + 5
    while not told:
        assert time.monotonic() < deadline
        core.step()
    assert told[0] == before
    assert core.row.get("heartbeat_ns") > before


def test_the_next_life_of_a_row_takes_its_counters_over() -> None:
    core = JoinedCore()
    core.row.set("steps", 1000)
    client = Client(core)
    client.submit(0, [1, 2, 3])
    deadline = time.monotonic() + 5
    while core.row.get("steps") == 1000:
        assert time.monotonic() < deadline
        core.step()
    core.row.begin(9)
    assert core.row.get("steps") > 1000
    assert core.row.get("blocks_total") == 0
