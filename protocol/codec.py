"""Messages to frames and back: one typed decoder per direction, and a check that parallel arrays are parallel.

Anything that does not decode raises `PeerError`, which ends the peer that sent it and nobody else.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from protocol.errors import PeerError
from protocol.messages import FromEngine, PromptLogprobs, StepLogprobs, StepOutput, Submit, ToEngine

_encoder = msgspec.msgpack.Encoder()
_to_engine = msgspec.msgpack.Decoder(ToEngine)
_from_engine = msgspec.msgpack.Decoder(FromEngine)
_step_logprobs = msgspec.msgpack.Decoder(StepLogprobs)


def encode(message: ToEngine | FromEngine | StepLogprobs) -> bytes:
    """One message as one frame."""
    return _encoder.encode(message)


def decode_to_engine(frames: Sequence[bytes]) -> ToEngine:
    """What an API server sent. Raises `PeerError`."""
    if len(frames) != 1:
        raise PeerError(f"a message to the engine is one frame, not {len(frames)}")
    message: ToEngine = _decode(_to_engine, frames[0])
    if isinstance(message, Submit):
        _check_submit(message)
    return message


def decode_from_engine(frames: Sequence[bytes]) -> tuple[FromEngine, StepLogprobs | None]:
    """What an engine core sent, with the log-probabilities of a `StepOutput` where it has them. Raises `PeerError`."""
    if not 1 <= len(frames) <= 2:
        raise PeerError(f"a message from the engine is one or two frames, not {len(frames)}")
    message: FromEngine = _decode(_from_engine, frames[0])
    if isinstance(message, StepOutput):
        _check_step_output(message)
    elif isinstance(message, PromptLogprobs):
        _check_prompt_logprobs(message)
    if len(frames) == 1:
        return message, None
    if not isinstance(message, StepOutput):
        raise PeerError(f"{type(message).__name__} has no second frame")
    logprobs: StepLogprobs = _decode(_step_logprobs, frames[1])
    _check_step_logprobs(logprobs, num_tokens=len(message.finishes))
    return message, logprobs


def int32s(data: bytes) -> "memoryview[int]":
    """A view of int32 values; native order is little-endian on every machine that Headrace runs on."""
    return memoryview(data).cast("i")


def int64s(data: bytes) -> "memoryview[int]":
    """A view of int64 values."""
    return memoryview(data).cast("q")


def float32s(data: bytes) -> "memoryview[float]":
    """A view of float32 values."""
    return memoryview(data).cast("f")


def _decode(decoder: msgspec.msgpack.Decoder[Any], frame: bytes) -> Any:
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise PeerError(f"undecodable frame of {len(frame)} bytes: {error}") from error


def _check_submit(message: Submit) -> None:
    _require(len(message.prompt) % 4 == 0 and len(message.prompt) > 0, "prompt is a non-empty int32 array")
    _require(len(message.outputs) % 4 == 0, "outputs is an int32 array")
    _require(not message.outputs or message.num_choices == 1, "a Submit with outputs has one choice")


def _check_step_output(message: StepOutput) -> None:
    count = len(message.finishes)
    _require(len(message.rows) == 8 * count and len(message.tokens) == 4 * count, "StepOutput's arrays are parallel")
    started = len(message.started_cached) // 4
    _require(
        len(message.started_rows) == 8 * started
        and len(message.started_cached) == len(message.started_queue_us) == 4 * started,
        "StepOutput's started arrays are parallel",
    )


def _check_step_logprobs(message: StepLogprobs, *, num_tokens: int) -> None:
    count = len(message.index) // 4
    parallel = all(len(a) == 4 * count for a in (message.index, message.logprobs, message.ranks, message.widths))
    _require(parallel, "StepLogprobs' arrays are parallel")
    _require(all(0 <= i < num_tokens for i in int32s(message.index)), "StepLogprobs' index is within the step")
    widths = int32s(message.widths)
    total = sum(widths)
    _require(all(width >= 0 for width in widths), "StepLogprobs' widths are not negative")
    _require(len(message.top_ids) == len(message.top_logprobs) == 4 * total, "StepLogprobs' alternatives match widths")


def _check_prompt_logprobs(message: PromptLogprobs) -> None:
    count = len(message.logprobs) // 4
    parallel = len(message.logprobs) == len(message.ranks) == 4 * count
    _require(parallel, "PromptLogprobs' arrays are parallel")
    alternatives = 4 * count * message.width
    _require(len(message.top_ids) == len(message.top_logprobs) == alternatives, "PromptLogprobs' alternatives match")


def _require(holds: bool, rule: str) -> None:  # noqa: FBT001 - a condition, not a flag
    if not holds:
        raise PeerError(f"broken rule: {rule}")
