"""Log-probabilities, ranks and alternatives are those of the twin, equals in the order of their ids."""

import pytest
import torch
from torch import Tensor

from engine.kernels import logprobs_triton
from engine.kernels.logprobs_triton import logprob_scratch, logprobs_into, logprobs_into_twin, unpacked

# numpy, which the interpreter computes with, warns of NaN that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def score(logits: Tensor, rows: Tensor, tokens: Tensor, num_top: int) -> Tensor:
    out = torch.full((len(rows), 2 + 2 * num_top), 77, dtype=torch.int32, device=logits.device)
    scratch = logprob_scratch(len(rows), logits.shape[1], logits.device)
    logprobs_into(out, logits, rows, tokens, num_top, scratch)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("vocab", "num_top"), [(40, 40), (1000, 0), (1000, 5), (4999, 20), (4999, 33)])
def test_log_probabilities_are_those_of_the_twin(
    device: torch.device, vocab: int, num_top: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(vocab)
    logits = (torch.randn(5, vocab) * 4).to(device, dtype)
    logits[1] = logits[1].round()  # many equals, at the top too
    rows = torch.tensor([4, 1, 0, 3], dtype=torch.int32, device=device)
    drawn = torch.randint(vocab, (5, 2), dtype=torch.int32).to(device)
    drawn[3, 0] = logits[3].argmax()
    found = unpacked(score(logits, rows, drawn[:, 0], num_top))
    wanted = torch.empty(4, 2 + 2 * num_top, dtype=torch.int32, device=device)
    logprobs_into_twin(wanted, logits, rows, drawn[:, 0], num_top)
    parts = unpacked(wanted)
    torch.testing.assert_close(found.logprobs, parts.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.top_logprobs, parts.top_logprobs, rtol=0, atol=2e-5)
    assert found.ranks.tolist() == parts.ranks.tolist()
    assert found.ranks[3] == 1
    in_order = logits[rows.long()].float().sort(dim=-1, descending=True, stable=True).indices
    assert found.top_ids.tolist() == in_order[:, :num_top].tolist()


def test_padding_is_left_alone_and_a_broken_row_harms_nobody(device: torch.device) -> None:
    logits = torch.randn(3, 300).to(device)
    logits[1, 7], logits[1, 8] = torch.nan, torch.inf
    rows = torch.tensor([1, -1, 2], dtype=torch.int32, device=device)
    tokens = torch.tensor([5, 0, 299], dtype=torch.int32, device=device)
    found = score(logits, rows, tokens, 3)
    assert found[1].eq(77).all()
    assert unpacked(found).top_ids[2].tolist() == logits[2].topk(3).indices.tolist()
    assert not unpacked(found).logprobs[0].isfinite()


def test_more_alternatives_than_the_kernel_is_good_at(device: torch.device) -> None:
    logits = torch.randn(70, 500).to(device)
    rows = torch.arange(70, dtype=torch.int32, device=device)
    count = logprobs_triton.MOST_TOP + 1
    found = unpacked(score(logits, rows, rows, count))
    assert found.top_ids.tolist() == logits.topk(count).indices.tolist()
