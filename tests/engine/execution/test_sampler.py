"""The sampler against a slow reference, alone and in mixed batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import SlotSetup
from engine.config import EnginePlan
from engine.execution.sampler import Drawn, Sampler
from engine.execution.slot_tables import SlotTables
from protocol.sampling import Sampling
from tests.helpers.slow_sampling import constrained, probabilities

VOCAB = 150
PLAN = EnginePlan(
    device="cpu",
    dtype="float32",
    max_model_len=64,
    block_size=16,
    num_blocks=8,
    max_num_seqs=6,
    max_num_batched_tokens=64,
    vocab_size=VOCAB,
)
ids = st.integers(0, 9)  # few, so that they meet


@dataclass(frozen=True)
class Case:
    sampling: Sampling
    prompt: list[int]
    outputs: list[int]
    stop_ids: tuple[int, ...] = ()


class Bench:
    """A sampler with rows in slots 5, 4, 3, ..."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.tables = SlotTables(PLAN, torch.device("cpu"))
        self.sampler = Sampler(PLAN, self.tables)
        self.slots = np.arange(len(cases), dtype=np.int64)[::-1].copy()
        self.positions = np.array([len(case.prompt) + len(case.outputs) for case in cases], np.int64)
        for slot, case in zip(self.slots.tolist(), cases, strict=True):
            self.install(slot, case)

    def install(self, slot: int, case: Case) -> None:
        setup = SlotSetup(
            slot=slot,
            sampling=case.sampling,
            seed=case.sampling.seed,
            prompt_len=len(case.prompt),
            stop_ids=case.stop_ids,
            tokens=np.array([*case.prompt, *case.outputs], np.int32),
        )
        self.tables.install(setup)
        self.sampler.install(setup)

    def draw(self, logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Drawn:
        with torch.inference_mode():
            return self.sampler.draw(torch.from_numpy(logits.copy()), self.slots, self.positions)


def some_logits(rows: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 2, (rows, VOCAB)).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    words = st.lists(st.tuples(ids) | st.tuples(ids, ids) | st.tuples(ids, ids, ids), max_size=3)
    sampling = Sampling(
        seed=draw(st.integers(0, 2**64 - 1)),
        max_tokens=60,
        min_tokens=draw(st.sampled_from([0, 3])),
        temperature=draw(st.sampled_from([0.0, 0.7, 1.0])),
        top_k=draw(st.sampled_from([0, 1, 5, VOCAB])),
        top_p=draw(st.sampled_from([0.3, 0.9, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.1, 1.0])),
        presence_penalty=draw(st.sampled_from([0.0, -1.5, 0.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 1.0])),
        repetition_penalty=draw(st.sampled_from([1.0, 0.8, 1.4])),
        logprobs=draw(st.sampled_from([None, 0, 3])),
        logit_bias=draw(st.dictionaries(ids, st.sampled_from([-100.0, 2.5]), max_size=3)),
        allowed_token_ids=draw(
            st.none() | st.lists(st.integers(0, 20), min_size=4, max_size=9, unique=True).map(tuple)
        ),
        bad_words=tuple(draw(words)),
    )
    tokens = st.lists(ids, max_size=12)
    return Case(sampling, [1, *draw(tokens)], draw(tokens), draw(st.sampled_from([(), (2,), (2, 11)])))


@settings(max_examples=150, deadline=None)
@given(st.lists(cases(), min_size=1, max_size=6), st.integers(0, 99))
def test_a_mixed_batch_draws_only_what_each_row_allows(batch: list[Case], seed: int) -> None:
    logits = some_logits(len(batch), seed)
    bench = Bench(batch)
    drawn = bench.draw(logits)
    for row, case in enumerate(batch):
        s = case.sampling
        wanted = constrained(
            logits[row].astype(np.float64), s, prompt=case.prompt, outputs=case.outputs, stop_ids=case.stop_ids
        )
        assert bool(drawn.failed[row]) == bool((wanted == -np.inf).all())
        if drawn.failed[row]:
            continue
        token = int(drawn.tokens[row])
        if s.temperature == 0.0:
            assert wanted[token] >= wanted.max() - 1e-4
        else:
            assert probabilities(wanted, s)[token] > 0 or near_a_border(wanted, s, token)


def near_a_border(logits: np.ndarray[tuple[int], np.dtype[np.float64]], s: Sampling, token: int) -> bool:
    """A filter's border falls between two tokens that float32 cannot tell apart."""
    kept = np.flatnonzero(probabilities(logits, s))
    return bool(logits[kept].min() - logits[token] < 1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(cases(), min_size=2, max_size=6), st.integers(0, 99))
def test_a_row_draws_the_same_alone_and_in_company(batch: list[Case], seed: int) -> None:
    logits = some_logits(len(batch), seed)
    together = Bench(batch).draw(logits).tokens.tolist()
    alone = [int(Bench([case]).draw(logits[[row]]).tokens[0]) for row, case in enumerate(batch)]
    assert together == alone


@settings(max_examples=60, deadline=None)
@given(cases(), cases(), st.integers(0, 99))
def test_a_used_slot_is_as_good_as_new(former: Case, case: Case, seed: int) -> None:
    logits = some_logits(1, seed)
    used = Bench([former])
    used.draw(logits)
    used.install(0, case)
    used.positions[0] = len(case.prompt) + len(case.outputs)
    again, fresh = used.draw(logits), Bench([case]).draw(logits)
    assert again.tokens.tolist() == fresh.tokens.tolist()
    assert (again.logprobs is None) == (fresh.logprobs is None)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=0, max_tokens=9),
        Sampling(seed=0, max_tokens=9, temperature=0.6),
        Sampling(seed=0, max_tokens=9, temperature=1.3, top_k=12),
        Sampling(seed=0, max_tokens=9, top_p=0.8),
        Sampling(seed=0, max_tokens=9, top_k=30, top_p=0.7, min_p=0.05),
    ],
)
def test_draws_are_distributed_as_the_softmax(sampling: Sampling) -> None:
    """Chi-square over 20,000 positions of one seed; the limit is exceeded once in 10,000 honest runs."""
    count = 20_000
    logits = some_logits(1)
    bench = Bench([Case(sampling, [1], [])])
    bench.slots, bench.positions = np.zeros(count, np.int64), np.arange(count, dtype=np.int64)
    drawn = bench.draw(np.repeat(logits, count, axis=0))
    expected = probabilities(logits[0].astype(np.float64), sampling) * count
    counts = np.bincount(drawn.tokens.numpy(), minlength=VOCAB)
    assert counts[expected == 0].sum() == 0
    kept = expected > 5
    rest = max(float(expected[~kept].sum()), 1e-9)
    statistic = float(((counts - expected)[kept] ** 2 / expected[kept]).sum())
    statistic += (counts[~kept].sum() - rest) ** 2 / rest if rest > 5 else 0.0
    freedom = int(kept.sum())
    assert statistic < freedom + 3.8 * np.sqrt(2 * freedom) + 10


