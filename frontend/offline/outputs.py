"""What `generate` gives back, and the sink that gathers it. The names are vLLM's."""

from collections.abc import Callable
from dataclasses import dataclass, field

from frontend.generation import Generation
from frontend.request import UNTIL_THE_END, Delta, FinishReason, Lane, TokenLogprob
from frontend.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    """One token at one position."""

    logprob: float
    rank: int  # 1 = the most likely
    decoded_token: str


PositionLogprobs = dict[int, Logprob]  # by token id: the drawn (or given) token first, then the most likely ones


@dataclass(slots=True, kw_only=True)
class CompletionOutput:
    """One choice."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None  # None where no log-probabilities were asked for
    logprobs: list[PositionLogprobs] | None
    finish_reason: FinishReason | None
    stop_reason: int | str | None


@dataclass(slots=True, kw_only=True)
class RequestOutput:
    """One prompt with its choices."""

    prompt: str | None  # None where token ids were given
    prompt_token_ids: list[int]
    prompt_logprobs: list[PositionLogprobs | None] | None  # by position; the first has none
    outputs: list[CompletionOutput]
    num_cached_tokens: int


@dataclass(slots=True)
class _Choice:
    """One choice while it grows. Pieces of text are joined once, at the end."""

    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class Gatherer:
    """The sink of one generation."""

    def __init__(self, prompt: str | None, num_choices: int, on_change: Callable[["Gatherer"], None]) -> None:
        self.error: Exception | None = None
        self.has_ended = False
        self._prompt = prompt
        self._choices = [_Choice() for _ in range(num_choices)]
        self._on_change = on_change

    def lane(self, choice: int) -> Lane:
        return Lane(UNTIL_THE_END)

    def on_delta(self, delta: Delta) -> None:
        choice = self._choices[delta.choice]
        choice.pieces.append(delta.text)
        choice.token_ids += delta.token_ids
        if delta.logprobs is not None:
            choice.logprobs += delta.logprobs
        if delta.finish_reason is not None:
            choice.finish_reason, choice.stop_reason = delta.finish_reason, delta.stop_reason

    def on_end(self) -> None:
        self.has_ended = True
        self._on_change(self)

    def on_error(self, error: Exception) -> None:
        self.error = error
        self._on_change(self)

    def output(self, generation: Generation, tokenizer: Tokenizer) -> RequestOutput:
        """Once it has ended."""
        request = generation.request
        of_prompt = generation.prompt_logprobs
        wants_logprobs = request.sampling.logprobs is not None
        return RequestOutput(
            prompt=self._prompt,
            prompt_token_ids=request.prompt_ids,
            prompt_logprobs=None if of_prompt is None else [_by_id(entry, tokenizer) for entry in of_prompt],
            outputs=[
                _completion(index, choice, tokenizer if wants_logprobs else None)
                for index, choice in enumerate(self._choices)
            ],
            num_cached_tokens=generation.usage.cached_tokens,
        )


def _completion(index: int, choice: _Choice, tokenizer: Tokenizer | None) -> CompletionOutput:
    """`tokenizer`: where log-probabilities were asked for."""
    return CompletionOutput(
        index=index,
        text="".join(choice.pieces),
        token_ids=choice.token_ids,
        cumulative_logprob=None if tokenizer is None else sum(entry.logprob for entry in choice.logprobs),
        logprobs=None if tokenizer is None else [_of_token(entry, tokenizer) for entry in choice.logprobs],
        finish_reason=choice.finish_reason,
        stop_reason=choice.stop_reason,
    )


def _by_id(entry: TokenLogprob | None, tokenizer: Tokenizer) -> PositionLogprobs | None:
    return None if entry is None else _of_token(entry, tokenizer)


def _of_token(entry: TokenLogprob, tokenizer: Tokenizer) -> PositionLogprobs:
    ranked = [(entry.token_id, entry.logprob, entry.rank)]
    ranked += [(token, value, rank) for rank, (token, value) in enumerate(entry.top, 1) if token != entry.token_id]
    return {
        token: Logprob(logprob=value, rank=rank, decoded_token=tokenizer.token_text(token))
        for token, value, rank in ranked
    }
