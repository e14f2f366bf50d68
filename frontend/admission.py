"""What is refused before the engine is asked: what it could not serve, and what it clearly has no room for.

The engine alone decides exactly; what is let through here it may still refuse.
"""

from frontend.errors import context_too_long, invalid, overloaded
from frontend.request import GenerationRequest
from frontend.settings import Settings
from protocol.errors import InvalidField
from protocol.messages import EngineReady, Heartbeat
from protocol.sampling import check_sampling


def refuse_if_full(ready: EngineReady, heartbeat: Heartbeat | None) -> None:
    """429 when the engine's last word says that nothing more may wait. Worth asking before tokenizing."""
    if heartbeat is None:
        return
    if heartbeat.num_waiting >= ready.max_num_queued_reqs:
        raise overloaded(f"{heartbeat.num_waiting} requests are waiting; the limit is {ready.max_num_queued_reqs}.")
    if heartbeat.num_waiting_tokens >= ready.max_num_queued_tokens:
        raise overloaded(
            f"{heartbeat.num_waiting_tokens} prompt tokens are waiting; the limit is {ready.max_num_queued_tokens}."
        )


def check_request(request: GenerationRequest, *, settings: Settings, ready: EngineReady, vocab_size: int) -> None:
    """Raise `ApiError` 400 or `InvalidField` for what no engine here can serve."""
    max_logprobs = min(settings.max_logprobs, ready.max_logprobs)
    _check_prompt(request.prompt_ids, vocab_size)
    check_sampling(request.sampling, vocab_size=vocab_size, max_logprobs=max_logprobs)
    check_length(len(request.prompt_ids), request.sampling.max_tokens, ready.max_model_len)
    if not 1 <= request.num_choices <= settings.max_n:
        raise invalid("n", f"n must be between 1 and {settings.max_n}, not {request.num_choices}")
    if request.prompt_logprobs is not None and not 0 <= request.prompt_logprobs <= max_logprobs:
        raise invalid(
            "prompt_logprobs", f"prompt_logprobs must be between 0 and {max_logprobs}, not {request.prompt_logprobs}"
        )
    _check_stop(request.stop, settings)


def check_length(num_prompt_tokens: int, max_tokens: int, max_model_len: int) -> None:
    """400 when prompt, or prompt and answer, are longer than the context."""
    if num_prompt_tokens >= max_model_len:
        raise context_too_long(
            f"The prompt has {num_prompt_tokens} tokens; with a context of {max_model_len} it may have at most "
            f"{max_model_len - 1}.",
            param="prompt",
        )
    if num_prompt_tokens + max_tokens > max_model_len:
        raise context_too_long(
            f"The prompt's {num_prompt_tokens} tokens and max_tokens {max_tokens} exceed the context of "
            f"{max_model_len}; ask for at most {max_model_len - num_prompt_tokens}.",
            param="max_tokens",
        )


def _check_prompt(ids: list[int], vocab_size: int) -> None:
    if not ids:
        raise InvalidField("prompt", "prompt must hold at least one token")
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(token for token in ids if not 0 <= token < vocab_size)
        raise InvalidField("prompt", f"prompt: token id {wrong} is not between 0 and {vocab_size - 1}")


def _check_stop(stop: tuple[str, ...], settings: Settings) -> None:
    if len(stop) > settings.max_stop_strings:
        raise invalid("stop", f"stop holds {len(stop)} strings; the limit is {settings.max_stop_strings}")
    for string in stop:
        if not 1 <= len(string) <= settings.max_stop_string_chars:
            raise invalid(
                "stop", f"a stop string must have 1 to {settings.max_stop_string_chars} characters, not {len(string)}"
            )
