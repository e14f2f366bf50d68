"""tokenizer.json, in the form of the `tokenizers` library, out of a GGUF file's metadata.

Two kinds are known: `gpt2` (byte-level BPE with merges) and `llama` (SentencePiece BPE with scores and byte fallback).
"""

from typing import Any

from frontend.model_files.errors import ModelFilesError
from frontend.model_files.gguf_vocabulary import Kind, Vocabulary, read_list, read_vocabulary
from frontend.model_files.pre_tokenizers import PRE_TOKENIZERS
from protocol.gguf_header import GGUFHeader

Json = dict[str, Any]
SPACE = "\u2581"  # how SentencePiece writes a space


def build_tokenizer(header: GGUFHeader) -> tuple[Json, Json]:
    """What tokenizer.json and tokenizer_config.json shall hold."""
    vocabulary = read_vocabulary(header)
    kind = header.get("tokenizer.ggml.model", str)
    if kind == "gpt2":
        parts, add_bos = _byte_level(header, vocabulary)
    elif kind == "llama":
        parts, add_bos = _sentencepiece(header, vocabulary)
    else:
        raise ModelFilesError(f"{header.path}: tokenizer model {kind!r} is not supported; gpt2 and llama are")
    flag = header.find("tokenizer.ggml.add_bos_token", bool)
    add_bos = add_bos if flag is None else flag
    add_eos = header.find("tokenizer.ggml.add_eos_token", bool) or False
    frame = _frame(vocabulary, vocabulary.bos if add_bos else None, vocabulary.eos if add_eos else None)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": vocabulary.added_tokens(),
        "post_processor": frame,
        **parts,
    }
    flags = {"add_bos_token": add_bos, "add_eos_token": add_eos, "clean_up_tokenization_spaces": False}
    return tokenizer, {**vocabulary.special_tokens(), **flags}


def _byte_level(header: GGUFHeader, vocabulary: Vocabulary) -> tuple[Json, bool]:
    """GPT-2's kind. The second value: is a bos token added where the file does not say?"""
    name = header.find("tokenizer.ggml.pre", str) or "default"
    rule = PRE_TOKENIZERS.get(name)
    if rule is None:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise ModelFilesError(f"{header.path}: pre-tokenizer type {name!r} is not supported; these are: {known}")
    merges = [_pair(header, merge) for merge in read_list(header, "tokenizer.ggml.merges", str)]
    model = _bpe(vocabulary, merges, ignore_merges=rule.ignore_merges)
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": list(rule.steps)}
    parts = {"normalizer": rule.normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model}
    return parts, rule.add_bos


def _pair(header: GGUFHeader, merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise ModelFilesError(f"{header.path}: tokenizer.ggml.merges holds {merge!r:.60}, which is not a pair")
    return left, right


def _sentencepiece(header: GGUFHeader, vocabulary: Vocabulary) -> tuple[Json, bool]:
    """Llama 2's and Mistral's kind. The second value: is a bos token added where the file does not say?"""
    _refuse_normalization(header)
    scores = read_list(header, "tokenizer.ggml.scores", float, length=len(vocabulary.tokens))
    byte_fallback = vocabulary.kinds.count(Kind.BYTE) == 256
    unknown = None if vocabulary.unknown is None else vocabulary.tokens[vocabulary.unknown]
    model = _bpe(vocabulary, _merges(vocabulary, scores), unknown=unknown, fuse_unk=True, byte_fallback=byte_fallback)
    to_pieces: list[Json] = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    to_text: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if header.find("tokenizer.ggml.add_space_prefix", bool) is not False:
        to_pieces.insert(0, {"type": "Prepend", "prepend": SPACE})
        to_text.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    normalizer = {"type": "Sequence", "normalizers": to_pieces}
    decoder = {"type": "Sequence", "decoders": to_text}
    return {"normalizer": normalizer, "pre_tokenizer": None, "decoder": decoder, "model": model}, True


def _refuse_normalization(header: GGUFHeader) -> None:
    for key in ("tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap"):
        if header.metadata.get(key):
            raise ModelFilesError(f"{header.path}: {key} asks for a text normalization that is not supported")


def _merges(vocabulary: Vocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece merges whichever neighbours make the piece of the highest score; here that order is written out."""
    pieces = {token: i for i, token in enumerate(vocabulary.tokens) if vocabulary.kinds[i] == Kind.NORMAL}
    best_first = sorted(pieces, key=lambda piece: -scores[pieces[piece]])
    merges: list[tuple[str, str]] = []
    for piece in best_first:
        cuts = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        pairs = [(left, right) for left, right in cuts if left in pieces and right in pieces]
        merges += sorted(pairs, key=lambda pair: (pieces[pair[0]], pieces[pair[1]]))
    return merges


def _bpe(
    vocabulary: Vocabulary,
    merges: list[tuple[str, str]],
    *,
    unknown: str | None = None,
    fuse_unk: bool = False,
    byte_fallback: bool = False,
    ignore_merges: bool = False,
) -> Json:
    ids = vocabulary.ids()
    for left, right in merges:
        if not (left in ids and right in ids and left + right in ids):
            raise ModelFilesError(f"{vocabulary.path}: merge {left!r:.40} {right!r:.40} is not made of known tokens")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": fuse_unk,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": ids,
        "merges": merges,
    }


def _frame(vocabulary: Vocabulary, bos: int | None, eos: int | None) -> Json | None:
    """The post-processor that puts bos before and eos behind a text, where special tokens are asked for."""
    ends = [i for i in (bos, eos) if i is not None]
    if not ends:
        return None

    def around(*texts: Json) -> list[Json]:
        before = [_special(vocabulary, bos)] if bos is not None else []
        behind = [_special(vocabulary, eos)] if eos is not None else []
        return [*before, *texts, *behind]

    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    names = {vocabulary.tokens[i]: i for i in ends}
    special = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in names.items()}
    return {
        "type": "TemplateProcessing",
        "single": around(first),
        "pair": [*around(first), *around(second)],
        "special_tokens": special,
    }


def _special(vocabulary: Vocabulary, token_id: int) -> Json:
    return {"SpecialToken": {"id": vocabulary.tokens[token_id], "type_id": 0}}
