"""The shapes that `prompt` may have, as a list of single prompts."""

from frontend.errors import invalid
from frontend.translate.limits import MAX_PROMPTS


def to_prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """A text, ids, or a list of texts and lists of ids. Raises `ApiError` 400."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise invalid("prompt", "prompt must not be empty.")
    ids = [item for item in prompt if isinstance(item, int)]
    if len(ids) == len(prompt):
        return [ids]
    several = [item for item in prompt if not isinstance(item, int)]
    if ids:
        raise invalid("prompt", "prompt must be a text, a list of token ids, or a list of such; not a mixture.")
    if len(several) > MAX_PROMPTS:
        raise invalid("prompt", f"prompt holds {len(several)} prompts; the limit is {MAX_PROMPTS}.")
    return several
