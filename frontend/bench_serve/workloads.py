"""Workloads of random token ids: named ones that come with Headrace, and ones of given lengths."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from frontend.bench_serve.prompts import Prompt

_File = dict[str, tuple[int, int, int, int, int, dict[str, float]]]
_PATH = Path(__file__).with_name("workloads.json")
DEFAULT_VOCAB_SIZE = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Ids are uniform, lengths uniform between bounds, answers go on to their full length."""

    name: str
    num_prompts: int
    input_len: tuple[int, int]
    output_len: tuple[int, int]
    sampling: dict[str, float | bool]
    vocab_size: int

    def prompts(self, rep: int) -> Iterator[Prompt]:
        """No prompt is the beginning of another repetition's or workload's, so that no prefix cache helps."""
        rng = random.Random(f"{self.name}-{rep}")
        for _ in range(self.num_prompts):
            num_in, num_out = rng.randint(*self.input_len), rng.randint(*self.output_len)
            yield Prompt(content=[rng.randrange(self.vocab_size) for _ in range(num_in)], max_tokens=num_out)


def workload_names() -> list[str]:
    """The names that `named_workload` knows."""
    return list(_read())


def named_workload(name: str, *, num_prompts: int | None, vocab_size: int) -> Workload:
    """The workload of that name, or its first `num_prompts` requests."""
    full_num, in_low, in_high, out_low, out_high, sampling = _read()[name]
    return Workload(
        name=name,
        num_prompts=min(num_prompts or full_num, full_num),
        input_len=(in_low, in_high),
        output_len=(out_low, out_high),
        sampling={**sampling, "ignore_eos": True},
        vocab_size=vocab_size,
    )


def fixed_workload(*, input_len: int, output_len: int, num_prompts: int, vocab_size: int, seed: int) -> Workload:
    """Prompts and answers of one length each, greedy."""
    return Workload(
        name=f"{input_len}-{output_len}-{seed}",
        num_prompts=num_prompts,
        input_len=(input_len, input_len),
        output_len=(output_len, output_len),
        sampling={"temperature": 0.0, "ignore_eos": True},
        vocab_size=vocab_size,
    )


def _read() -> _File:
    return msgspec.json.decode(_PATH.read_bytes(), type=_File)
