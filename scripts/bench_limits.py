"""The limit of each workload on this card, by what its steps must compute and move, as nothing but torch measures it.

usage: python scripts/bench_limits.py [--workloads FILE] [--json FILE]

Measured here, in one run: copy rate, a large matrix product, causal attention by cuDNN, and all matrix products of one
step of either model by replay of a CUDA graph, at several batch sizes. A workload's limit adds these up step by step:
the products at the step's number of tokens (interpolated), the KV bytes it reads at the copy rate, attention of prompt
tokens at its rate, element-wise traffic at the copy rate or the launches it takes; nothing overlaps. Rows all start at
once, prompts are computed in steps of `--budget` tokens beside the rows that decode already.
"""

import argparse
import bisect
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048, 4096, 8192)
PEERS = Path(__file__).parent.parent / "shared" / "bench" / "workloads.json"
# [requests, in_low, in_high, out_low, out_high]; a copy for machines that have no shared folder
WORKLOADS = {
    "single": [1, 128, 128, 256, 256],
    "prefill": [512, 1024, 1024, 128, 128],
    "decode": [256, 128, 128, 512, 512],
    "decode512": [512, 64, 64, 256, 256],
    "sampled": [256, 128, 128, 256, 256],
    "w1": [256, 100, 1024, 100, 1024],
    "long": [8, 16384, 16384, 64, 64],
}
TOTAL = ("prefill", "long")  # reported in total tokens/s, the others in output tokens/s


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    qk_norm: bool

    @property
    def products(self) -> list[tuple[int, int]]:
        """[out, in] of one layer's matrices."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [(q + 2 * kv, self.hidden), (self.hidden, q), (2 * self.ffn, self.hidden), (self.hidden, self.ffn)]

    @property
    def kv_bytes(self) -> int:
        """Of one token over all layers, in bf16."""
        return 4 * self.kv_heads * self.head_dim * self.layers

    @property
    def elementwise_bytes(self) -> int:
        """Of one token over all layers: each fusion reads its inputs and writes its outputs once, in bf16."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = 2 * 4 * self.hidden  # x and residual in, residual and norm out
        rotary = 2 * (q + 2 * kv)
        return 2 * self.layers * (norms + rotary + 3 * self.ffn)

    @property
    def launches(self) -> int:
        """Of one step beside the products: two norms, rotary, attention, activation; embedding, inputs, sampling."""
        return 5 * self.layers + 5

    @property
    def attention_flops_per_pair(self) -> int:
        return 4 * self.heads * self.head_dim * self.layers


