"""Messages to one prompt text by the model's chat template. Blocking; every failure is a ValueError of one sentence.

It knows no request and no tokenizer. No template ever comes from a request.
"""

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jinja2

from frontend.chat_messages import Message, append_to_last, prepare_messages
from frontend.content_format import ContentFormat, detect_content_format
from frontend.template_environment import RefusedByTemplate, make_environment

MAX_PROMPT_CHARS = 16 * 1024 * 1024
MAX_RENDER_S = 5.0
_PROBE: list[Message] = [{"role": "user", "content": "Hello"}]
_RESERVED = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "unk_token", "pad_token"}


class ChatTemplateError(ValueError):
    """The template cannot be used, or not with these messages."""


class ChatTemplate:
    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, str] | None = None,
        content_format: Literal["auto", "string", "openai"] = "auto",
        tool_source: str | None = None,
        max_chars: int = MAX_PROMPT_CHARS,
        max_render_s: float = MAX_RENDER_S,
    ) -> None:
        """Compile, and render a probe. `tool_source` is used in place of `source` for requests with tools."""
        environment = make_environment()
        self._special_tokens = dict(special_tokens or {})
        self._max_chars = max_chars
        self._max_render_s = max_render_s
        try:
            self._template = environment.from_string(source)
            self._tool_template = environment.from_string(tool_source) if tool_source else self._template
            detected = detect_content_format(environment, source)
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(f"the chat template has a syntax error in line {error.lineno}: {error}") from None
        self.content_format: ContentFormat = detected if content_format == "auto" else content_format
        self.render(_PROBE)

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt. With `continue_final_message` it ends where the last message's text ends."""
        if continue_final_message and add_generation_prompt:
            raise ChatTemplateError("continue_final_message and add_generation_prompt exclude each other")
        if not messages:
            raise ChatTemplateError("messages must hold at least one message")
        prepared = prepare_messages(messages, self.content_format)
        context = {
            **self._special_tokens,
            **_checked_kwargs(chat_template_kwargs or {}),
            "messages": prepared,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        template = self._tool_template if tools else self._template
        if not continue_final_message:
            return self._run(template, context)
        # A template that trims its messages takes the marker's last space, and so tells that it trimmed.
        marker = f"<{secrets.token_hex(8)}> "
        append_to_last(prepared, marker)
        return _cut(self._run(template, context), marker)

    def _run(self, template: jinja2.Template, context: dict[str, Any]) -> str:
        try:
            return self._joined(template.generate(**context))
        except ChatTemplateError:
            raise
        except RefusedByTemplate as refusal:
            raise ChatTemplateError(f"the chat template refuses these messages: {refusal}") from None
        except Exception as error:  # noqa: BLE001 - a template is a program and may raise anything
            raise ChatTemplateError(f"the chat template failed on these messages: {_sentence(error)}") from error

    def _joined(self, pieces: Iterable[str]) -> str:
        deadline = time.monotonic() + self._max_render_s
        parts: list[str] = []
        num_chars = 0
        for piece in pieces:
            parts.append(piece)
            num_chars += len(piece)
            if num_chars > self._max_chars:
                raise ChatTemplateError(f"messages: the rendered prompt has more than {self._max_chars} characters")
            if time.monotonic() > deadline:
                raise ChatTemplateError(f"messages: the chat template took more than {self._max_render_s:g} s")
        return "".join(parts)


def _checked_kwargs(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in kwargs.items():
        if name in _RESERVED:
            raise ChatTemplateError(f"chat_template_kwargs must not set {name!r}")
        if not isinstance(value, bool | int | float | str | None):
            raise ChatTemplateError(f"chat_template_kwargs.{name:.40} must be a string, a number, a boolean or null")
    return kwargs


def _cut(text: str, marker: str) -> str:
    at = text.rfind(marker.rstrip())
    if at < 0:
        raise ChatTemplateError(
            "continue_final_message: the chat template does not show the last message's text, so it cannot be continued"
        )
    return text[:at] if text.startswith(marker, at) else text[:at].rstrip()


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
