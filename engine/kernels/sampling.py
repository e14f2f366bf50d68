"""Draws tokens from logits: which tokens stay in the race, and the race itself.

All filters become one threshold a row: a token stays if its scaled logit reaches it, so equal logits share their fate
and no result hangs on the order of a sort. The race is Gumbel-max in two levels, exact in distribution: first over
runs of `RUN` token ids by the log of each run's total weight, then over the tokens of the winning run. So noise is
needed for V / RUN + RUN numbers instead of V. Noise is a hash of (row key, run) or (row key, token id) and of nothing
else: a row draws the same token whatever stands beside it in the batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

RUN = 64
NUCLEUS = 256  # top_p without top_k first looks among this many; only rows whose mass lies elsewhere are sorted whole

# SplitMix64's constants as the signed numbers torch computes with; products wrap.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_RUN_COUNTERS = 2**32  # beyond every token id


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotParameters:
    """How each slot samples, as vectors on the device."""

    temperature: Tensor  # float32; 0 = greedy
    top_k: Tensor  # int32; 0 = off
    top_p: Tensor  # float32; 1 = off
    min_p: Tensor  # float32; 0 = off
    seeds: Tensor  # int64


def sample_twin(logits: Tensor, slots: Tensor, positions: Tensor, parameters: SlotParameters) -> tuple[Tensor, Tensor]:
    """What `sampling_triton.sample` draws: tokens [S] int32, failed [S] bool. Every slot is a real one here."""
    slots, wide = slots.long(), logits.float()
    largest = wide.amax(-1)
    failed = ~largest.isfinite() | wide.isnan().any(-1)
    wide = wide.nan_to_num(0.0, 0.0, -torch.inf).masked_fill(failed[:, None], 0.0)
    temperature = parameters.temperature[slots]
    scaled = wide / torch.where(temperature > 0, temperature, 1.0)[:, None]
    filters = (vector[slots] for vector in (parameters.top_k.long(), parameters.top_p, parameters.min_p))
    least = thresholds_twin(scaled, *filters)
    drawn = draw_twin(
        scaled.masked_fill(scaled < least[:, None], -torch.inf), row_keys(parameters.seeds[slots], positions)
    )
    tokens = torch.where(temperature > 0, drawn, wide.argmax(-1))
    return tokens.masked_fill(failed, 0).int(), failed


def row_keys(seeds: Tensor, positions: Tensor) -> Tensor:
    """Each row's noise key for the token at a position. Neighbouring seeds and positions have unrelated keys."""
    return _scrambled(_scrambled(seeds) + positions.long() * _GOLDEN)


def draw(scaled: Tensor, keys: Tensor, least: Tensor | None = None) -> Tensor:
    """scaled [S, V] float32, -inf = cannot be drawn, at least one finite a row; keys [S] int64 -> ids [S] int64.

    Nor can logits below `least` [S] be drawn.
    """
    assert scaled.shape[:1] == keys.shape
    return draw_twin(scaled, keys, least)


def thresholds(scaled: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None) -> Tensor:
    """[S] the least scaled logit that stays; top_k [S] int64 (0 = off), top_p and min_p [S] float32; None: all off.

    top_k keeps the k largest, top_p of these the fewest that make up top_p of their mass, min_p of these those with at
    least min_p times the largest probability. The largest always stays.
    """
    assert top_k is None or top_k.shape == scaled.shape[:1]
    return thresholds_twin(scaled, top_k, top_p, min_p)


def draw_twin(scaled: Tensor, keys: Tensor, least: Tensor | None = None) -> Tensor:
    runs, numbers = _live_runs(scaled, least)
    weights = runs.logsumexp(-1).double()
    winners = (weights + _gumbel(keys, numbers + _RUN_COUNTERS)).argmax(-1, keepdim=True)
    members = runs.gather(1, winners[:, :, None].expand(-1, -1, RUN)).squeeze(1).double()
    ids = numbers.gather(1, winners) * RUN + torch.arange(RUN, device=keys.device)
    return ids.gather(1, (members + _gumbel(keys, ids)).argmax(-1, keepdim=True)).squeeze(1)


def thresholds_twin(scaled: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None) -> Tensor:
    bound = scaled.new_full(scaled.shape[:1], -torch.inf)
    largest = None
    if top_k is not None:
        largest, bound = _top_k_bound(scaled, top_k)
    if top_p is not None:
        bound = torch.maximum(bound, _top_p_bound(scaled, top_p, bound, largest))
    if min_p is not None:
        bound = torch.maximum(bound, scaled.amax(-1) + min_p.log())
    return bound


