"""Writes what a GGUF file says of its model as the folder of small files that a Hugging Face model would have."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from frontend.model_files.gguf_config import build_config, token_ids
from frontend.model_files.gguf_tokenizer import build_tokenizer
from protocol.gguf_header import GGUFHeader


def build_folder(
    header: GGUFHeader,
    folder: Path,
    *,
    tokenizer: bool,
    sampling: Mapping[str, object],
    progress: Callable[[str], None],
) -> None:
    """Make `folder`, with `sampling` as its defaults; `tokenizer=False` leaves out what another one will replace."""
    folder.mkdir(parents=True)
    _write(folder / "config.json", build_config(header))
    _write(folder / "generation_config.json", {**token_ids(header), **sampling})
    if tokenizer:
        if (
            header.find("tokenizer.ggml.pre", str) in (None, "default")
            and header.find("tokenizer.ggml.model", str) == "gpt2"
        ):
            progress(
                f"{header.path} does not say how its tokenizer cuts words (tokenizer.ggml.pre); GPT-2's rule is used"
            )
        built, config = build_tokenizer(header)
        _write(folder / "tokenizer.json", built)
        _write(folder / "tokenizer_config.json", config)
    template = header.find("tokenizer.chat_template", str)
    if template and tokenizer:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_bytes(msgspec.json.encode(content))