def test_neighbouring_seeds_and_positions_are_unrelated() -> None:
    """Of two flat draws about one in VOCAB agrees."""
    count = 20_000
    flat = np.zeros((count, VOCAB), np.float32)

    def tokens(seed: int, shift: int) -> list[int]:
        bench = Bench([Case(Sampling(seed=seed, max_tokens=9), [1], [])])
        bench.slots, bench.positions = np.zeros(count, np.int64), np.arange(count, dtype=np.int64) + shift
        drawn: list[int] = bench.draw(flat).tokens.tolist()
        return drawn

    first = tokens(7, 0)
    assert first == tokens(7, 0)
    for other in (tokens(8, 0), tokens(7, 1), tokens(7 + 2**63, 0)):
        agreeing = sum(a == b for a, b in zip(first, other, strict=True))
        assert count / VOCAB / 2 < agreeing < count / VOCAB * 2


def test_a_replay_draws_on_as_before() -> None:
    """Outputs that arrive inside the setup count like outputs drawn here: penalties, bad words, min_tokens, noise."""
    sampling = Sampling(
        seed=3,
        max_tokens=40,
        min_tokens=12,
        temperature=0.9,
        frequency_penalty=0.7,
        repetition_penalty=1.2,
        bad_words=((4, 5), (6,)),
    )
    case = Case(sampling, [1, 2, 3], [], (7, 8))
    logits = [some_logits(1, seed) for seed in range(20)]
    bench = Bench([case])
    outputs: list[int] = []
    for row in logits:
        token = bench.draw(row).tokens
        bench.tables.write(bench.slots, bench.positions, token)
        outputs.append(int(token[0]))
        bench.positions += 1
    for known in (1, 7, 19):
        replayed = Bench([Case(sampling, case.prompt, outputs[:known], case.stop_ids)])
        assert int(replayed.draw(logits[known]).tokens[0]) == outputs[known]


def test_rows_whose_logits_are_not_finite_fail_alone() -> None:
    greedy, random = Sampling(seed=0, max_tokens=9, temperature=0.0), Sampling(seed=0, max_tokens=9, top_p=0.9)
    logits = some_logits(5)
    logits[1, 3], logits[2, 3], logits[3, 3] = np.nan, np.inf, -np.inf
    batch = [Case(s, [1], []) for s in (greedy, random, greedy, random, random)]
    drawn = Bench(batch).draw(logits)
    assert drawn.failed.tolist() == [False, True, True, True, False]
    assert int(drawn.tokens.max()) < VOCAB
    clean = Bench(batch).draw(some_logits(5))
    assert drawn.tokens[[0, 4]].tolist() == clean.tokens[[0, 4]].tolist()


def test_equal_logits_are_drawn_lowest_id_first_by_greedy_rows() -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, [40, 90]] = 1.0
    assert Bench([Case(Sampling(seed=0, max_tokens=9, temperature=0.0), [1], [])]).draw(logits).tokens.tolist() == [40]


def test_log_probabilities_are_those_of_the_raw_logits() -> None:
    logits = some_logits(2)
    biased = Sampling(seed=0, max_tokens=9, temperature=0.0, logit_bias={9: 100.0}, logprobs=4, repetition_penalty=2.0)
    drawn = Bench([Case(Sampling(seed=0, max_tokens=9), [1], []), Case(biased, [9], [])]).draw(logits)
    assert drawn.logprobs is not None
    rows = drawn.logprobs.to_host()
    wanted = torch.from_numpy(logits[1]).log_softmax(-1).numpy()
    assert int(drawn.tokens[1]) == 9
    assert rows.rows.tolist() == [1]
    np.testing.assert_allclose(rows.logprobs, wanted[9], atol=1e-5)
    assert rows.ranks.tolist() == [int((wanted > wanted[9]).sum()) + 1]
    assert rows.top_ids.tolist() == [np.argsort(-wanted)[:4].tolist()]
    np.testing.assert_allclose(rows.top_logprobs[0], np.sort(wanted)[::-1][:4], atol=1e-5)
