"""Products of one row: every config, and cuBLAS, against the time that reading the matrix takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from engine.kernels.one_row import (
    linear_add,
    linear_add_twin,
    norm_gated,
    norm_gated_twin,
    norm_linear,
    norm_linear_twin,
)
from engine.kernels.tuning import OneRowConfig, one_row_config
from scripts.kernel_benches.compile_ahead import Job
from scripts.kernel_benches.measure import Card, Results, Timing, graph_us, relative_error

NAME = "one_row"
LAUNCH_BYTES = 512 << 20  # what all launches of a graph read together: several times the GPU's cache
EPS = 1e-5

Product = Callable[[Tensor, Tensor, Tensor, Tensor, OneRowConfig | None], object]  # x, norm, weight, residual


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    kind: str  # of PRODUCTS
    size_in: int
    size_out: int

    @property
    def matrix(self) -> tuple[int, int]:
        return self.size_out * (1 + (self.kind == "gated")), self.size_in


CASES = [
    Case("0.6B qkv", "normed", 1024, 4096),
    Case("0.6B output", "added", 2048, 1024),
    Case("0.6B gate, up", "gated", 1024, 3072),
    Case("0.6B down", "added", 3072, 1024),
    Case("8B qkv", "normed", 4096, 6144),
    Case("8B output", "added", 4096, 4096),
    Case("8B gate, up", "gated", 4096, 14336),
    Case("8B down", "added", 14336, 4096),
]
PRODUCTS: dict[str, Product] = {
    "normed": lambda x, norm, weight, _, config: norm_linear(x, norm, EPS, weight, None, config=config),
    "gated": lambda x, norm, weight, _, config: norm_gated(x, norm, EPS, weight, config=config),
    "added": lambda x, _, weight, residual, config: linear_add(x, weight, None, residual, config=config),
}


def configs(case: Case) -> Iterator[OneRowConfig]:
    if case.kind == "added":
        for rows, piece, warps in product((1, 2, 4, 8), (1024, 2048), (4, 8)):
            yield OneRowConfig(rows=rows, piece=piece, warps=warps)
    else:
        yield from (OneRowConfig(rows=rows, piece=0, warps=warps) for rows, warps in product((1, 2, 4, 8), (2, 4, 8)))


def numbers(case: Case, matrices: int) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    """x, norm, weights and residual."""
    of = {"dtype": torch.bfloat16, "device": "cuda"}
    weights = [torch.randn(case.matrix, **of) * 0.02 for _ in range(matrices)]  # type: ignore[call-overload]
    x, norm = torch.randn(1, case.size_in, **of), torch.randn(case.size_in, **of)  # type: ignore[call-overload]
    return x, norm, weights, torch.randn(1, case.size_out, **of)  # type: ignore[call-overload]


def compile_jobs() -> list[Job]:
    return [(compile_one, (case, config)) for case in CASES for config in configs(case)]


def compile_one(case: Case, config: OneRowConfig) -> None:
    x, norm, (weight,), residual = numbers(case, 1)
    PRODUCTS[case.kind](x, norm, weight, residual, config)
    torch.cuda.synchronize()


def check(results: Results) -> None:
    """Random numbers against float32."""
    for case in CASES:
        x, norm, (weight,), residual = numbers(case, 1)
        wide = residual.float()
        if case.kind == "added":
            linear_add_twin(x.float(), weight.float(), None, wide)
            linear_add(x, weight, None, residual)
            found, expected = residual, wide
        elif case.kind == "gated":
            found = norm_gated(x, norm, EPS, weight)
            expected = norm_gated_twin(x.float(), norm.float(), EPS, weight.float())
        else:
            found = norm_linear(x, norm, EPS, weight, None)
            expected = norm_linear_twin(x.float(), norm.float(), EPS, weight.float(), None)
        error = relative_error(found, expected)
        if not error < 1e-2:
            results.failures.append(f"{case.name}: relative error {error}")


def run(card: Card, results: Results) -> None:
    for case in CASES:
        _Trial(card, results, case).time_all([*configs(case)])


class _Trial:
    """One product, with as many matrices as a graph has launches."""

    def __init__(self, card: Card, results: Results, case: Case) -> None:
        num_bytes = 2 * case.matrix[0] * case.matrix[1]
        self._case = case
        self._results = results
        self._shape = case.name
        self._floor_us = num_bytes / card.bytes_per_us
        self._x, self._norm, self._weights, self._residual = numbers(case, max(4, LAUNCH_BYTES // num_bytes))

    def time_all(self, choices: list[OneRowConfig]) -> None:
        """These, the one of tuning.py, and the library."""
        default = one_row_config(size_in=self._case.size_in)
        self._time("cuBLAS, the product alone", lambda weight: torch.mm(self._x, weight.t()))
        launch = PRODUCTS[self._case.kind]
        for config in {default, *choices}:
            self._time(str(config), lambda w, c=config: launch(self._x, self._norm, w, self._residual, c))  # type: ignore[misc]
        print(f"{self._shape}: {self._floor_us:.1f} us to read", flush=True)
        self._results.print_shape(NAME, self._shape, str(default))

    def _time(self, label: str, launch: Callable[[Tensor], object]) -> None:
        calls = [lambda weight=weight: launch(weight) for weight in self._weights]  # type: ignore[misc]
        us = self._results.attempt(f"{self._shape} {label}", lambda: graph_us(calls))
        if isinstance(us, float):
            timing = Timing(kernel=NAME, shape=self._shape, config=label, us=us, floor_us=self._floor_us)
            self._results.timings.append(timing)