def _top_k_bound(scaled: Tensor, top_k: Tensor) -> tuple[Tensor, Tensor]:
    """The largest values [S, K] in order, and each row's top_k-th; -inf where top_k is off."""
    size = scaled.shape[1]
    limited = torch.where((top_k > 0) & (top_k < size), top_k, 0)
    largest = _largest(scaled, max(1, int(limited.max())))
    kth = largest.gather(1, (limited - 1).clamp_min(0)[:, None]).squeeze(1)
    return largest, torch.where(limited > 0, kth, -torch.inf)


def _top_p_bound(scaled: Tensor, top_p: Tensor, bound: Tensor, largest: Tensor | None) -> Tensor:
    """The value at which the mass of a row's largest reaches top_p of what reaches its bound."""
    # In float64 from run to run, so that it cannot matter which runs without weight are left out.
    mass = _live_runs(scaled, None if largest is None else bound)[0].logsumexp(-1).double().logsumexp(-1).float()
    unbounded = (bound == -torch.inf) & (top_p < 1.0)
    if largest is None or (largest.shape[1] < NUCLEUS and bool(unbounded.any())):
        largest = _largest(scaled, min(NUCLEUS, scaled.shape[1]))
    value, reached = _value_at_mass(largest, top_p, mass)
    rest = (unbounded & ~reached).nonzero().squeeze(1)
    if len(rest):
        value[rest] = _value_at_mass(_sorted_down(scaled.index_select(0, rest)), top_p[rest], mass[rest])[0]
    return torch.where(top_p < 1.0, value, -torch.inf)


def _value_at_mass(ordered: Tensor, top_p: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """The first value down to which the probabilities add up to top_p, else the last; and whether they do."""
    missing = (ordered - mass[:, None]).exp_().cumsum(-1) < top_p[:, None]
    first = missing.sum(-1, keepdim=True).clamp_max(ordered.shape[1] - 1)
    return ordered.gather(1, first).squeeze(1), ~missing[:, -1]


def _largest(scaled: Tensor, count: int) -> Tensor:
    """The `count` largest values of each row, in order.

    They lie in the `count` runs with the largest maxima (up to equals, which have the same value), so that for small
    counts a sort of a few thousand values does instead of one of the vocabulary.
    """
    runs = _in_runs(scaled)
    if count * 3 > runs.shape[1]:
        return scaled.topk(count).values
    best = runs.amax(-1).topk(count).indices
    return runs.gather(1, best[:, :, None].expand(-1, -1, RUN)).flatten(1).topk(count).values


def _sorted_down(values: Tensor) -> Tensor:
    if values.is_cuda:
        return values.sort(-1, descending=True).values
    # numpy sorts floats with SIMD instructions: 49,152 of them in 0.3 ms, torch in 4.
    return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)


def _live_runs(scaled: Tensor, least: Tensor | None) -> tuple[Tensor, Tensor]:
    """Runs [S, M, RUN] that hold all logits of at least `least` [S], the others in them as -inf; their numbers [S, M].

    After top_k or top_p these are few, and the work that follows is on them alone.
    """
    runs = _in_runs(scaled)
    numbers = torch.arange(runs.shape[1], device=scaled.device).expand(len(runs), -1)
    if least is None:
        return runs, numbers
    largest = runs.amax(-1)
    count = max(1, int((largest >= least[:, None]).sum(-1).max()))
    if count * 4 <= runs.shape[1]:
        numbers = largest.topk(count).indices
        runs = runs.gather(1, numbers[:, :, None].expand(-1, -1, RUN))
    return torch.where(runs < least[:, None, None], -torch.inf, runs), numbers


def _in_runs(scaled: Tensor) -> Tensor:
    """[S, V / RUN, RUN], with -inf behind a vocabulary that is no multiple."""
    short = -scaled.shape[1] % RUN
    padded = functional.pad(scaled, (0, short), value=-torch.inf) if short else scaled
    return padded.view(len(scaled), -1, RUN)


def _gumbel(keys: Tensor, counters: Tensor) -> Tensor:
    """Standard Gumbel noise [S, n] in float64 from keys [S] and counters [n] or [S, n]."""
    bits = _scrambled(keys[:, None] + counters * _GOLDEN)
    uniform = (_shifted(bits, 11).double() + 0.5) * 2.0**-53
    noise: Tensor = uniform.log_().neg_().log_().neg_()
    return noise


def _scrambled(bits: Tensor) -> Tensor:
    """SplitMix64's finisher."""
    bits = (bits ^ _shifted(bits, 30)) * _MIX_1
    bits = (bits ^ _shifted(bits, 27)) * _MIX_2
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """The logical right shift; torch's fills with the sign."""
    shifted: Tensor = (bits >> places) & (2 ** (64 - places) - 1)
    return shifted
