"""Answers of POST /v1/completions: chunks and whole."""

from msgspec import UNSET

from frontend.openai_bodies.answers import Completion, CompletionChoice, CompletionLogprobs, Usage
from frontend.request import Delta, TokenLogprob
from frontend.tokenizer import Tokenizer
from frontend.translate.answer import AnswerFacts, Choice, ChunkBytes, to_json
from frontend.translate.logprobs import completion_logprobs
from frontend.translate.prompt_fields import PromptFacts, PromptFields, as_json_tail, prompt_fields


class CompletionFormat:
    """Choice c of prompt p is number p * n + c. `num_top` and `num_prompt_top`: as in `ChatFormat`."""

    def __init__(
        self,
        facts: AnswerFacts,
        tokenizer: Tokenizer,
        prompts: list[PromptFacts],
        *,
        choices_per_prompt: int,
        echo: bool,
        num_top: int | None,
        num_prompt_top: int | None,
    ) -> None:
        self._facts = facts
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._choices_per_prompt = choices_per_prompt
        self._echo = echo
        self._num_top = num_top
        self._num_prompt_top = num_prompt_top
        num_choices = len(prompts) * choices_per_prompt
        self._bytes = ChunkBytes(facts, object_name="text_completion", num_choices=num_choices, content_key=b'"text":')
        self._offsets = [0] * num_choices  # characters before the next token, for text_offset

    def opening(self, choice: int) -> bytes:
        fields = as_json_tail(self._prompt_fields(choice))
        if not (self._echo or fields):
            return b""
        text = self._prompt_of(choice).text if self._echo else ""
        logprobs = to_json(self._logprobs(choice, *self._echoed(choice)))
        return (
            self._bytes.prefixes[choice] + to_json(text) + self._bytes.opening_end(logprobs=logprobs, of_choice=fields)
        )

    def chunk(self, delta: Delta, usage: Usage | None) -> bytes:
        prefix = self._bytes.prefixes[delta.choice] + to_json(delta.text)
        if delta.finish_reason is None and self._num_top is None and not self._facts.return_token_ids:
            if not delta.text:
                return b""
            if usage is None:
                return prefix + self._bytes.plain_end
        logprobs = self._logprobs(delta.choice, list(delta.logprobs or ()), delta.token_ids)
        return prefix + self._bytes.end(delta, to_json(logprobs), usage)

    def around_text(self, choice: int) -> tuple[bytes, bytes] | None:
        if self._num_top is not None or self._facts.return_token_ids:
            return None
        return self._bytes.prefixes[choice], self._bytes.plain_end

    def usage_chunk(self, usage: Usage) -> bytes:
        return self._bytes.usage(usage)

    def whole(self, choices: list[Choice], usage: Usage) -> bytes:
        answer = Completion(
            id=self._facts.id,
            created=self._facts.created,
            model=self._facts.model,
            choices=[self._choice(index, choice) for index, choice in enumerate(choices)],
            usage=usage,
            system_fingerprint=self._facts.fingerprint,
        )
        return to_json(answer)

    def _choice(self, index: int, choice: Choice) -> CompletionChoice:
        prompt_tokens, prompt_ids = self._echoed(index)
        return CompletionChoice(
            index=index,
            text=(self._prompt_of(index).text if self._echo else "") + choice.text,
            logprobs=self._logprobs(index, [*prompt_tokens, *choice.logprobs], prompt_ids + choice.token_ids),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            token_ids=choice.token_ids if self._facts.return_token_ids else UNSET,
            **self._prompt_fields(index),
        )

    def _echoed(self, choice: int) -> tuple[list[TokenLogprob | None], list[int]]:
        """The prompt's tokens, as far as they count among the answer's log-probabilities."""
        prompt = self._prompt_of(choice)
        if not self._echo or self._num_top is None or prompt.logprobs is None:
            return [], []
        return prompt.logprobs, prompt.token_ids

    def _logprobs(
        self, choice: int, tokens: list[TokenLogprob | None], token_ids: list[int]
    ) -> CompletionLogprobs | None:
        if self._num_top is None:
            return None
        logprobs = completion_logprobs(
            self._tokenizer, tokens, token_ids, num_top=self._num_top, offset=self._offsets[choice]
        )
        self._offsets[choice] += sum(map(len, logprobs.tokens))
        return logprobs

    def _prompt_of(self, choice: int) -> PromptFacts:
        return self._prompts[choice // self._choices_per_prompt]

    def _prompt_fields(self, choice: int) -> PromptFields:
        ids = self._facts.return_token_ids
        return prompt_fields(self._prompt_of(choice), self._tokenizer, ids=ids, num_top=self._num_prompt_top)
