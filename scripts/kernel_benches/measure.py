"""Times GPU work by replay of a CUDA graph, against what the card does best."""

import statistics
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch

Launch = Callable[[], object]

REPLAYS = 7


@dataclass(frozen=True, slots=True)
class Card:
    bytes_per_us: float
    flops_per_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    kernel: str
    shape: str
    config: str
    us: float
    floor_us: float
    error: float = 0.0  # against the first config of the shape

    @property
    def share(self) -> float:
        return self.floor_us / self.us


@dataclass(slots=True)
class Results:
    timings: list[Timing] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def attempt(self, what: str, work: Launch) -> object:
        """What fails is reported and does not stop the rest."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 one bad config must not cost the others their time on the device
            text = str(error).strip().splitlines() or [repr(error)]
            self.failures.append(f"{what}: {type(error).__name__}: {text[0][:200]}")
            if not isinstance(error, torch.OutOfMemoryError) and "out of resource" not in str(error):
                self.failures.append(traceback.format_exc(limit=-3))
            return None

    def print_shape(self, kernel: str, shape: str, default: str, keep: int = 3) -> None:
        """The best configs of a shape, and the one tuning.py has."""
        rows = sorted((t for t in self.timings if (t.kernel, t.shape) == (kernel, shape)), key=lambda t: t.us)
        for place, row in enumerate(rows):
            if place < keep or row.config == default:
                mark = "*" if row.config == default else " "
                print(f"  {row.us:9.1f} us {row.share:6.1%} {mark} {row.config}", flush=True)

    def as_json(self) -> dict[str, object]:
        return {"timings": [{**asdict(t), "share": t.share} for t in self.timings], "failures": self.failures}


def measure_card() -> Card:
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copy_us = graph_us([lambda: target.copy_(source)])
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product_us = graph_us([lambda: a @ b])
    return Card(bytes_per_us=2 * source.numel() / copy_us, flops_per_us=2 * 8192**3 / product_us)


def graph_us(launches: Sequence[Launch]) -> float:
    """Median time of one launch, when all are replayed one after the other; give them different data."""
    for launch in launches[:2]:
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for launch in launches:
            launch()
    graph.replay()
    return _median_us(graph.replay) / len(launches)


def eager_us(launch: Launch) -> float:
    """Median time of what cannot be captured."""
    launch()
    return _median_us(launch)


def _median_us(work: Launch) -> float:
    times: list[float] = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(float(start.elapsed_time(end)) * 1000)
    return statistics.median(times)


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """NaN where any number is."""
    return float((got.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-6))
