"""What one request may ask for: the caps that the server's settings place on a body."""

from frontend.errors import ApiError, context_too_long, invalid
from frontend.openai_bodies.fields import SamplingFields
from frontend.settings import Settings

MAX_PROMPTS = 1024
MAX_BAD_WORDS = 64  # each is at most two sequences of ids for the engine, which takes 128


def check_limits(body: SamplingFields, settings: Settings) -> None:
    """Raise `ApiError` 400 at the first field over its cap. What is a cap of the engine too, admission checks."""
    _at_most("n", body.n, settings.max_n, "--max-n")
    if body.bad_words and len(body.bad_words) > MAX_BAD_WORDS:
        raise invalid("bad_words", f"bad_words holds {len(body.bad_words)} words; the limit is {MAX_BAD_WORDS}.")
    if body.priority and not settings.enable_request_priority:
        raise invalid("priority", "priority is taken from requests only with --enable-request-priority; leave it out.")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options is only allowed with stream: true.")


def check_num_logprobs(field: str, asked: int | None, settings: Settings) -> None:
    """The same for the one field whose name differs between the routes."""
    _at_most(field, asked, settings.max_logprobs, "--max-logprobs")


def stop_strings(body: SamplingFields) -> tuple[str, ...]:
    """`stop` as what it means: no, one or several strings."""
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def answer_tokens(
    num_prompt_tokens: int,
    asked: int | None,
    default: int | None,
    *,
    max_model_len: int,
    param: str,
    prompt_param: str,
) -> int:
    """How many tokens the answer may have. Raises `ApiError` 400, which names the fields by the two params."""
    room = max_model_len - num_prompt_tokens
    if room < 1:
        raise prompt_too_long(f"{num_prompt_tokens} tokens", max_model_len, param=prompt_param)
    if asked is None:
        return room if default is None else min(room, default)
    if asked == 0:
        raise invalid(param, f"{param} must be at least 1.")
    if asked > room:
        raise context_too_long(
            f"The prompt has {num_prompt_tokens} tokens and {param} is {asked}, but both together may be at most "
            f"{max_model_len}: ask for at most {room}, or shorten the prompt.",
            param=param,
        )
    return asked


def prompt_too_long(size: str, max_model_len: int, *, param: str) -> ApiError:
    """The prompt alone fills the context."""
    return context_too_long(
        f"The prompt has {size}, but the context holds {max_model_len} tokens, at least one of them the answer's: "
        "shorten the prompt, or set truncate_prompt_tokens.",
        param=param,
    )


def _at_most(field: str, asked: int | None, limit: int, flag: str) -> None:
    if asked is not None and asked > limit:
        raise invalid(field, f"{field} must be at most {limit} (set by {flag}), not {asked}.")
