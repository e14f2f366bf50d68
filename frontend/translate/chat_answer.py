"""Answers of POST /v1/chat/completions: chunks and whole."""

from msgspec import UNSET

from frontend.openai_bodies.answers import AssistantMessage, ChatChoice, ChatCompletion, ChatLogprobs, Usage
from frontend.request import Delta, TokenLogprob
from frontend.tokenizer import Tokenizer
from frontend.translate.answer import AnswerFacts, Choice, ChunkBytes, to_json
from frontend.translate.logprobs import chat_logprobs
from frontend.translate.prompt_fields import PromptFacts, PromptFields, as_json_tail, prompt_fields


class ChatFormat:
    """`num_top` alternatives a token; None: no log-probabilities. `num_prompt_top` says the same of the prompt."""

    def __init__(
        self,
        facts: AnswerFacts,
        tokenizer: Tokenizer,
        prompt: PromptFacts,
        *,
        num_choices: int,
        num_top: int | None,
        num_prompt_top: int | None,
    ) -> None:
        self._facts = facts
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._num_top = num_top
        self._num_prompt_top = num_prompt_top
        self._bytes = ChunkBytes(
            facts, object_name="chat.completion.chunk", num_choices=num_choices, content_key=b'"delta":{'
        )

    def opening(self, choice: int) -> bytes:
        content = b'"role":"assistant","content":%b}' % to_json(self._prompt.text)
        end = self._bytes.opening_end(of_answer=as_json_tail(self._prompt_fields()))
        return self._bytes.prefixes[choice] + content + end

    def chunk(self, delta: Delta, usage: Usage | None) -> bytes:
        prefix = self._bytes.prefixes[delta.choice]
        content = b'"content":%b}' % to_json(delta.text)
        if delta.finish_reason is None and self._num_top is None and not self._facts.return_token_ids:
            if not delta.text:
                return b""
            if usage is None:
                return prefix + content + self._bytes.plain_end
        elif not delta.text and self._num_top is None:
            content = b"}"
        logprobs = self._logprobs(delta.logprobs or [])
        return prefix + content + self._bytes.end(delta, to_json(logprobs), usage)

    def around_text(self, choice: int) -> tuple[bytes, bytes] | None:
        if self._num_top is not None or self._facts.return_token_ids:
            return None
        return self._bytes.prefixes[choice] + b'"content":', b"}" + self._bytes.plain_end

    def usage_chunk(self, usage: Usage) -> bytes:
        return self._bytes.usage(usage)

    def whole(self, choices: list[Choice], usage: Usage) -> bytes:
        answer = ChatCompletion(
            id=self._facts.id,
            created=self._facts.created,
            model=self._facts.model,
            choices=[self._choice(index, choice) for index, choice in enumerate(choices)],
            usage=usage,
            system_fingerprint=self._facts.fingerprint,
            **self._prompt_fields(),
        )
        return to_json(answer)

    def _choice(self, index: int, choice: Choice) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=AssistantMessage(content=self._prompt.text + choice.text),
            logprobs=self._logprobs(choice.logprobs),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            token_ids=choice.token_ids if self._facts.return_token_ids else UNSET,
        )

    def _logprobs(self, tokens: list[TokenLogprob]) -> ChatLogprobs | None:
        return None if self._num_top is None else chat_logprobs(self._tokenizer, tokens, num_top=self._num_top)

    def _prompt_fields(self) -> PromptFields:
        ids = self._facts.return_token_ids
        return prompt_fields(self._prompt, self._tokenizer, ids=ids, num_top=self._num_prompt_top)
