"""POST /v1/chat/completions."""

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from frontend.endpoints.body import BodyReader
from frontend.endpoints.generations import AnswerPlan
from frontend.endpoints.parsing import choose_parsers
from frontend.endpoints.prologue import begin_answer, respond, wants_usage, wants_usage_in_each_chunk
from frontend.endpoints.prompts import encode_bad_words, encode_prompt, truncate
from frontend.errors import invalid
from frontend.openai_bodies.chat import ChatBody, Message
from frontend.openai_bodies.tokens import TokenizeBody
from frontend.services import Services
from frontend.translate.answer import AnswerFacts
from frontend.translate.chat_answer import ChatFormat
from frontend.translate.limits import answer_tokens, check_num_logprobs
from frontend.translate.messages import last_assistant_text, to_template_messages
from frontend.translate.parsed_chat_answer import ParsedChatFormat
from frontend.translate.prompt_fields import PromptFacts
from frontend.translate.sampling import said, to_request, to_sampling
from frontend.translate.tools import chosen_tools


class ChatEndpoint:
    """A conversation in, one more message out."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reader = BodyReader(ChatBody, services.settings)

    async def create(self, request: Request) -> Response:
        """Read, translate, answer."""
        body = await self._reader.read(request)
        facts = begin_answer(self._services, body, id_prefix="chatcmpl-")
        num_top = _num_top(body)
        check_num_logprobs("top_logprobs", num_top, self._services.settings)
        return respond(self._services, body, await self._plan(body, facts, num_top))

    async def _plan(self, body: ChatBody, facts: AnswerFacts, num_top: int | None) -> AnswerPlan:
        services = self._services
        max_field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
        asked = getattr(body, max_field)
        tools = chosen_tools(body, enabled=services.text.tool_parser is not None)
        text = await render_messages(services, body.messages, body, tools)
        ids = await self._prompt_ids(text, body, asked)
        max_tokens = answer_tokens(
            len(ids),
            asked,
            services.text.defaults.max_new_tokens,
            max_model_len=services.max_model_len,
            param=max_field,
            prompt_param="messages",
        )
        bad_words = await encode_bad_words(services, body.bad_words)
        sampling = to_sampling(
            body, services.text.defaults, max_tokens=max_tokens, logprobs=num_top, bad_words=bad_words
        )
        prompt = PromptFacts(token_ids=ids, text=last_assistant_text(body.messages) if body.echo else "")
        request = to_request(body, ids, sampling, prompt_logprobs=body.prompt_logprobs, label=facts.id)
        shape: dict[str, Any] = {"num_choices": body.n or 1, "num_top": num_top, "num_prompt_top": body.prompt_logprobs}
        parsing = choose_parsers(services.text, body, tools, prompt=text)
        if parsing is None:
            answer_format = ChatFormat(facts, services.text.tokenizer, prompt, **shape)
        else:
            answer_format = ParsedChatFormat(
                facts, services.text.tokenizer, prompt, make_parser=parsing.make_parser, **shape
            )
            if parsing.shows_special_tokens:
                request = replace(request, skip_special_tokens=False)
        return AnswerPlan(
            requests=[request],
            prompts=[prompt],
            format=answer_format,
            usage_chunk=wants_usage(body),
            usage_in_each_chunk=wants_usage_in_each_chunk(body),
        )

    async def _prompt_ids(self, text: str, body: ChatBody, max_tokens: int | None) -> list[int]:
        services = self._services
        ids = await encode_prompt(
            services,
            text,
            add_special_tokens=body.add_special_tokens or False,  # the template has written them already
            truncates=body.truncate_prompt_tokens is not None,
            param="messages",
        )
        return truncate(ids, body, max_tokens=max_tokens, max_model_len=services.max_model_len)


async def render_messages(
    services: Services,
    messages: list[Message],
    body: ChatBody | TokenizeBody,
    tools: list[dict[str, Any]] | None = None,
) -> str:
    """The prompt text by the model's template. Raises `ApiError` 400."""
    return await services.render_chat(
        to_template_messages(messages),
        tools=tools or None,
        add_generation_prompt=said(body.add_generation_prompt, default=not body.continue_final_message),
        continue_final_message=body.continue_final_message or False,
        chat_template_kwargs=body.chat_template_kwargs or {},
    )


def _num_top(body: ChatBody) -> int | None:
    if not body.logprobs:
        if body.top_logprobs:
            raise invalid("top_logprobs", "top_logprobs is only allowed with logprobs: true.")
        return None
    return body.top_logprobs or 0
