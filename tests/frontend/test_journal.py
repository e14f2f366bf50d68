"""What a journal says is enough: another engine core, told by hand, goes on as the first would have."""

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TypeVar

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from frontend.journal import Journal, Prompt
from protocol.address import engine_address
from protocol.codec import decode_from_engine, decode_to_engine, encode, int32s
from protocol.lifecycle import Connection
from protocol.messages import (
    PROTOCOL_VERSION,
    EngineReady,
    Finish,
    Hello,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)
from protocol.sampling import Sampling
from protocol.sockets import connect_dealer
from tests.helpers.fake_engine import FakeEngine, next_token
from tests.protocol.golden_messages import SAMPLING, int32

T = TypeVar("T")
DEADLINE_MS = 5_000


class ByHand:
    """An API server's end, driven message by message."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], engine: FakeEngine) -> None:
        self.socket = connect_dealer(context, engine.address, 0)
        self.connection = Connection()
        self.send(Hello(seq=0, version=PROTOCOL_VERSION, place=0, life=1))
        self.wait_for(Welcome)
        self.wait_for(EngineReady)

    def send(self, message: ToEngine) -> None:
        self.connection.sent(message)
        self.socket.send(encode(message))

    def wait_for(self, kind: type[T]) -> T:
        while True:
            assert self.socket.poll(DEADLINE_MS), f"no {kind.__name__} came"
            message, _ = decode_from_engine(self.socket.recv_multipart())
            self.connection.received(message)
            if isinstance(message, kind):
                return message

    def take_tokens(self, journal: Journal, count: int | None = None) -> None:
        """Into the journal: so many tokens of its row, or all."""
        while count is None or len(journal.outputs) < count:
            step = self.wait_for(StepOutput)
            journal.outputs.append(int32s(step.tokens)[0])
            if step.finishes[0] != Finish.RUNNING:
                return


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    folder = Path(mkdtemp(prefix="headrace-"))
    yield folder
    rmtree(folder)


def prompt(**fields: object) -> Prompt:
    sampling = Sampling(seed=11, max_tokens=60)
    return Prompt(**({"ids": int32(5, 6, 7), "block_hashes": b"", "sampling": sampling} | fields))  # type: ignore[arg-type]


def test_a_request_replayed_by_hand_into_a_second_engine_goes_on_the_same_way(
    context: zmq.Context[zmq.Socket[bytes]], run_dir: Path
) -> None:
    journal = Journal(prompt(), number=4, choice=2)
    with FakeEngine(engine_address(run_dir, 0, 1), epoch=1) as first:
        hand = ByHand(context, first)
        hand.send(journal.to_submit(epoch=1, seq=1))
        hand.take_tokens(journal, 25)
        hand.socket.close(linger=0)
    assert len(journal.outputs) == 25
    journal.next_attempt()
    with FakeEngine(engine_address(run_dir, 0, 2), epoch=2) as second:
        hand = ByHand(context, second)
        hand.send(journal.to_submit(epoch=2, seq=1))
        hand.take_tokens(journal)
        hand.socket.close(linger=0)
        assert (second.submits[0].attempt, list(int32s(second.submits[0].outputs))) == (1, list(journal.outputs[:25]))
    assert list(journal.outputs) == [next_token(11 + 2, 3 + i, 256) for i in range(60)]


def test_the_first_submit_holds_the_whole_request() -> None:
    whole = prompt(sampling=SAMPLING, block_hashes=bytes(16), salt="s", priority=-2, prompt_logprobs=1)
    submit = Journal(whole, number=7, choice=0).first_submit(epoch=9, seq=3, num_choices=4)
    assert submit == Submit(
        seq=3,
        epoch=9,
        number=7,
        num_choices=4,
        prompt=whole.ids,
        block_hashes=bytes(16),
        sampling=SAMPLING,
        salt="s",
        priority=-2,
        prompt_logprobs=1,
    )


@given(st.integers(0, 2**64 - 1), st.integers(0, 15), st.lists(st.integers(0, 2**31 - 1), max_size=20))
def test_a_replayed_choice_is_one_row_with_its_own_seed(seed: int, choice: int, outputs: list[int]) -> None:
    journal = Journal(prompt(sampling=Sampling(seed=seed, max_tokens=60)), number=choice, choice=choice)
    journal.outputs.extend(outputs)
    journal.next_attempt()
    submit = decode_to_engine([encode(journal.to_submit(epoch=1, seq=0))])
    assert isinstance(submit, Submit)
    assert (submit.num_choices, submit.attempt) == (1, 1)
    assert submit.sampling == Sampling(seed=(seed + choice) % 2**64, max_tokens=60)
    assert list(int32s(submit.outputs)) == outputs


@pytest.mark.parametrize(("choice", "outputs", "asked"), [(0, [], 3), (0, [1], None), (1, [], None)])
def test_prompt_logprobs_that_have_come_are_not_asked_again(choice: int, outputs: list[int], asked: int | None) -> None:
    journal = Journal(prompt(prompt_logprobs=3), number=choice, choice=choice)
    journal.outputs.extend(outputs)
    assert journal.to_submit(epoch=1, seq=0).prompt_logprobs == asked


def test_only_attempts_in_a_row_without_a_token_are_fruitless() -> None:
    journal = Journal(prompt(), number=0, choice=0)
    counted = []
    for tokens in ([], [], [5], [], [6, 7], []):
        journal.outputs.extend(tokens)
        journal.next_attempt()
        counted.append(journal.fruitless)
    assert counted == [1, 2, 0, 1, 0, 1]
    assert journal.attempt == 6
