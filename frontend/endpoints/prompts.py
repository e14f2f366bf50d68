"""Text to prompt ids, off the event loop, with what is clearly too long refused before it is tokenized."""

from frontend.openai_bodies.fields import SamplingFields
from frontend.services import Services
from frontend.translate.limits import prompt_too_long


async def encode_prompt(
    services: Services, text: str, *, add_special_tokens: bool, truncates: bool, param: str
) -> list[int]:
    """The text's ids. Raises `ApiError` 400; `param` is the field that the text came from."""
    limit = services.text.tokenizer.max_chars(services.max_model_len)
    if limit is not None and len(text) > limit:
        if not truncates:
            raise prompt_too_long(f"{len(text)} characters", services.max_model_len, param=param)
        text = text[-2 * limit :]  # twice, so that no token that is kept can differ by the cut
    return await services.tokenize(text, add_special_tokens=add_special_tokens)


def truncate(ids: list[int], body: SamplingFields, *, max_tokens: int | None, max_model_len: int) -> list[int]:
    """The prompt's end, as long as `truncate_prompt_tokens` says; -1 leaves just room for the answer."""
    keep = body.truncate_prompt_tokens
    if keep is None:
        return ids
    if keep == -1:
        keep = max(1, max_model_len - max(1, max_tokens or 1))
    return ids[-keep:] if keep else []


async def encode_bad_words(services: Services, words: list[str] | None) -> tuple[tuple[int, ...], ...]:
    """Each word as ids, at the beginning of a text and after a space."""
    sequences: dict[tuple[int, ...], None] = {}  # ordered, without doubles
    for word in words or ():
        for variant in (word.lstrip(), " " + word.lstrip()):
            ids = await services.tokenize(variant, add_special_tokens=False)
            sequences[tuple(ids)] = None
    return tuple(ids for ids in sequences if ids)
