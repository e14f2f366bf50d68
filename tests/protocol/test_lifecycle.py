"""Two ends joined through bytes: whatever each of them does next, they agree on the connection and on every row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import decode_from_engine, decode_to_engine, encode
from protocol.errors import PeerError
from protocol.lifecycle import Connection, Link, Row, RowEvent, next_row
from protocol.messages import (
    Abort,
    Finish,
    FromEngine,
    Heartbeat,
    Hello,
    RequestFailed,
    StepOutput,
    Submit,
    ToEngine,
)
from protocol.sampling import Sampling
from tests.protocol.golden_messages import EPOCH, FROM_ENGINE, TO_ENGINE, int32, int64


def hello(seq: int = 0) -> Hello:
    return Hello(seq=seq, version=1, place=0, life=1)


def heartbeat(seq: int) -> Heartbeat:
    return Heartbeat(
        seq=seq, epoch=EPOCH, step=0, num_running=0, num_waiting=0, num_waiting_tokens=0, num_blocks_used=0
    )


class ApiEnd:
    """As much of an API server as the rules are about."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.rows: dict[int, Row] = {}
        self.ends: dict[int, int] = {}
        self.next_number = 0

    def say_hello(self) -> bytes:
        return self._send(hello(self.connection.next_sent))

    def submit(self, num_choices: int) -> bytes:
        number, self.next_number = self.next_number, self.next_number + num_choices
        self.rows.update((number + choice, Row.OPEN) for choice in range(num_choices))
        return self._send(
            Submit(
                seq=self.connection.next_sent,
                epoch=EPOCH,
                number=number,
                num_choices=num_choices,
                prompt=int32(1),
                sampling=Sampling(seed=0, max_tokens=1),
            )
        )

    def abort(self, number: int) -> bytes:
        self.rows[number] = next_row(self.rows[number], RowEvent.ABORT)
        return self._send(Abort(seq=self.connection.next_sent, epoch=EPOCH, numbers=[number]))

    def take(self, frame: bytes) -> None:
        message, _ = decode_from_engine([frame])
        self.connection.received(message)
        if isinstance(message, StepOutput):
            row = int.from_bytes(message.rows, "little")
            self._advance(row, RowEvent.FINISH if message.finishes[0] else RowEvent.OUTPUT)
        elif isinstance(message, RequestFailed):
            self._advance(message.number, RowEvent.FAILED)

    def _advance(self, row: int, event: RowEvent) -> None:
        self.rows[row] = next_row(self.rows[row], event)  # raises where anything follows an end
        self.ends[row] = self.ends.get(row, 0) + (self.rows[row] is Row.ENDED)

    def _send(self, message: ToEngine) -> bytes:
        self.connection.sent(message)
        return encode(message)


