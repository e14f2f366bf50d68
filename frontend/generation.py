"""One request end to end: check, submit, deltas to the sink, and one way to stop. Read first.

Everything is pushed synchronously from the engine's message to the sink: no task and no queue per token.
"""

from dataclasses import dataclass

from frontend.request import GenerationRequest, Sink, TokenLogprob
from frontend.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request is billed: of n choices the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt's, those that the prefix cache spared


class Generation:
    """A request under way. It ends once: by `Sink.on_end`, by `Sink.on_error` or by `cancel()`."""

    request: GenerationRequest
    # by position; None at the first, which has none; complete before the first delta. None where not asked for
    prompt_logprobs: list[TokenLogprob | None] | None

    @property
    def usage(self) -> Usage:
        """As of now; final once the generation has ended."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The client is gone: stop the engine's work. The sink hears nothing more. Idempotent, also after the end."""
        raise NotImplementedError


def start_generation(services: Services, request: GenerationRequest, sink: Sink) -> Generation:
    """Check, admit and submit. Raises `ApiError` or `InvalidField` when it is refused here: the sink hears nothing.

    The sink is never called before this returns.
    """
    raise NotImplementedError
