"""What an answer repeats of its prompt on request: `prompt_token_ids` and `prompt_logprobs`."""

from dataclasses import dataclass
from typing import TypedDict

from msgspec import UNSET, UnsetType

from frontend.openai_bodies.answers import PromptLogprobList
from frontend.request import TokenLogprob
from frontend.tokenizer import Tokenizer
from frontend.translate.answer import to_json
from frontend.translate.logprobs import prompt_logprobs


@dataclass(slots=True, kw_only=True)
class PromptFacts:
    """One prompt as the answer may repeat it."""

    token_ids: list[int]
    text: str = ""  # what an echo puts before the answer
    logprobs: list[TokenLogprob | None] | None = None  # set before the first delta, where asked for


class PromptFields(TypedDict):
    """The two fields; UNSET leaves one out."""

    prompt_token_ids: list[int] | UnsetType
    prompt_logprobs: PromptLogprobList | UnsetType


def prompt_fields(prompt: PromptFacts, tokenizer: Tokenizer, *, ids: bool, num_top: int | None) -> PromptFields:
    """As records hold them."""
    logprobs: PromptLogprobList | UnsetType = UNSET
    if num_top is not None and prompt.logprobs is not None:
        logprobs = prompt_logprobs(tokenizer, prompt.logprobs, num_top=num_top)
    return {"prompt_token_ids": prompt.token_ids if ids else UNSET, "prompt_logprobs": logprobs}


def as_json_tail(fields: PromptFields) -> bytes:
    """As bytes to be put before a closing brace: `,"prompt_token_ids":[1,2]`, or nothing."""
    present = {name: value for name, value in fields.items() if value is not UNSET}
    return b"," + to_json(present)[1:-1] if present else b""
