"""How a model's rotary embedding turns positions into angles, as its config.json says. Knows no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from engine.models.config_json import Fields, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeShape:
    theta: float
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0  # these three are llama3's
    high_freq_factor: float = 1.0
    original_max_positions: int = 0


def read_rope(config: Fields) -> RopeShape:
    """Both spellings: `rope_theta` beside `rope_scaling`, and `rope_parameters` that holds all of it."""
    scaling = config.inner("rope_parameters" if "rope_parameters" in config else "rope_scaling")
    theta = scaling.number("rope_theta", config.number("rope_theta", 10_000.0))
    if scaling.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0)) != 1.0:
        raise ModelError(f"{config.place}: a partial_rotary_factor other than 1 is not supported")
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if kind == "default":
        return RopeShape(theta=theta)
    if kind == "linear":
        return RopeShape(theta=theta, kind="linear", factor=scaling.number("factor"))
    if kind == "llama3":
        return _llama3(scaling, theta)
    raise ModelError(f"{scaling.place}: RoPE scaling {kind!r} is not supported; default, linear and llama3 are")


def _llama3(scaling: Fields, theta: float) -> RopeShape:
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if low >= high:
        raise ModelError(f"{scaling.place}: low_freq_factor {low:g} must be smaller than high_freq_factor {high:g}")
    return RopeShape(
        theta=theta,
        kind="llama3",
        factor=scaling.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_positions=scaling.size("original_max_position_embeddings"),
    )


def inverse_frequencies(rope: RopeShape, head_dim: int) -> list[float]:
    """Radians per position of each of the head_dim / 2 rotated pairs."""
    plain = [rope.theta ** (-2.0 * pair / head_dim) for pair in range(head_dim // 2)]
    if rope.kind == "linear":
        return [frequency / rope.factor for frequency in plain]
    if rope.kind == "llama3":
        return [_llama3_frequency(rope, frequency) for frequency in plain]
    return plain


def _llama3_frequency(rope: RopeShape, frequency: float) -> float:
    """Long waves are slowed by the factor, short ones kept, those between blended by how often they turn."""
    turns = rope.original_max_positions * frequency / (2.0 * math.pi)  # over the length the model was trained on
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = min(1.0, max(0.0, kept))
    return kept * frequency + (1.0 - kept) * frequency / rope.factor
