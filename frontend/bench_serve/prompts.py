"""What a benchmark asks, whatever it comes from: prompts, and a source that has fresh ones for each repetition."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Token ids or text, and how many tokens to answer with."""

    content: list[int] | str
    max_tokens: int


class PromptSource(Protocol):
    """Where prompts come from."""

    @property
    def name(self) -> str: ...

    @property
    def num_prompts(self) -> int: ...

    @property
    def sampling(self) -> dict[str, Any]:
        """Request fields that belong to this source."""

    def prompts(self, rep: int) -> Iterator[Prompt]:
        """`num_prompts` of them, the same for the same repetition."""
