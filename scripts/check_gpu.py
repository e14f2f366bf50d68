"""Compares the GPU runner with the CPU runner in float32, token for token, on small random models of each architecture.

usage: python scripts/check_gpu.py        on a machine with a GPU; prints one line a case, exit status 1 if one failed
"""

import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.batch import LogprobRows
from protocol.sampling import Sampling
from tests.helpers.drive_runner import Driver, engine_config, start
from tests.helpers.small_models import MODELS, save_model

SAMPLINGS = [
    Sampling(seed=1, max_tokens=1000, temperature=0.0),
    Sampling(seed=2, max_tokens=1000, temperature=1.0),
    Sampling(seed=3, max_tokens=1000, temperature=0.7, top_k=20, top_p=0.9),
    Sampling(seed=4, max_tokens=1000, temperature=1.3, min_p=0.05),
    Sampling(seed=5, max_tokens=1000, temperature=0.0, repetition_penalty=1.2, logprobs=3),
]
# What the GPU draws once more, beside rows that ask for nothing. Stop ids are half of the vocabulary, for min_tokens.
STOP_IDS = tuple(range(0, 190, 2))
ONE_TOKEN_WORDS = tuple((token,) for token in range(0, 190, 7))
REPETITIONS = tuple((token, token) for token in range(100))
BIASES = {token: 4.0 if token % 2 else -4.0 for token in range(0, 190, 5)}
DEMANDING = [
    Sampling(seed=1, max_tokens=1000, temperature=0.0, presence_penalty=0.5, frequency_penalty=0.3),
    Sampling(seed=2, max_tokens=1000, temperature=1.0, frequency_penalty=-0.5, repetition_penalty=1.3, logprobs=5),
    Sampling(seed=3, max_tokens=1000, temperature=0.0, logit_bias=BIASES, logprobs=2),
    Sampling(seed=4, max_tokens=1000, temperature=0.8, top_p=0.9, allowed_token_ids=tuple(range(0, 190, 9))),
    Sampling(seed=5, max_tokens=1000, temperature=0.0, bad_words=(*ONE_TOKEN_WORDS, *REPETITIONS)),
    Sampling(seed=6, max_tokens=1000, temperature=1.0, min_tokens=20, logprobs=20),
    Sampling(seed=7, max_tokens=1000, temperature=0.9, top_k=50),
    Sampling(
        seed=8,
        max_tokens=1000,
        temperature=0.7,
        min_p=0.01,
        min_tokens=10,
        repetition_penalty=0.8,
        presence_penalty=1.0,
        logprobs=0,
        logit_bias=BIASES,
        allowed_token_ids=tuple(range(180)),
        bad_words=ONE_TOKEN_WORDS,
    ),
]
MAX_LOGPROB_ERROR = 1e-3
LENGTHS = (5, 33, 64, 17, 120, 1, 40, 16)

Found = tuple[list[list[int]], list[LogprobRows]]


def outputs(driver: Driver, *, chunk: int, samplings: list[Sampling], count: int) -> Found:
    """Tokens and log-probabilities of rows of different lengths, some joining later than others."""
    rng = np.random.default_rng(5)
    rows = [
        driver.add(slot, rng.integers(0, 190, size=length).tolist(), sampling, stop_ids=STOP_IDS)
        for slot, (length, sampling) in enumerate(zip(LENGTHS, samplings, strict=False))
    ]
    results = []
    for some, enough in ((rows[:2], 4), (rows, count)):
        while waiting := [row for row in some if len(row.outputs) < enough]:
            results.append(driver.step(waiting, chunk=chunk))
    return [row.outputs for row in rows], [result.logprobs for result in results if result.logprobs is not None]


def compare(folder: Path, **how: object) -> str:
    """How many tokens of all rows are equal."""
    drivers = [start(engine_config(folder, device=device, max_num_seqs=32)) for device in ("cpu", "cuda")]
    while drivers[1].runner.prepare():  # every graph, so that steps of all kinds use theirs
        pass
    found = [outputs(driver, count=40, **how) for driver in drivers]  # type: ignore[arg-type]  # by keyword
    tokens = [of_all for of_all, _ in found]
    same = sum(a == b for row, other in zip(*tokens, strict=True) for a, b in zip(row, other, strict=True))
    total = sum(map(len, tokens[0]))
    if same < total:
        where = [
            next((i for i, (a, b) in enumerate(zip(x, y, strict=True)) if a != b), None)
            for x, y in zip(*tokens, strict=True)
        ]
        raise AssertionError(f"{same} of {total} tokens are equal; rows differ from {where}")
    return f"{same} of {total} tokens are equal, {compare_logprobs(*(logprobs for _, logprobs in found))}"


def compare_logprobs(found: list[LogprobRows], wanted: list[LogprobRows]) -> str:
    errors = [0.0]
    for one, other in zip(found, wanted, strict=True):
        if one.rows.tolist() != other.rows.tolist():
            raise AssertionError(f"log-probabilities of rows {one.rows.tolist()} and {other.rows.tolist()}")
        errors += [float(np.abs(one.logprobs - other.logprobs).max())]
        errors += [float(np.abs(one.top_logprobs - other.top_logprobs).max(initial=0.0))]
    if max(errors) > MAX_LOGPROB_ERROR:
        raise AssertionError(f"log-probabilities differ by up to {max(errors):.1e}")
    return f"log-probabilities to {max(errors):.0e}"


def main() -> int:
    """Every case; a failure does not stop the others."""
    failures = 0
    cases: list[tuple[str, Callable[[], str]]] = []
    with tempfile.TemporaryDirectory() as parent:
        for name in MODELS:
            folder = Path(parent) / name
            save_model(name, folder)
            greedy, mixed, demanding = [SAMPLINGS[0]] * 5, SAMPLINGS, DEMANDING
            cases += [
                (f"{name}, greedy, whole prompts", lambda f=folder, s=greedy: compare(f, chunk=10**6, samplings=s)),
                (f"{name}, greedy, chunks of 16", lambda f=folder, s=greedy: compare(f, chunk=16, samplings=s)),
                (f"{name}, mixed sampling", lambda f=folder, s=mixed: compare(f, chunk=32, samplings=s)),
                (f"{name}, demanding rows", lambda f=folder, s=demanding: compare(f, chunk=32, samplings=s)),
            ]
        for name, case in cases:
            try:
                print(f"ok      {name}: {case()}", flush=True)
            except Exception as error:  # noqa: BLE001 - the other cases are of interest too
                failures += 1
                print(f"FAILED  {name}: {error}", flush=True)
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
