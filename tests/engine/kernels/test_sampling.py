"""The filters keep exactly the tokens that a sort of the whole row would keep."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.sampling import NUCLEUS, RUN, draw, thresholds
from protocol.sampling import Sampling
from tests.helpers.slow_sampling import probabilities

filters = st.tuples(
    st.sampled_from([0, 1, 2, 17, 300, 5000]),
    st.sampled_from([0.01, 0.5, 0.95, 1.0]),
    st.sampled_from([0.0, 0.02, 1.0]),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(filters, min_size=1, max_size=5), st.sampled_from([5, 100, 1000, 3000]), st.integers(0, 50))
def test_kept_sets(rows: list[tuple[int, float, float]], vocab: int, seed: int) -> None:
    """Also where the nucleus is larger than what is looked at first (a flat row), and where logits tie."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, random.choice([0.1, 1.0, 4.0], (len(rows), 1)), (len(rows), vocab))
    logits = np.round(logits * 8) / 8 if seed % 2 else logits
    scaled = torch.from_numpy(logits.astype(np.float32))
    top_k, top_p, min_p = (torch.tensor(column) for column in zip(*rows, strict=True))
    least = thresholds(scaled, top_k, top_p.float(), min_p.float())
    for row, (k, p, m) in enumerate(rows):
        sampling = Sampling(seed=0, max_tokens=1, top_k=k, top_p=p, min_p=m)
        wanted = probabilities(scaled[row].double().numpy(), sampling) > 0
        kept = (scaled[row] >= least[row]).numpy()
        assert kept.any()
        differing = scaled[row].numpy()[kept != wanted]  # at most one value, where float32 sums round the other way
        assert len(np.unique(differing)) <= 1


def test_a_filter_that_is_off_for_a_row_changes_nothing() -> None:
    scaled = torch.randn(3, 200)
    off = torch.zeros(3, dtype=torch.int64), torch.ones(3), torch.zeros(3)
    assert (scaled >= thresholds(scaled, *off)[:, None]).all()


@pytest.mark.parametrize("vocab", [1, RUN - 1, RUN, RUN + 1, 5 * RUN + 7, NUCLEUS * 4])
def test_only_tokens_of_finite_logit_are_drawn(vocab: int) -> None:
    scaled = torch.full((500, vocab), -torch.inf)
    allowed = sorted({0, vocab // 2, vocab - 1})
    scaled[:, allowed] = 0.0
    assert sorted(set(draw(scaled, torch.arange(500)).tolist())) == allowed
