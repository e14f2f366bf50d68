"""The bytes of each message stay what they are: both ends may be of different builds."""

from typing import get_args

import msgspec
import pytest

from protocol.codec import decode_from_engine, decode_to_engine, encode
from protocol.messages import FromEngine, ToEngine
from tests.protocol.golden_messages import FOLDER, FROM_ENGINE, SECOND_FRAME, TO_ENGINE


def golden(name: str) -> bytes:
    return (FOLDER / f"{name}.msgpack").read_bytes()


def test_every_message_has_its_golden_bytes() -> None:
    assert {type(message) for message in TO_ENGINE.values()} == set(get_args(ToEngine))
    assert {type(message) for message in FROM_ENGINE.values()} == set(get_args(FromEngine))
    files = {path.stem for path in FOLDER.iterdir()}
    assert files == set(TO_ENGINE) | set(FROM_ENGINE) | set(SECOND_FRAME)


@pytest.mark.parametrize("name", [*TO_ENGINE, *FROM_ENGINE, *SECOND_FRAME])
def test_a_message_is_written_as_its_golden_bytes(name: str) -> None:
    message = (TO_ENGINE | FROM_ENGINE | SECOND_FRAME)[name]
    assert encode(message) == golden(name)


@pytest.mark.parametrize("name", TO_ENGINE)
def test_golden_bytes_to_the_engine_are_read_back(name: str) -> None:
    assert decode_to_engine([golden(name)]) == TO_ENGINE[name]


@pytest.mark.parametrize("name", FROM_ENGINE)
def test_golden_bytes_from_the_engine_are_read_back(name: str) -> None:
    assert decode_from_engine([golden(name)]) == (FROM_ENGINE[name], None)


def test_a_second_frame_is_read_back() -> None:
    frames = [golden("step_output"), golden("step_logprobs")]
    assert decode_from_engine(frames) == (FROM_ENGINE["step_output"], SECOND_FRAME["step_logprobs"])


def test_a_field_that_a_newer_peer_adds_is_passed_over() -> None:
    newer = msgspec.msgpack.decode(golden("abort")) | {"later": True}
    assert decode_to_engine([msgspec.msgpack.encode(newer)]) == TO_ENGINE["abort"]
