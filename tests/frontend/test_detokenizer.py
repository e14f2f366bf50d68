import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.detokenizer import make_detokenizer
from frontend.tokenizer import Tokenizer
from tests.helpers.corpus import TEXTS
from tests.helpers.sentencepiece_files import FIRST_PIECE

SMILE = "\U0001f600"


def pieces(tokenizer: Tokenizer, parts: Sequence[Sequence[int]], *, skip: bool = True) -> list[str]:
    detokenizer = make_detokenizer(tokenizer, skip_special_tokens=skip)
    return [*(detokenizer.push(part) for part in parts), detokenizer.flush()]


@st.composite
def split_ids(draw: st.DrawFn, vocab_size: int, favourites: Sequence[int]) -> list[list[int]]:
    """Any ids of the vocabulary and a few past it, bytes and special tokens often, cut anywhere."""
    one = st.integers(0, vocab_size + 3) | st.sampled_from(favourites)
    ids = draw(st.lists(one, max_size=40))
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=len(ids))))
    return [ids[start:end] for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


@pytest.fixture(scope="module")
def broken_ids(demo_tokenizer: Tokenizer) -> list[int]:
    """Tokens that are no whole characters by themselves, and the special ones."""
    broken = [i for i, unit in enumerate(demo_tokenizer.unit_table) if isinstance(unit, bytes)]
    return [*broken, *demo_tokenizer.special_ids]


@settings(max_examples=1000, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_byte_level_pieces_are_the_whole_text(
    demo_tokenizer: Tokenizer, broken_ids: list[int], data: st.DataObject, skip: bool
) -> None:
    parts = data.draw(split_ids(demo_tokenizer.vocab_size, broken_ids))
    whole = demo_tokenizer.decode([i for part in parts for i in part], skip_special_tokens=skip)
    assert "".join(pieces(demo_tokenizer, parts, skip=skip)) == whole


@settings(max_examples=1000, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_sentencepiece_pieces_are_the_whole_text(
    sentencepiece_tokenizer: Tokenizer, data: st.DataObject, skip: bool
) -> None:
    parts = data.draw(split_ids(sentencepiece_tokenizer.vocab_size, range(FIRST_PIECE)))
    whole = sentencepiece_tokenizer.decode([i for part in parts for i in part], skip_special_tokens=skip)
    assert "".join(pieces(sentencepiece_tokenizer, parts, skip=skip)) == whole


@pytest.mark.parametrize("text", TEXTS[:-1])
def test_a_text_is_given_back_token_by_token(
    text: str, demo_tokenizer: Tokenizer, sentencepiece_tokenizer: Tokenizer
) -> None:
    for tokenizer in (demo_tokenizer, sentencepiece_tokenizer):
        ids = tokenizer.encode(text, add_special_tokens=False)
        shown = "".join(pieces(tokenizer, [[i] for i in ids], skip=False))
        assert shown == tokenizer.decode(ids, skip_special_tokens=False)
        assert tokenizer is sentencepiece_tokenizer or shown == text


def test_no_piece_breaks_a_character(demo_tokenizer: Tokenizer) -> None:
    ids = demo_tokenizer.encode(SMILE, add_special_tokens=False)
    assert len(ids) > 1
    assert pieces(demo_tokenizer, [[i] for i in ids]) == [*[""] * (len(ids) - 1), SMILE, ""]


def test_an_unfinished_character_is_shown_at_the_end(demo_tokenizer: Tokenizer) -> None:
    first = demo_tokenizer.encode(SMILE, add_special_tokens=False)[0]
    assert pieces(demo_tokenizer, [[first]]) == ["", "\ufffd"]


def test_a_run_of_bytes_is_decided_by_its_last_one(sentencepiece_tokenizer: Tokenizer) -> None:
    smile = [3 + byte for byte in SMILE.encode()]
    end = [FIRST_PIECE]
    shown = pieces(sentencepiece_tokenizer, [smile, end])
    assert shown[0] == ""
    assert shown[1].startswith(SMILE)
    assert pieces(sentencepiece_tokenizer, [smile, [3 + 0xFF], end])[2].startswith("\ufffd" * 5)


def test_only_the_beginning_of_a_text_loses_its_space(sentencepiece_tokenizer: Tokenizer) -> None:
    ids = sentencepiece_tokenizer.encode("the", add_special_tokens=False)
    assert make_detokenizer(sentencepiece_tokenizer, skip_special_tokens=True).push(ids) == "the"
    after_prompt = make_detokenizer(sentencepiece_tokenizer, skip_special_tokens=True, starts_text=False)
    assert after_prompt.push(ids) == " the"


def undecodable(tokenizer: Tokenizer, count: int) -> list[int]:
    chosen = random.Random(7)
    if tokenizer.vocab_size < 1000:
        return [3 + chosen.randrange(0x80, 0x100) for _ in range(count)]
    lead = [
        i
        for i, unit in enumerate(tokenizer.unit_table)
        if isinstance(unit, bytes) and unit[0] >= 0xE0 and len(unit) == 1
    ]
    return [chosen.choice(lead) for _ in range(count)]


@pytest.mark.parametrize("kind", ["demo_tokenizer", "sentencepiece_tokenizer"])
def test_ten_thousand_undecodable_bytes_take_linear_time(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)

    def seconds(count: int) -> float:
        parts = [[i] for i in undecodable(tokenizer, count)]
        began = time.thread_time()
        text = "".join(pieces(tokenizer, parts))
        took = time.thread_time() - began
        assert text == tokenizer.decode([i for part in parts for i in part], skip_special_tokens=True)
        return took

    # A quadratic one takes 25 times as long for five times as many.
    assert min(seconds(10_000) for _ in range(3)) < 12 * min(seconds(2_000) for _ in range(3))
    assert seconds(10_000) < 0.5
