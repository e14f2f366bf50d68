import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import assume, given
from hypothesis import strategies as st

from frontend.model_files.errors import ModelFilesError
from frontend.model_files.gguf_tokenizer import build_tokenizer
from protocol.gguf_header import read_header
from protocol.launch import ModelFiles
from tests.helpers.corpus import TEXTS
from tests.helpers.gguf_bytes import gguf
from tests.helpers.reference_bpe import ReferenceBPE
from tests.helpers.sentencepiece_files import metadata, reference_encode

BYTE_LEVEL: dict[str, object] = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|end|>", "a", "b", "Ġ", "ab", "Ġab", "[PAD6]", "<think>"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 5, 4],
    "tokenizer.ggml.merges": ["a b", "Ġ ab"],
    "tokenizer.ggml.eos_token_id": 0,
}


def build(tmp_path: Path, metadata: dict[str, object]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    path = tmp_path / "tokenizer.gguf"
    path.write_bytes(gguf(metadata))
    tokenizer, config = build_tokenizer(read_header(path))
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer)), config


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> tokenizers.Tokenizer:
    return build(tmp_path_factory.mktemp("sentencepiece"), metadata())[0]


@pytest.fixture(scope="module")
def demo_tokenizer(demo_files: ModelFiles) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(Path(demo_files.config_dir) / "tokenizer.json"))


def test_the_demo_tokenizer_equals_an_independent_one(
    demo_files: ModelFiles, demo_tokenizer: tokenizers.Tokenizer
) -> None:
    reference = ReferenceBPE(read_header(demo_files.weights))
    for text in [*TEXTS, "\n".join(TEXTS)]:
        assert demo_tokenizer.encode(text).ids == reference.encode(text)


def test_the_demo_tokenizer_gives_text_back(demo_tokenizer: tokenizers.Tokenizer) -> None:
    for text in TEXTS[:-1]:  # the last one has bytes that this vocabulary lacks
        assert demo_tokenizer.decode(demo_tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_demo_tokenizer_cuts_numbers_into_digits(demo_tokenizer: tokenizers.Tokenizer) -> None:
    assert demo_tokenizer.encode("Hello 2024").tokens == ["Hello", "Ġ", "2", "0", "2", "4"]


def test_control_and_user_defined_tokens_are_found_in_text(tmp_path: Path) -> None:
    tokenizer, config = build(tmp_path, BYTE_LEVEL)
    assert tokenizer.encode("ab ab<|end|>b<think>").tokens == ["ab", "Ġab", "<|end|>", "b", "<think>"]
    assert tokenizer.decode([4, 0, 7]) == "ab<think>"
    assert config["eos_token"] == "<|end|>"
    assert config["add_bos_token"] is False


def test_padding_entries_are_no_tokens(tmp_path: Path) -> None:
    tokenizer, _ = build(tmp_path, BYTE_LEVEL)
    assert tokenizer.id_to_token(6) is None


def test_bos_and_eos_are_added_where_the_file_says_so(tmp_path: Path) -> None:
    flags = {
        "tokenizer.ggml.bos_token_id": 7,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    tokenizer, _ = build(tmp_path, BYTE_LEVEL | flags)
    assert tokenizer.encode("ab").ids == [7, 4, 0]
    assert tokenizer.encode("ab", add_special_tokens=False).ids == [4]


def test_llama3_adds_bos_and_takes_whole_words_by_default(tmp_path: Path) -> None:
    metadata = BYTE_LEVEL | {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 0}
    tokenizer, config = build(tmp_path, metadata)
    assert config["add_bos_token"] is True
    assert tokenizer.encode("ab").ids == [0, 4]


WORDS = {
    "gpt-2": ["I", "'m", " 1234", " CamelCase", "!!/", " \n\n", " x"],
    "smollm": ["I", "'m", " ", "1", "2", "3", "4", " CamelCase", "!!/", " \n\n", " x"],
    "llama-bpe": ["I", "'m", " ", "123", "4", " CamelCase", "!!/", " \n\n", " x"],
    "qwen2": ["I", "'m", " ", "1", "2", "3", "4", " CamelCase", "!!/", " \n\n", " x"],
    "tekken": ["I", "'m", " ", "1", "2", "3", "4", " Camel", "Case", "!!/", " \n\n", " x"],
    "gpt-4o": ["I'm", " ", "123", "4", " Camel", "Case", "!!/", " \n\n", " x"],
}


@pytest.mark.parametrize("name", WORDS)
def test_each_kind_of_pre_tokenizer_cuts_words_its_own_way(name: str, tmp_path: Path) -> None:
    text = "I'm 1234 CamelCase!!/ \n\n x"
    tokenizer, _ = build(tmp_path, BYTE_LEVEL | {"tokenizer.ggml.pre": name})
    assert [text[start:end] for _, (start, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text)] == WORDS[name]


def test_qwen2_composes_characters_first(tmp_path: Path) -> None:
    tokenizer, _ = build(tmp_path, BYTE_LEVEL | {"tokenizer.ggml.pre": "qwen2"})
    assert tokenizer.normalizer.normalize_str("e\u0301") == "\u00e9"


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(TEXTS[:16]))
def test_sentencepiece_merges_by_score_and_falls_back_to_bytes(text: str, sentencepiece: tokenizers.Tokenizer) -> None:
    assume(not any(token in text for token in ("<unk>", "<s>", "</s>", "<|end|>", "<tool>")))
    assert sentencepiece.encode(text, add_special_tokens=False).ids == reference_encode(text)


def test_sentencepiece_adds_bos_by_default_and_finds_special_tokens(sentencepiece: tokenizers.Tokenizer) -> None:
    ids = sentencepiece.encode("the<|end|>").ids
    assert ids[0] == 1
    assert sentencepiece.id_to_token(ids[-1]) == "<|end|>"
    assert sentencepiece.decode(ids) == "the"


def test_sentencepiece_without_its_space_prefix(tmp_path: Path) -> None:
    tokenizer, _ = build(tmp_path, metadata() | {"tokenizer.ggml.add_space_prefix": False})
    ids = tokenizer.encode(" the", add_special_tokens=False).ids
    assert tokenizer.decode(ids) == " the"


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "tokenizer model": ({"tokenizer.ggml.model": "bert"}, "tokenizer model 'bert'"),
    "pre-tokenizer": ({"tokenizer.ggml.pre": "chameleon"}, "pre-tokenizer type 'chameleon'"),
    "types for other tokens": ({"tokenizer.ggml.token_type": [1, 1]}, "has 2 entries for 8 tokens"),
    "merge of nothing known": ({"tokenizer.ggml.merges": ["a z"]}, "merge 'a' 'z'"),
    "merge without a pair": ({"tokenizer.ggml.merges": ["ab"]}, "'ab', which is not a pair"),
    "tokens as numbers": ({"tokenizer.ggml.tokens": [1, 2]}, "must be a list of str"),
    "text normalization": (
        metadata() | {"tokenizer.ggml.remove_extra_whitespaces": True},
        "remove_extra_whitespaces asks for a text normalization",
    ),
    "too few scores": (metadata() | {"tokenizer.ggml.scores": [0.5]}, "scores has 1 entries"),
    "eos past the end": ({"tokenizer.ggml.eos_token_id": 8}, "eos_token_id is 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(case: str, tmp_path: Path) -> None:
    change, reason = REFUSED[case]
    with pytest.raises(ModelFilesError, match=reason):
        build(tmp_path, BYTE_LEVEL | change)
