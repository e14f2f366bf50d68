"""What `tokenizer.ggml.pre` names: how a byte-level vocabulary cuts text into words before it merges.

GGUF stores only the name; the rules were published with each model's tokenizer.json.
"""

from dataclasses import dataclass
from typing import Any

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+"

_LLAMA3 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION}[\r\n]*|{_BLANKS}"
_QWEN2 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}|{_PUNCTUATION}[\r\n]*|{_BLANKS}"
_TEKKEN = rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}|{_PUNCTUATION}[\r\n/]*|{_BLANKS}"
_GPT4O = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}|{_PUNCTUATION}[\r\n/]*|{_BLANKS}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenizer:
    """One rule and what else goes with its name."""

    steps: tuple[dict[str, Any], ...]  # as tokenizer.json writes them
    normalizer: dict[str, Any] | None = None
    ignore_merges: bool = False  # a word that is in the vocabulary is taken whole
    add_bos: bool = False  # where tokenizer.ggml.add_bos_token is missing


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(regex: str) -> tuple[dict[str, Any], ...]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return split, _byte_level(use_regex=False)


_GPT2_RULE = PreTokenizer(steps=(_byte_level(use_regex=True),))
_DIGITS_RULE = PreTokenizer(steps=({"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)))
_LLAMA3_RULE = PreTokenizer(steps=_split(_LLAMA3), ignore_merges=True, add_bos=True)
_GPT4O_RULE = PreTokenizer(steps=_split(_GPT4O))

PRE_TOKENIZERS = {
    "default": _GPT2_RULE,
    "gpt-2": _GPT2_RULE,
    "olmo": _GPT2_RULE,
    "smollm": _DIGITS_RULE,
    "starcoder": _DIGITS_RULE,
    "llama-bpe": _LLAMA3_RULE,
    "llama3": _LLAMA3_RULE,
    "llama-v3": _LLAMA3_RULE,
    "smaug-bpe": PreTokenizer(steps=_split(_LLAMA3)),
    "qwen2": PreTokenizer(steps=_split(_QWEN2), normalizer={"type": "NFC"}),
    "deepseek-r1-qwen": PreTokenizer(steps=_split(_QWEN2)),
    "tekken": PreTokenizer(steps=_split(_TEKKEN), ignore_merges=True, add_bos=True),
    "gpt-4o": _GPT4O_RULE,
    "llama4": _GPT4O_RULE,
}
