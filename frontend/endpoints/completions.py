"""POST /v1/completions."""

from starlette.requests import Request
from starlette.responses import Response

from frontend.endpoints.body import BodyReader
from frontend.endpoints.generations import AnswerPlan
from frontend.endpoints.prologue import begin_answer, respond, wants_usage, wants_usage_in_each_chunk
from frontend.endpoints.prompts import encode_bad_words, encode_prompt, truncate
from frontend.openai_bodies.completion import CompletionBody
from frontend.request import GenerationRequest
from frontend.services import Services
from frontend.translate.answer import AnswerFacts
from frontend.translate.completion_answer import CompletionFormat
from frontend.translate.limits import answer_tokens, check_num_logprobs
from frontend.translate.prompt_fields import PromptFacts
from frontend.translate.prompt_list import to_prompts
from frontend.translate.sampling import said, to_request, to_sampling

DEFAULT_MAX_TOKENS = 16  # OpenAI's, of this route only


class CompletionEndpoint:
    """Texts or token ids in, their continuations out."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reader = BodyReader(CompletionBody, services.settings)

    async def create(self, request: Request) -> Response:
        """Read, translate, answer."""
        body = await self._reader.read(request)
        facts = begin_answer(self._services, body, id_prefix="cmpl-")
        check_num_logprobs("logprobs", body.logprobs, self._services.settings)
        return respond(self._services, body, await self._plan(body, facts))

    async def _plan(self, body: CompletionBody, facts: AnswerFacts) -> AnswerPlan:
        prompts = [await self._prompt(body, prompt) for prompt in to_prompts(body.prompt)]
        bad_words = await encode_bad_words(self._services, body.bad_words)
        return AnswerPlan(
            requests=[self._request(body, prompt, bad_words, facts.id) for prompt in prompts],
            prompts=prompts,
            format=CompletionFormat(
                facts,
                self._services.text.tokenizer,
                prompts,
                choices_per_prompt=body.n or 1,
                echo=body.echo or False,
                num_top=body.logprobs,
                num_prompt_top=body.prompt_logprobs,
            ),
            prompt_only=_prompt_only(body),
            usage_chunk=wants_usage(body),
            usage_in_each_chunk=wants_usage_in_each_chunk(body),
        )

    async def _prompt(self, body: CompletionBody, prompt: str | list[int]) -> PromptFacts:
        services = self._services
        ids = prompt if isinstance(prompt, list) else await self._encode(body, prompt)
        kept = truncate(ids, body, max_tokens=_max_tokens(body), max_model_len=services.max_model_len)
        text = prompt if isinstance(prompt, str) and kept is ids else None
        if text is None and body.echo:
            text = services.text.tokenizer.decode(kept, skip_special_tokens=False)
        return PromptFacts(token_ids=kept, text=text or "")

    async def _encode(self, body: CompletionBody, text: str) -> list[int]:
        truncates = body.truncate_prompt_tokens is not None
        special = said(body.add_special_tokens, default=True)
        return await encode_prompt(
            self._services, text, add_special_tokens=special, truncates=truncates, param="prompt"
        )

    def _request(
        self, body: CompletionBody, prompt: PromptFacts, bad_words: tuple[tuple[int, ...], ...], label: str
    ) -> GenerationRequest:
        defaults = self._services.text.defaults
        max_tokens = answer_tokens(
            len(prompt.token_ids),
            _max_tokens(body),
            None,
            max_model_len=self._services.max_model_len,
            param="max_tokens",
            prompt_param="prompt",
        )
        sampling = to_sampling(body, defaults, max_tokens=max_tokens, logprobs=body.logprobs, bad_words=bad_words)
        return to_request(body, prompt.token_ids, sampling, prompt_logprobs=_num_prompt_logprobs(body), label=label)


def _prompt_only(body: CompletionBody) -> bool:
    """max_tokens 0 asks to score the prompt. The engine makes one token at least, which is then not shown."""
    return bool(body.echo) and body.max_tokens == 0


def _max_tokens(body: CompletionBody) -> int:
    return 1 if _prompt_only(body) else said(body.max_tokens, DEFAULT_MAX_TOKENS)


def _num_prompt_logprobs(body: CompletionBody) -> int | None:
    """An echoed prompt has log-probabilities as the answer has."""
    if not body.echo or body.logprobs is None:
        return body.prompt_logprobs
    return max(body.logprobs, body.prompt_logprobs or 0)