MODELS = (
    Model(
        name="llama-3.1-8b",
        layers=32,
        hidden=4096,
        ffn=14336,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab=128256,
        qk_norm=False,
    ),
    Model(
        name="qwen3-0.6b",
        layers=28,
        hidden=1024,
        ffn=3072,
        heads=16,
        kv_heads=8,
        head_dim=128,
        vocab=151936,
        qk_norm=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the card does, measured."""

    name: str
    copy_bytes_per_s: float
    product_flops: float
    attention_flops: float
    launch_s: float  # of one tiny kernel in a graph


def timed(run: Callable[[], object], *, repeat: int) -> float:
    """Median seconds of a call, by device events, after two to warm up."""
    for _ in range(2):
        run()
    times = []
    for _ in range(repeat):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def graph_of(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Captured after one call that makes handles and workspaces."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def measure_card() -> Card:
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = 2 * 8192**3 / timed(lambda: a @ b, repeat=20)
    tiny = torch.zeros(128, device="cuda")
    graph = graph_of(lambda: [tiny.add_(1.0) for _ in range(252)])
    return Card(
        name=torch.cuda.get_device_name(),
        copy_bytes_per_s=measure_copy(),
        product_flops=product,
        attention_flops=measure_attention(16384),
        launch_s=timed(graph.replay, repeat=20) / 252,
    )


def measure_copy() -> float:
    """Bytes/s, read and written, of a copy many times the L2."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / timed(lambda: target.copy_(source), repeat=10)


def measure_attention(length: int) -> float:
    """FLOP/s of causal attention with 32 query and 8 kv heads of 128."""
    q, k, v = (torch.randn(1, heads, length, 128, dtype=torch.bfloat16, device="cuda") for heads in (32, 8, 8))
    # Repeated before the clock starts: not every backend shares kv heads, and what is measured is arithmetic.
    k, v = k.repeat_interleave(4, 1), v.repeat_interleave(4, 1)

    def attend() -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    rates = []
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        try:
            with sdpa_kernel([backend]):
                rates.append(4 * 32 * 128 * length * (length + 1) / 2 / timed(attend, repeat=5))
        except RuntimeError as error:
            print(f"{backend.name} does not run here: {str(error).splitlines()[0]}", flush=True)
    return max(rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """Seconds of one step's matrix products at each of BATCHES rows."""

    layers: list[float]
    head: list[float]

    def at(self, tokens: int, sampled: int) -> float:
        return _interpolate(self.layers, tokens) + (_interpolate(self.head, sampled) if sampled else 0.0)


def _interpolate(seconds: list[float], rows: int) -> float:
    right = bisect.bisect_left(BATCHES, rows)
    if right == len(BATCHES):
        return seconds[-1] * rows / BATCHES[-1]
    if BATCHES[right] == rows:
        return seconds[right]
    left = right - 1
    share = (rows - BATCHES[left]) / (BATCHES[right] - BATCHES[left])
    return seconds[left] + share * (seconds[right] - seconds[left])


def measure_products(model: Model) -> Products:
    layers = [[_weight(*shape) for shape in model.products] for _ in range(model.layers)]
    head = [[_weight(model.vocab, model.hidden)]]
    return Products(
        layers=[_time_products(layers, batch) for batch in BATCHES],
        # A step samples from at most as many rows as there are slots; larger ones only fill the table.
        head=[_time_products(head, min(batch, 2048)) for batch in BATCHES],
    )


def _weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda").mul_(0.02)


def _time_products(layers: list[list[Tensor]], batch: int) -> float:
    inputs = {size: _weight(batch, size) for size in {matrix.shape[1] for matrix in layers[0]}}

    def run() -> None:
        for layer in layers:
            for matrix in layer:
                functional.linear(inputs[matrix.shape[1]], matrix)

    graph = graph_of(run)
    seconds = timed(graph.replay, repeat=5 if batch > 1024 else 10)
    del graph
    torch.cuda.empty_cache()
    return seconds


@dataclass(slots=True, kw_only=True)
class Row:
    prompt: int
    output: int
    computed: int = 0
    drawn: int = 0


class Limit:
    """Adds up the steps of one workload."""

    def __init__(self, card: Card, model: Model, products: Products, budget: int) -> None:
        self._card = card
        self._model = model
        self._products = products
        self._budget = budget
        self.parts = {"products": 0.0, "kv": 0.0, "attention": 0.0, "elementwise": 0.0}
        self.steps = 0

    def run(self, rows: list[Row]) -> float:
        """Seconds until all rows are done."""
        waiting, decoding = list(rows), list[Row]()
        while waiting or decoding:
            self._step(waiting, decoding)
        return sum(self.parts.values())

    def _step(self, waiting: list[Row], decoding: list[Row]) -> None:
        tokens = len(decoding)
        keys = sum(row.prompt + row.drawn for row in decoding)
        pairs, joined = 0, []
        while waiting and tokens < self._budget:
            row = waiting[0]
            length = min(row.prompt - row.computed, self._budget - tokens)
            pairs += length * row.computed + length * (length + 1) // 2
            row.computed += length
            tokens += length
            if row.computed == row.prompt:
                joined.append(waiting.pop(0))
        decoding.extend(joined)
        sampled = len(decoding)
        for row in decoding:
            row.drawn += 1
        decoding[:] = [row for row in decoding if row.drawn < row.output]
        self._add(tokens, sampled, keys, pairs)

    def _add(self, tokens: int, sampled: int, keys: int, pairs: int) -> None:
        card, model = self._card, self._model
        self.parts["products"] += self._products.at(tokens, sampled)
        self.parts["kv"] += keys * model.kv_bytes / card.copy_bytes_per_s
        self.parts["attention"] += pairs * model.attention_flops_per_pair / card.attention_flops
        launches = model.launches * card.launch_s
        self.parts["elementwise"] += max(launches, tokens * model.elementwise_bytes / card.copy_bytes_per_s)
        self.steps += 1


def rows_of(name: str, sizes: list[int]) -> list[Row]:
    requests, in_low, in_high, out_low, out_high = sizes
    chosen = random.Random(f"{name}-1")
    return [
        Row(prompt=chosen.randint(in_low, in_high), output=chosen.randint(out_low, out_high)) for _ in range(requests)
    ]


def limits_of(
    card: Card, model: Model, products: Products, workloads: dict[str, list[int]], budget: int
) -> dict[str, dict[str, float]]:
    table = {}
    for name, sizes in workloads.items():
        limit, rows = Limit(card, model, products, budget), rows_of(name, sizes)
        outputs = sum(row.output for row in rows)
        counted = outputs + (sum(row.prompt for row in rows) if name in TOTAL else 0)
        seconds = limit.run(rows)
        parts = {f"{part}_s": round(value, 4) for part, value in limit.parts.items()}
        table[name] = {"tokens_per_s": counted / seconds, "seconds": seconds, "steps": limit.steps, **parts}
    return table


def read_workloads(path: Path) -> dict[str, list[int]]:
    if not path.exists():
        return WORKLOADS
    return {name: entry[:5] for name, entry in json.loads(path.read_text()).items() if name != "_"}


def report(card: Card, model: Model, products: Products, table: dict[str, dict[str, float]]) -> None:
    print(f"\n{model.name}: products of one step, layers + head, ms")
    steps = zip(BATCHES, products.layers, products.head, strict=True)
    print("  " + "  ".join(f"{batch}: {1000 * layers:.3f}+{1000 * head:.3f}" for batch, layers, head in steps))
    print(f"  {'workload':<11}{'limit tok/s':>12}{'seconds':>9}{'steps':>7}   products/kv/attention/element-wise, s")
    for name, row in table.items():
        kind = "total" if name in TOTAL else ""
        parts = " ".join(f"{row[f'{part}_s']:.3f}" for part in ("products", "kv", "attention", "elementwise"))
        print(f"  {name:<11}{row['tokens_per_s']:>12,.0f}{row['seconds']:>9.3f}{row['steps']:>7.0f}   {parts} {kind}")


def main() -> None:
    """Measure, add up, print; both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=Path, default=PEERS)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    card, results = measure_card(), {}
    print(
        f"{card.name}: copy {card.copy_bytes_per_s / 1e12:.2f} TB/s, product {card.product_flops / 1e12:.0f} TFLOP/s, "
        f"attention {card.attention_flops / 1e12:.0f} TFLOP/s, a launch in a graph {1e6 * card.launch_s:.2f} us"
    )
    for model in MODELS:
        products = measure_products(model)
        torch.cuda.empty_cache()
        table = limits_of(card, model, products, read_workloads(args.workloads), args.budget)
        report(card, model, products, table)
        results[model.name] = {"batches": BATCHES, "products_s": asdict(products), "limits": table}
    if args.json:
        args.json.write_text(json.dumps({"card": asdict(card), "models": results}, indent=1))


if __name__ == "__main__":
    main()
