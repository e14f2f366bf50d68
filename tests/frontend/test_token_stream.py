"""One row alone: whatever the engine sends in a legal order, its listener hears of one end and of nothing after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import ApiError, internal
from frontend.journal import Journal, Prompt
from frontend.request import Delta, Lane
from frontend.stop_strings import StopChecker
from frontend.token_stream import TokenStream
from protocol.errors import PeerError
from protocol.lifecycle import Row
from protocol.messages import Finish, PromptLogprobs
from protocol.sampling import Sampling
from tests.protocol.golden_messages import FROM_ENGINE, int32


class Letters:
    """A decoder whose token ids are code points."""

    def push(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def push_one(self, token_id: int) -> str:
        return chr(token_id)

    def flush(self) -> str:
        return ""


@dataclass
class Listener:
    deltas: list[Delta] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    errors: list[ApiError] = field(default_factory=list)
    prompt_logprobs: list[PromptLogprobs] = field(default_factory=list)

    def on_token(self, now: float, last: float | None) -> None: ...

    def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def on_started(self, num_cached: int) -> None:
        self.cached.append(num_cached)

    def on_prompt_logprobs(self, message: PromptLogprobs) -> None:
        self.prompt_logprobs.append(message)

    def on_row_failed(self, error: ApiError) -> None:
        self.errors.append(error)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def num_ends(self) -> int:
        return len(self.errors) + sum(delta.finish_reason is not None for delta in self.deltas)


def row(*stops: str, min_tokens: int = 0, include_stop: bool = False) -> tuple[TokenStream, Listener]:
    listener = Listener()
    prompt = Prompt(ids=int32(1), block_hashes=b"", sampling=Sampling(seed=0, max_tokens=100))
    stream = TokenStream(
        Journal(prompt, number=5, choice=0),
        decoder=Letters(),
        stops=StopChecker(stops, include_stop_str_in_output=include_stop) if stops else None,
        min_tokens=min_tokens,
        include_stop=include_stop,
        listener=listener,
        lane=Lane(),
    )
    return stream, listener


@given(st.text("abc", max_size=30), st.text("abc", min_size=1, max_size=3))
def test_text_is_cut_at_the_first_stop_string_and_billed_up_to_it(text: str, stop: str) -> None:
    stream, listener = row(stop)
    stopped = [stream.push(ord(char), Finish.RUNNING, 0.0, hold=False) for char in text]
    stream.push(ord("x"), Finish.LENGTH, 0.0, hold=False)
    at = text.find(stop)
    if at < 0:
        assert (listener.text, stopped) == (text + "x", [False] * len(text))
        assert listener.deltas[-1].finish_reason == "length"
        return
    end = at + len(stop)
    assert listener.text == text[:at]
    assert "".join(map(chr, stream.journal.outputs)) == text[:end]
    assert (listener.deltas[-1].finish_reason, listener.deltas[-1].stop_reason) == ("stop", stop)
    assert stopped == [index == end - 1 for index in range(len(text))], "the engine is told once"
    assert listener.num_ends == 1


@given(st.lists(st.sampled_from(["token", "stop", "abort", "finish", "fail", "lose"]), max_size=20))
def test_there_is_one_end_and_nothing_after_it(events: list[str]) -> None:
    stream, listener = row("z")
    heard_at_end: int | None = None
    for event in events:
        if stream.state is Row.ENDED:
            break
        if event in ("token", "stop", "finish"):
            finish = Finish.EOS if event == "finish" else Finish.RUNNING
            stream.push(ord("z" if event == "stop" else "a"), finish, 0.0, hold=False)
        elif event == "abort":
            stream.abort()
        elif event == "fail":
            stream.fail(internal("x"))
        elif stream.lose():
            assert stream.state is Row.OPEN
        heard = len(listener.deltas) + len(listener.errors)
        if heard_at_end is not None:
            assert heard == heard_at_end
        elif stream.state is not Row.OPEN:
            heard_at_end = heard
    assert listener.num_ends <= 1
    assert len(stream.journal.outputs) == sum(len(delta.token_ids) for delta in listener.deltas)


def test_a_stop_string_in_the_last_token_wins_over_its_length() -> None:
    stream, listener = row("b")
    stream.push(ord("a"), Finish.RUNNING, 0.0, hold=False)
    assert stream.push(ord("b"), Finish.LENGTH, 0.0, hold=False) is False, "the engine has ended it already"
    assert (listener.text, listener.deltas[-1].finish_reason, listener.deltas[-1].stop_reason) == ("a", "stop", "b")
    assert stream.state is Row.ENDED


def test_the_first_tokens_are_not_searched_for_stop_strings() -> None:
    stream, listener = row("a", min_tokens=2)
    for char in "aaxa":
        stream.push(ord(char), Finish.RUNNING, 0.0, hold=False)
    assert (listener.text, listener.num_ends) == ("aax", 1)


@pytest.mark.parametrize("finish", [Finish.ABORT, 9])
def test_an_end_that_nobody_asked_for_breaks_the_protocol(finish: int) -> None:
    stream, _ = row()
    with pytest.raises(PeerError, match="row 5"):
        stream.push(1, finish, 0.0, hold=False)


def test_an_aborted_row_ends_in_silence() -> None:
    stream, listener = row()
    stream.abort()
    message = FROM_ENGINE["prompt_logprobs"]
    assert isinstance(message, PromptLogprobs)
    stream.started(3)
    stream.prompt_logprobs(message)
    stream.push(1, Finish.RUNNING, 0.0, hold=False)
    stream.push(0, Finish.ABORT, 0.0, hold=False)
    assert stream.state is Row.ENDED
    assert (listener.num_ends, listener.deltas, listener.cached, listener.prompt_logprobs) == (0, [], [], [])


def test_only_the_first_attempts_cached_tokens_count() -> None:
    stream, listener = row()
    stream.started(16)
    assert stream.lose()
    stream.started(32)
    assert listener.cached == [16]
