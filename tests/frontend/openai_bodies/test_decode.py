"""Decoding hostile bodies, and the agreement of the bodies' bounds with the protocol's."""

import time
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.errors import ApiError
from frontend.openai_bodies.chat import ChatBody
from frontend.openai_bodies.completion import CompletionBody
from frontend.openai_bodies.decode import BodyDecoder
from frontend.openai_bodies.fields import SamplingFields
from protocol.sampling import Sampling, check_sampling

CHAT = BodyDecoder(ChatBody, max_depth=64, allow_unknown_fields=False)
TEXT = BodyDecoder(CompletionBody, max_depth=64, allow_unknown_fields=False)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([field.name for field in msgspec.structs.fields(CompletionBody)])


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_body_or_a_400(data: bytes) -> None:
    try:
        assert isinstance(TEXT.decode(data), CompletionBody)
    except ApiError as error:
        assert error.status == 400


@given(st.dictionaries(NAMES | st.text(max_size=6), JSON, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_object_is_a_body_or_a_400_that_names_a_field_of_it(fields: dict[str, object]) -> None:
    try:
        TEXT.decode(msgspec.json.encode({"prompt": "x"} | fields))
    except ApiError as error:
        assert error.status == 400
        assert error.param is not None
        assert error.param == "" or any(error.param.startswith(name) for name in fields)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":"' + b'[\\"' * 2_000_000,
        b'"\\' * 3_000_000 + b"[" * 70,
        b"[" * 6_000_000,
        b'{"a":' * 1_000_000,
        b'"' * 6_000_001 + b"[" * 70,
    ],
    ids=["string without end", "escapes", "brackets", "objects", "quotes"],
)
def test_hostile_nesting_costs_linear_time(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ApiError):
        CHAT.decode(data)
    assert time.process_time() - began < 3.0


def test_depth_counts_up_to_the_limit() -> None:
    def nested(depth: int) -> bytes:
        return b'{"prompt":"x","user":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    TEXT.decode(nested(64))
    with pytest.raises(ApiError, match="64 levels"):
        TEXT.decode(nested(65))


def bounds_of(name: str) -> list[float]:
    """The values that a field's bounds just allow."""
    (kind,) = (field.type for field in msgspec.structs.fields(SamplingFields) if field.name == name)
    metas = [meta for arm in typing.get_args(kind) for meta in getattr(arm, "__metadata__", ())]
    lowest = [meta.ge if meta.ge is not None else meta.gt + 1e-9 for meta in metas]
    return [*lowest, *(meta.le for meta in metas)]


@pytest.mark.parametrize(
    "name", ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"]
)
def test_what_a_body_allows_the_protocol_allows(name: str) -> None:
    values = bounds_of(name)
    assert len(values) == 2
    for value in values:
        sampling = msgspec.structs.replace(Sampling(seed=1, max_tokens=1), **{name: value})
        check_sampling(sampling, vocab_size=256, max_logprobs=20)
