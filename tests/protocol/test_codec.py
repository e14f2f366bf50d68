"""Whatever bytes come, a decoder gives a message whose arrays are parallel, or raises `PeerError`: nothing else."""

from array import array
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import decode_from_engine, decode_to_engine, encode, float32s, int32s, int64s
from protocol.errors import PeerError
from protocol.messages import Abort, Hello, StepLogprobs, StepOutput, Submit
from protocol.sampling import Sampling
from tests.protocol.golden_messages import FROM_ENGINE, SECOND_FRAME, TO_ENGINE, int32, int64

counts = st.integers(0, 2**62)
epochs = st.integers(0, 2**64 - 1)
words = st.integers(-(2**31), 2**31 - 1)
int32_arrays = st.lists(words, max_size=8).map(lambda values: array("i", values).tobytes())
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def decoded_or_refused(frames: list[bytes]) -> None:
    for decode in (decode_to_engine, decode_from_engine):
        try:
            decode(frames)
        except PeerError as error:
            assert str(error)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_are_decoded_or_refused(frames: list[bytes]) -> None:
    decoded_or_refused(frames)


@given(plain)
def test_any_msgpack_is_decoded_or_refused(value: Any) -> None:
    decoded_or_refused([msgspec.msgpack.encode(value)])


@given(st.sampled_from([*TO_ENGINE.values(), *FROM_ENGINE.values()]), st.data())
def test_a_message_with_any_field_replaced_is_decoded_or_refused(message: Any, data: st.DataObject) -> None:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,))
    field = data.draw(st.sampled_from(sorted(fields)))
    fields[field] = data.draw(plain)
    decoded_or_refused([msgspec.msgpack.encode(fields)])


@given(st.sampled_from([*TO_ENGINE.values(), *FROM_ENGINE.values()]), st.data())
def test_a_truncated_message_is_refused(message: Any, data: st.DataObject) -> None:
    whole = encode(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for decode in (decode_to_engine, decode_from_engine):
        with pytest.raises(PeerError):
            decode([cut])


@given(counts, epochs, st.lists(counts, max_size=5))
def test_aborts_come_back(seq: int, epoch: int, numbers: list[int]) -> None:
    message = Abort(seq=seq, epoch=epoch, numbers=numbers)
    assert decode_to_engine([encode(message)]) == message


@given(counts, epochs, st.lists(words, min_size=1, max_size=50), int32_arrays, st.text(max_size=10), epochs)
def test_submits_come_back(seq: int, epoch: int, prompt: list[int], outputs: bytes, salt: str, seed: int) -> None:
    message = Submit(
        seq=seq,
        epoch=epoch,
        number=7,
        prompt=array("i", prompt).tobytes(),
        outputs=outputs,
        sampling=Sampling(seed=seed, max_tokens=3),
        salt=salt,
    )
    decoded = decode_to_engine([encode(message)])
    assert decoded == message
    assert isinstance(decoded, Submit)
    assert list(int32s(decoded.prompt)) == prompt


@given(counts, epochs, st.lists(st.tuples(counts, words, st.integers(0, 255)), max_size=20))
def test_step_outputs_come_back(seq: int, epoch: int, rows: list[tuple[int, int, int]]) -> None:
    message = StepOutput(
        seq=seq,
        epoch=epoch,
        step=1,
        rows=int64(*(row for row, _, _ in rows)),
        tokens=int32(*(token for _, token, _ in rows)),
        finishes=bytes(finish for _, _, finish in rows),
    )
    decoded, logprobs = decode_from_engine([encode(message)])
    assert (decoded, logprobs) == (message, None)
    assert isinstance(decoded, StepOutput)
    assert list(zip(int64s(decoded.rows), int32s(decoded.tokens), decoded.finishes, strict=True)) == rows


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"prompt": b""}, "prompt"),
        ({"prompt": b"123"}, "prompt"),
        ({"outputs": b"12345"}, "outputs"),
        ({"num_choices": 2}, "one choice"),
        ({"num_choices": 0}, "num_choices"),
        ({"num_choices": 1025}, "num_choices"),
    ],
)
def test_a_submit_that_breaks_a_rule_is_refused(change: dict[str, Any], rule: str) -> None:
    wrong = msgspec.structs.replace(TO_ENGINE["submit"], **change)
    with pytest.raises(PeerError, match=rule):
        decode_to_engine([encode(wrong)])


@pytest.mark.parametrize("field", ["rows", "tokens", "finishes", "started_rows", "started_cached", "started_queue_us"])
def test_a_step_output_whose_arrays_are_not_parallel_is_refused(field: str) -> None:
    wrong = msgspec.structs.replace(FROM_ENGINE["step_output"], **{field: b""})
    with pytest.raises(PeerError, match="parallel"):
        decode_from_engine([encode(wrong)])


@pytest.mark.parametrize(
    "change",
    [
        {"index": int32(2)},
        {"index": int32(-1)},
        {"widths": int32(-2)},
        {"widths": int32(3)},
        {"logprobs": b""},
        {"ranks": b"1"},
        {"top_ids": b""},
    ],
)
def test_step_logprobs_that_do_not_fit_their_step_are_refused(change: dict[str, bytes]) -> None:
    wrong: StepLogprobs = msgspec.structs.replace(SECOND_FRAME["step_logprobs"], **change)
    with pytest.raises(PeerError, match="StepLogprobs"):
        decode_from_engine([encode(FROM_ENGINE["step_output"]), encode(wrong)])


@pytest.mark.parametrize("change", [{"logprobs": b""}, {"ranks": b"123"}, {"width": 2}, {"top_ids": b""}])
def test_prompt_logprobs_whose_arrays_are_not_parallel_are_refused(change: dict[str, Any]) -> None:
    wrong = msgspec.structs.replace(FROM_ENGINE["prompt_logprobs"], **change)
    with pytest.raises(PeerError, match="PromptLogprobs"):
        decode_from_engine([encode(wrong)])


def test_only_a_step_output_has_a_second_frame() -> None:
    with pytest.raises(PeerError, match="second frame"):
        decode_from_engine([encode(FROM_ENGINE["heartbeat"]), encode(SECOND_FRAME["step_logprobs"])])


def test_a_message_to_the_engine_is_one_frame() -> None:
    hello = encode(Hello(seq=0, version=1, place=0, life=1))
    for frames in ([], [hello, hello]):
        with pytest.raises(PeerError, match="one frame"):
            decode_to_engine(frames)


def test_nesting_bombs_are_refused() -> None:
    decoded_or_refused([b"\x91" * 1_000_000])
    decoded_or_refused([b"\x81\xa4type" * 100_000])


def test_floats_are_read_as_they_were_written() -> None:
    assert list(float32s(array("f", [-0.5, 1.25]).tobytes())) == [-0.5, 1.25]
