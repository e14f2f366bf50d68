"""What a replay needs of one row: the prompt, every output id, the parameters, and how often it was tried."""

from array import array
from dataclasses import dataclass

from msgspec.structs import replace

from protocol.messages import Submit
from protocol.sampling import Sampling

_SEEDS = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What all choices of one request share."""

    ids: bytes  # int32
    block_hashes: bytes
    sampling: Sampling
    salt: str = ""
    priority: int = 0
    prompt_logprobs: int | None = None


class Journal:
    """One row's record. `outputs` grows by every token that the row's stream accepted, and by no other."""

    __slots__ = ("_prompt", "_tried_at", "attempt", "choice", "fruitless", "number", "outputs")

    def __init__(self, prompt: Prompt, *, number: int, choice: int) -> None:
        self._prompt = prompt
        self.number = number
        self.choice = choice
        self.outputs = array("i")
        self.attempt = 0
        self.fruitless = 0  # attempts in a row, the present one not counted, that gave no token
        self._tried_at = 0

    def next_attempt(self) -> None:
        """The present attempt is lost."""
        self.fruitless = self.fruitless + 1 if len(self.outputs) == self._tried_at else 0
        self._tried_at = len(self.outputs)
        self.attempt += 1

    def first_submit(self, *, epoch: int, seq: int, num_choices: int) -> Submit:
        """The request as it came: this row and the `num_choices` - 1 that follow it, which share its prompt."""
        prompt = self._prompt
        return Submit(
            seq=seq,
            epoch=epoch,
            number=self.number,
            num_choices=num_choices,
            prompt=prompt.ids,
            block_hashes=prompt.block_hashes,
            sampling=prompt.sampling,
            salt=prompt.salt,
            priority=prompt.priority,
            prompt_logprobs=prompt.prompt_logprobs,
        )

    def to_submit(self, *, epoch: int, seq: int) -> Submit:
        """This row alone, from where it stands: it goes on as it would have."""
        prompt = self._prompt
        return Submit(
            seq=seq,
            epoch=epoch,
            number=self.number,
            attempt=self.attempt,
            prompt=prompt.ids,
            outputs=self.outputs.tobytes(),
            block_hashes=prompt.block_hashes,
            sampling=replace(prompt.sampling, seed=(prompt.sampling.seed + self.choice) % _SEEDS),
            salt=prompt.salt,
            priority=prompt.priority,
            prompt_logprobs=self._missing_prompt_logprobs(),
        )

    def _missing_prompt_logprobs(self) -> int | None:
        """They come whole before the first token and once for all choices: later nobody asks again."""
        return None if self.outputs or self.choice > 0 else self._prompt.prompt_logprobs