class EngineEnd:
    """As much of an engine core."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.rows: dict[int, Row] = {}

    @property
    def seq(self) -> int:
        return self.connection.next_sent

    def take(self, frame: bytes) -> None:
        message = decode_to_engine([frame])
        self.connection.received(message)
        if isinstance(message, Submit):
            self.rows.update((message.number + choice, Row.OPEN) for choice in range(message.num_choices))
        elif isinstance(message, Abort):
            for number in message.numbers:
                self.rows[number] = next_row(self.rows[number], RowEvent.ABORT)

    def send(self, message: FromEngine) -> bytes:
        self.connection.sent(message)
        return encode(message)

    def output(self, row: int, finish: Finish) -> bytes:
        self.rows[row] = next_row(self.rows[row], RowEvent.FINISH if finish else RowEvent.OUTPUT)
        return self.send(
            StepOutput(seq=self.seq, epoch=EPOCH, step=0, rows=int64(row), tokens=int32(0), finishes=bytes([finish]))
        )

    def fail(self, row: int) -> bytes:
        self.rows[row] = next_row(self.rows[row], RowEvent.FAILED)
        return self.send(RequestFailed(seq=self.seq, epoch=EPOCH, number=row, code="internal", message="x"))

    def open_rows(self) -> list[int]:
        return [number for number, state in self.rows.items() if state is not Row.ENDED]


class Joined:
    """Both ends, and the bytes on their way between them."""

    def __init__(self) -> None:
        self.api, self.engine = ApiEnd(), EngineEnd()
        self.to_engine: list[bytes] = [self.api.say_hello()]
        self.to_api: list[bytes] = []

    def deliver_all(self) -> None:
        while self.to_engine:
            self.engine.take(self.to_engine.pop(0))
        while self.to_api:
            self.api.take(self.to_api.pop(0))

    def become_ready(self) -> None:
        self.deliver_all()
        self.to_api.append(self.engine.send(FROM_ENGINE["welcome"]))
        self.to_api.append(self.engine.send(FROM_ENGINE["engine_ready"]))
        self.deliver_all()

    def act(self, data: st.DataObject) -> None:
        action = data.draw(st.sampled_from(["submit", "abort", "output", "fail", "beat", "take_mail", "take_answers"]))
        if action == "submit":
            self.to_engine.append(self.api.submit(data.draw(st.integers(1, 3))))
        elif action == "abort" and self.api.rows:
            self.to_engine.append(self.api.abort(data.draw(st.sampled_from(sorted(self.api.rows)))))
        elif action == "beat":
            self.to_api.append(self.engine.send(heartbeat(self.engine.seq)))
        elif action == "take_mail" and self.to_engine:
            self.engine.take(self.to_engine.pop(0))
        elif action == "take_answers" and self.to_api:
            self.api.take(self.to_api.pop(0))
        elif action in ("output", "fail") and self.engine.open_rows():
            row = data.draw(st.sampled_from(self.engine.open_rows()))
            finish = data.draw(st.sampled_from([Finish.RUNNING, Finish.EOS, Finish.ABORT]))
            self.to_api.append(self.engine.fail(row) if action == "fail" else self.engine.output(row, finish))


@settings(deadline=None)
@given(st.data())
def test_both_ends_agree_however_their_messages_cross(data: st.DataObject) -> None:
    joined = Joined()
    joined.become_ready()
    for _ in range(data.draw(st.integers(0, 40))):
        joined.act(data)
    joined.deliver_all()
    for row in joined.engine.open_rows():
        joined.to_api.append(joined.engine.output(row, Finish.LENGTH))
    joined.deliver_all()
    assert set(joined.api.rows.values()) <= {Row.ENDED}
    assert joined.api.ends == dict.fromkeys(joined.api.rows, 1)
    assert joined.engine.rows.keys() == joined.api.rows.keys()


def test_a_gap_in_the_numbers_is_an_error() -> None:
    connection = Connection()
    with pytest.raises(PeerError, match="gap"):
        connection.received(hello(1))


def test_a_message_that_comes_twice_is_an_error() -> None:
    connection = Connection()
    connection.received(hello())
    with pytest.raises(PeerError, match="gap"):
        connection.received(hello())


@pytest.mark.parametrize("name", [name for name in TO_ENGINE if name != "hello"])
def test_nothing_but_hello_comes_first(name: str) -> None:
    first = TO_ENGINE[name]
    connection = Connection()
    connection.next_received = first.seq
    with pytest.raises(PeerError, match="not legal"):
        connection.received(first)


def test_nothing_is_submitted_before_the_engine_is_ready() -> None:
    joined = Joined()
    joined.deliver_all()
    joined.to_api.append(joined.engine.send(FROM_ENGINE["welcome"]))
    joined.deliver_all()
    assert joined.api.connection.link is Link.WELCOMED
    with pytest.raises(PeerError, match="not legal"):
        joined.api.submit(1)


@pytest.mark.parametrize("event", [RowEvent.OUTPUT, RowEvent.FINISH, RowEvent.FAILED, RowEvent.EPOCH_END])
def test_nothing_of_a_row_comes_after_its_end(event: RowEvent) -> None:
    with pytest.raises(PeerError, match="ended"):
        next_row(Row.ENDED, event)


def test_an_abort_may_cross_the_end() -> None:
    assert next_row(Row.ENDED, RowEvent.ABORT) is Row.ENDED
