import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.tokenizer import Tokenizer, TokenizerError
from tests.helpers.corpus import TEXTS

SMILE = "\U0001f600"


def test_text_goes_to_ids_and_back(demo_tokenizer: Tokenizer) -> None:
    ids = demo_tokenizer.encode("Hello, wörld!", add_special_tokens=True)
    assert ids[0] == 19556
    assert demo_tokenizer.decode(ids, skip_special_tokens=True) == "Hello, wörld!"


def test_special_tokens_are_shown_or_skipped(demo_tokenizer: Tokenizer) -> None:
    ids = demo_tokenizer.encode("<|im_start|>user", add_special_tokens=False)
    assert ids[0] == demo_tokenizer.bos_id
    assert demo_tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>user"
    assert demo_tokenizer.decode(ids, skip_special_tokens=True) == "user"


def test_the_facts_of_the_demo(demo_tokenizer: Tokenizer) -> None:
    assert demo_tokenizer.vocab_size == 49152
    assert demo_tokenizer.special_ids == frozenset(range(17))
    assert (demo_tokenizer.bos_token, demo_tokenizer.bos_id) == ("<|im_start|>", 1)
    assert (demo_tokenizer.eos_token, demo_tokenizer.eos_id) == ("<|im_end|>", 2)


def test_the_bytes_of_a_texts_tokens_are_the_texts_bytes(
    demo_tokenizer: Tokenizer, sentencepiece_tokenizer: Tokenizer
) -> None:
    for text in TEXTS[:-1]:
        ids = demo_tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(map(demo_tokenizer.token_bytes, ids)) == text.encode()
        ids = sentencepiece_tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(map(sentencepiece_tokenizer.token_bytes, ids)) == (b" " if text else b"") + text.encode()


def test_a_part_of_a_character_is_shown_as_a_replacement(demo_tokenizer: Tokenizer) -> None:
    ids = demo_tokenizer.encode(SMILE, add_special_tokens=False)
    assert [demo_tokenizer.token_text(i) for i in ids] == ["\ufffd"] * len(ids)


@pytest.mark.parametrize("token_id", [-1, 49152, 2**31 - 1])
def test_an_id_without_a_token_has_no_text(token_id: int, demo_tokenizer: Tokenizer) -> None:
    assert demo_tokenizer.token_bytes(token_id) == b""
    assert demo_tokenizer.token_text(token_id) == ""


@given(text=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn", "Co"]), min_size=1))
def test_no_text_has_more_characters_than_its_tokens_can_hold(text: str, demo_tokenizer: Tokenizer) -> None:
    limit = demo_tokenizer.max_chars(len(demo_tokenizer.encode(text, add_special_tokens=False)))
    assert limit is not None
    assert len(text) <= limit


def write(folder: Path, **changes: Any) -> Path:
    model = {"type": "BPE", "vocab": {"a": 0, "aaa": 1}, "merges": []}
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    file = {"version": "1.0", "added_tokens": [], "model": model, "decoder": decoder} | changes
    (folder / "tokenizer.json").write_text(json.dumps(file))
    return folder


def added(**flags: bool) -> dict[str, Any]:
    shown = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": 2, "content": "<m>", **shown, **flags}


def test_the_longest_token_bounds_a_prompt(tmp_path: Path) -> None:
    assert Tokenizer(write(tmp_path)).max_chars(10) == 30
    assert Tokenizer(write(tmp_path, normalizer={"type": "NFC"})).max_chars(10) == 120


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"added_tokens": [added(lstrip=True)]},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "a", "fuse_unk": True}},
    ],
)
def test_where_text_may_vanish_there_is_no_bound(changes: dict[str, Any], tmp_path: Path) -> None:
    assert Tokenizer(write(tmp_path, **changes)).max_chars(10) is None


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path: Path) -> None:
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    assert Tokenizer(write(tmp_path, truncation=cut)).encode("aaaa", add_special_tokens=True) == [0, 0, 0, 0]


def test_names_may_be_written_with_their_flags(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "aaa", "lstrip": false}}')
    tokenizer = Tokenizer(write(tmp_path))
    assert (tokenizer.eos_token, tokenizer.eos_id, tokenizer.bos_id) == ("aaa", 1, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not a tokenizer's file"),
        ('{"model": {"type": "BPE", "vocab": 3}, "decoder": {"type": "ByteLevel"}}', "cannot be used"),
        ('{"model": {}, "decoder": {"type": "WordPiece"}}', r"decoder \['WordPiece'\] is not supported"),
        ('{"model": {}}', r"decoder \[\] is not supported"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=reason) as caught:
        Tokenizer(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_many_threads_get_the_same_ids(demo_tokenizer: Tokenizer) -> None:
    expected = [demo_tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = pool.map(lambda text: demo_tokenizer.encode(text, add_special_tokens=False), TEXTS)
            assert list(found) == expected


def test_a_long_prompt_leaves_other_threads_running(demo_tokenizer: Tokenizer) -> None:
    text = "".join(f"word{i} " for i in range(60_000))
    stop = threading.Event()
    num_ticks = 0

    def tick() -> None:
        nonlocal num_ticks
        while not stop.wait(0.001):
            num_ticks += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    demo_tokenizer.encode(text, add_special_tokens=False)
    stop.set()
    ticker.join()
    assert num_ticks > 5, "one or two would fit in before and after it"
