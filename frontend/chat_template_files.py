"""Finds the chat template: the one of --chat-template, or the model's own beside its tokenizer."""

import logging
from pathlib import Path
from typing import Any, Literal

import msgspec

from frontend.chat_template import ChatTemplate, ChatTemplateError

logger = logging.getLogger("headrace.chat_template")


class _Named(msgspec.Struct):
    name: str
    template: str


class _TokenizerConfig(msgspec.Struct):
    chat_template: str | list[_Named] | None = None
    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None
    unk_token: str | dict[str, Any] | None = None
    pad_token: str | dict[str, Any] | None = None


def load_chat_template(
    config_dir: str | Path,
    *,
    override: str | None = None,
    content_format: Literal["auto", "string", "openai"] = "auto",
) -> ChatTemplate | None:
    """`override` is a file or the template itself in one line. None: there is no template; chat cannot be served.

    Raises `ChatTemplateError` for one that does not compile or cannot render a first message.
    """
    folder = Path(config_dir)
    config = _read_config(folder / "tokenizer_config.json")
    templates = _own_templates(folder, config)
    if override is not None:
        given = _given_template(override)
        if templates.get("default", given).strip() != given.strip():
            logger.warning("the chat template of --chat-template differs from the model's own")
        templates = {"default": given}
    if "default" not in templates:
        return None
    return ChatTemplate(
        templates["default"],
        tool_source=templates.get("tool_use"),
        special_tokens=_special_tokens(config),
        content_format=content_format,
    )


def _read_config(path: Path) -> _TokenizerConfig:
    if not path.is_file():
        return _TokenizerConfig()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_TokenizerConfig)
    except msgspec.DecodeError as error:
        raise ChatTemplateError(f"{path} is not a tokenizer's configuration: {error}") from None


def _own_templates(folder: Path, config: _TokenizerConfig) -> dict[str, str]:
    """By name: `default`, and `tool_use` where the model has another one for tools."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return {"default": _read(file)}
    if isinstance(config.chat_template, str):
        return {"default": config.chat_template}
    return {named.name: named.template for named in config.chat_template or []}


def _given_template(override: str) -> str:
    if "{" in override:
        # In one line a newline can only be written as backslash and n.
        return override.replace("\\n", "\n")
    return _read(Path(override).expanduser())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChatTemplateError(f"the chat template {path} cannot be read: {error}") from None


def _special_tokens(config: _TokenizerConfig) -> dict[str, str]:
    """Templates write them by these names; the file has them bare or with their flags around them."""
    named = {
        "bos_token": config.bos_token,
        "eos_token": config.eos_token,
        "unk_token": config.unk_token,
        "pad_token": config.pad_token,
    }
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()}
    return {name: text for name, text in texts.items() if text is not None}
