"""Check the fused and the sampling kernels on a GPU against float32 twins, then time them over several configurations.

usage: python scripts/bench_kernels_fused.py [--json FILE] [--only rms,silu,rotary,argmax,sample] [--workers 14]

Times are of one launch inside a replayed CUDA graph, over input sets that together outgrow the L2 where the sizes allow
it. A share is that of the time which the bytes, each read or written once, take at the copy rate measured first. The
best configuration of each case is printed beside the one that tuning.py has; the JSON has all of them. A case that
fails is printed and the next one runs.
"""

import argparse
import json
import multiprocessing
import statistics
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from engine.kernels import activation_triton, argmax_triton, rms_norm_triton, rotary_triton, sampling_triton
from engine.kernels.activation import silu_mul_twin
from engine.kernels.rms_norm import add_rms_norm_twin, rms_norm_twin
from engine.kernels.rotary import HeadLayout, rotate_and_store_twin
from engine.kernels.sampling import SlotParameters, sample_twin
from engine.kernels.tuning import PieceConfig

TOKENS = (1, 64, 256, 512, 2048, 8192)
ROWS = (1, 64, 256, 512)
BF16 = torch.bfloat16
L2_BYTES = 200 << 20  # of input sets together: four times the L2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    name: str
    hidden: int
    ffn: int
    vocab: int
    heads: HeadLayout
    norms: bool


SIZES = (
    Size(
        name="8b",
        hidden=4096,
        ffn=14336,
        vocab=128256,
        heads=HeadLayout(num_heads=32, num_kv_heads=8, head_dim=128),
        norms=False,
    ),
    Size(
        name="0.6b",
        hidden=1024,
        ffn=3072,
        vocab=151936,
        heads=HeadLayout(num_heads=16, num_kv_heads=8, head_dim=128),
        norms=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A configuration: what it is called, and what it puts in the place of the kernel module's own."""

    label: str
    module: ModuleType
    name: str
    value: Any

    @contextmanager
    def applied(self) -> Iterator[None]:
        with mock.patch.object(self.module, self.name, self.value):
            yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    bytes: int
    make: Callable[[], Callable[[], object]]  # one input set, and what runs on it
    choices: list[Choice] = field(default_factory=list)


def random(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.float32).to(dtype)


# --- cases


def pieces(module: ModuleType, name: str, sizes: tuple[int, ...], warps: tuple[int, ...]) -> list[Choice]:
    return [
        Choice(label=f"{name} {size}x{count}", module=module, name=name, value=PieceConfig(size=size, warps=count))
        for size in sizes
        for count in warps
    ]


def rms_cases() -> Iterator[Case]:
    choices = [
        Choice(label=f"warps {warps}", module=rms_norm_triton, name="rms_norm_warps", value=lambda row_size, w=warps: w)
        for warps in (1, 2, 4, 8, 16)
    ]
    for size in SIZES:
        for tokens in TOKENS:
            yield Case(
                name=f"add_rms_norm {size.name} N={tokens}",
                bytes=2 * 4 * tokens * size.hidden,
                make=lambda h=size.hidden, n=tokens: _norm(random(n, h), random(n, h), random(h)),
                choices=choices,
            )


def _norm(x: Tensor, residual: Tensor, weight: Tensor) -> Callable[[], object]:
    return lambda: rms_norm_triton.add_rms_norm(x, residual, weight, 1e-5)


def silu_cases() -> Iterator[Case]:
    choices = pieces(activation_triton, "SILU_MUL", (512, 1024, 2048, 4096), (2, 4, 8))
    for size in SIZES:
        for tokens in TOKENS:
            yield Case(
                name=f"silu_mul {size.name} N={tokens}",
                bytes=2 * 3 * tokens * size.ffn,
                make=lambda f=size.ffn, n=tokens: _silu(random(n, 2 * f)),
                choices=choices,
            )


def _silu(gate_up: Tensor) -> Callable[[], object]:
    return lambda: activation_triton.silu_mul(gate_up)


def rotary_cases() -> Iterator[Case]:
    shapes = ((1, 1), (2, 1), (4, 1), (4, 2), (8, 1), (8, 2), (8, 4), (16, 2), (16, 4), (32, 4), (64, 8))
    configs = [PieceConfig(size=heads, warps=warps) for heads, warps in shapes]
    choices = [
        Choice(
            label=f"heads {config.size}x{config.warps}",
            module=rotary_triton,
            name="ROTARY",
            value=config,
        )
        for config in configs
    ]
    for size in SIZES:
        for tokens in TOKENS:
            width = (size.heads.num_heads + 2 * size.heads.num_kv_heads) * size.heads.head_dim
            yield Case(
                name=f"rotary {size.name} N={tokens}",
                bytes=2 * tokens * (2 * width + 2 * size.heads.head_dim),
                make=lambda s=size, n=tokens: _rotary(s.heads, n, norms=s.norms),
                choices=choices,
            )


def _rotary(heads: HeadLayout, tokens: int, *, norms: bool) -> Callable[[], object]:
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    qkv, (cos, sin) = random(tokens, width), rope(tokens, heads.head_dim)
    cache = torch.zeros(tokens // 16 + 1, 16, 2, heads.num_kv_heads, heads.head_dim, dtype=BF16, device="cuda")
    slots = torch.randperm(tokens, device="cuda")
    weights = (random(heads.head_dim), random(heads.head_dim), 1e-6) if norms else None
    return lambda: rotary_triton.rotate_and_store(qkv, cos, sin, weights, cache, slots, heads)


def rope(tokens: int, head_dim: int) -> tuple[Tensor, Tensor]:
    angles = random(tokens, 1, head_dim // 2, dtype=torch.float32)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1).to(BF16), torch.cat([-sin, sin], -1).to(BF16)


def argmax_cases() -> Iterator[Case]:
    choices = [
        *pieces(argmax_triton, "ARGMAX", (1024, 2048, 4096), (4, 8)),
        *(
            Choice(label=f"programs {programs}", module=argmax_triton, name="ARGMAX_PROGRAMS", value=programs)
            for programs in (528, 1056, 4224)
        ),
    ]
    for size in SIZES:
        for rows in ROWS:
            yield Case(
                name=f"argmax {size.name} S={rows}",
                bytes=2 * rows * size.vocab,
                make=lambda v=size.vocab, s=rows: _argmax(random(s, v)),
                choices=choices,
            )


def _argmax(logits: Tensor) -> Callable[[], object]:
    return lambda: argmax_triton.argmax(logits)


# What the rows ask for: temperature, top_k, top_p, min_p; and whether a few tokens stand out, as after training.
MIXES: dict[str, tuple[float, int, float, float, bool]] = {
    "greedy": (0.0, 0, 1.0, 0.0, False),
    "T": (0.6, 0, 1.0, 0.0, False),
    "top-k+top-p": (0.8, 50, 0.95, 0.0, False),
    "top-p peaked": (0.8, 0, 0.95, 0.0, True),
    "top-p flat": (0.8, 0, 0.95, 0.0, False),
}


def sample_cases() -> Iterator[Case]:
    st = sampling_triton
    weigh = pieces(st, "WEIGH_RUNS", (8, 16, 32, 64), (2, 4, 8))
    choose = [
        Choice(label=f"CHOOSE_RUNS_WARPS {warps}", module=st, name="CHOOSE_RUNS_WARPS", value=warps)
        for warps in (4, 8, 16)
    ]
    filters = pieces(st, "FILTER_RUNS", (64, 128), (4, 8, 16))
    search = pieces(st, "SEARCH_RUNS", (32, 64, 128), (8, 16, 32))
    choices = {"T": [*weigh, *choose], "top-k+top-p": filters, "top-p flat": search}
    for size in SIZES:
        for mix in MIXES:
            for rows in ROWS:
                yield Case(
                    name=f"sample {mix} {size.name} S={rows}",
                    bytes=2 * rows * size.vocab,
                    make=lambda v=size.vocab, s=rows, m=mix: _sample(s, v, m),
                    choices=choices.get(mix, []),
                )


def _sample(rows: int, vocab: int, mix: str) -> Callable[[], object]:
    temperature, top_k, top_p, min_p, peaked = MIXES[mix]
    logits = random(rows, vocab)
    if peaked:
        logits.scatter_(1, torch.randint(vocab, (rows, 40), device="cuda"), 8 + 2 * random(rows, 40))

    def same(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.full((rows,), value, dtype=dtype, device="cuda")

    parameters = SlotParameters(
        temperature=same(temperature),
        top_k=same(top_k, torch.int32),
        top_p=same(top_p),
        min_p=same(min_p),
        seeds=torch.randint(1 << 62, (rows,), device="cuda"),
    )
    slots = torch.arange(rows, dtype=torch.int32, device="cuda")
    positions = torch.randint(1000, (rows,), device="cuda")
    return lambda: sampling_triton.sample(logits, slots, positions, parameters)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "rms": rms_cases,
    "silu": silu_cases,
    "rotary": rotary_cases,
    "argmax": argmax_cases,
    "sample": sample_cases,
}


# --- correctness


def error(out: Tensor, reference: Tensor) -> float:
    """Relative, in the 2-norm; NaN if there is one."""
    return float((out.double() - reference.double()).norm() / reference.double().norm())


def check_fused() -> Iterator[tuple[str, float]]:
    for hidden in (576, 960, 1024, 4096):
        for dtype in (torch.float32, torch.float16, BF16):
            x, residual, weight = (random(*shape, dtype=dtype) for shape in ((77, hidden), (77, hidden), (hidden,)))
            yield (
                f"rms_norm {hidden} {dtype}",
                error(rms_norm_triton.rms_norm(x, weight, 1e-5), rms_norm_twin(x.float(), weight.float(), 1e-5)),
            )
            expected = residual.float().clone()
            wanted = add_rms_norm_twin(x.float(), expected, weight.float(), 1e-5)
            yield (
                f"add_rms_norm {hidden} {dtype}",
                error(rms_norm_triton.add_rms_norm(x, residual, weight, 1e-5), wanted),
            )
            yield f"residual {hidden} {dtype}", error(residual, expected)
    for ffn in (1536, 3072, 14336):
        gate_up = random(33, 2 * ffn)
        yield f"silu_mul {ffn}", error(activation_triton.silu_mul(gate_up), silu_mul_twin(gate_up.float()))
    for heads, head_dim in (((32, 8), 128), ((16, 8), 128), ((9, 3), 64), ((4, 1), 80)):
        for norms in (False, True):
            layout = HeadLayout(num_heads=heads[0], num_kv_heads=heads[1], head_dim=head_dim)
            yield from check_rotary(layout, norms=norms)


def check_rotary(heads: HeadLayout, *, norms: bool) -> Iterator[tuple[str, float]]:
    tokens, label = 100, f"{heads.num_heads}/{heads.num_kv_heads}/{heads.head_dim} {'norm' if norms else ''}"
    width = (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
    qkv, (cos, sin) = random(tokens, width), rope(tokens, heads.head_dim)
    weights = (random(heads.head_dim), random(heads.head_dim), 1e-6) if norms else None
    cache = random(16, 16, 2, heads.num_kv_heads, heads.head_dim)
    slots = torch.randperm(256, device="cuda")[:tokens]
    wide = cache.float()
    wide_weights = (weights[0].float(), weights[1].float(), 1e-6) if weights is not None else None
    wanted = rotate_and_store_twin(
        qkv.float()[:-3], cos.float()[:-3], sin.float()[:-3], wide_weights, wide, slots[:-3], heads
    )
    slots[-3:] = -1
    q = rotary_triton.rotate_and_store(qkv, cos, sin, weights, cache, slots, heads)
    yield f"rotary q {label}", error(q[:-3], wanted)
    yield f"rotary cache {label}", error(cache, wide)


def check_sampling() -> Iterator[tuple[str, float]]:
    """The share of rows whose token is not the twin's: races and thresholds that float32 cannot tell apart."""
    rows = 256
    for vocab in (49152, 128256, 151936):
        for dtype in (BF16, torch.float32):
            logits = random(rows, vocab, dtype=dtype) * 2
            logits[::2].scatter_(1, torch.randint(vocab, (rows // 2, 40), device="cuda"), 14.0)
            logits[::2] += random(rows // 2, vocab, dtype=dtype)
            tokens, failed = argmax_triton.argmax(logits)
            yield (
                f"argmax {vocab} {dtype}",
                float((tokens != logits.float().argmax(-1)).float().mean()) + float(failed.any()),
            )
            parameters = mixed_parameters(rows)
            slots = torch.randperm(rows, device="cuda").int()
            positions = torch.randint(5000, (rows,), device="cuda")
            drawn, failed = sampling_triton.sample(logits, slots, positions, parameters)
            wanted, _ = sample_twin(logits, slots, positions, parameters)
            yield f"sample {vocab} {dtype}", float((drawn != wanted).float().mean()) + float(failed.any())


def mixed_parameters(rows: int) -> SlotParameters:
    def one_of(*values: float) -> Tensor:
        return torch.tensor(values, device="cuda")[torch.randint(len(values), (rows,), device="cuda")]

    return SlotParameters(
        temperature=one_of(0.0, 0.3, 0.8, 1.0, 1.5),
        top_k=one_of(0, 0, 1, 20, 50, 300).int(),
        top_p=one_of(1.0, 1.0, 0.5, 0.9, 0.95, 0.999),
        min_p=one_of(0.0, 0.0, 0.05, 0.5),
        seeds=torch.randint(1 << 62, (rows,), device="cuda"),
    )


@contextmanager
def poisoned() -> Iterator[None]:
    """What the kernels allocate is full of NaN or of an impossible number: what they leave unwritten shows."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(tensor: Tensor) -> Tensor:
        return tensor.fill_(torch.nan if tensor.is_floating_point() else 77)

    with (
        mock.patch.object(torch, "empty", lambda *args, **flags: poison(empty(*args, **flags))),
        mock.patch.object(torch, "empty_like", lambda *args, **flags: poison(empty_like(*args, **flags))),
    ):
        yield


def report_checks(checks: Iterator[tuple[str, float]], bound: float) -> None:
    worst, failures = 0.0, 0
    for name, value in checks:
        if not value <= bound:
            failures += 1
            print(f"WRONG {name}: {value:.4g}", flush=True)
        worst = max(worst, value)
    print(f"checks: {failures} wrong, worst {worst:.4g} (at most {bound})", flush=True)


# --- time


def median_s(run: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def time_runs(runs: list[Callable[[], object]], launches: int) -> float:
    """Microseconds of one run in a graph of many."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        runs[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(launches):
            runs[index % len(runs)]()
    graph.replay()
    return 1e6 * median_s(graph.replay, 7) / launches


def time_case(case: Case) -> dict[str, float]:
    """Microseconds by configuration; "tuning.py" is the one that is there."""
    sets = max(1, min(24, L2_BYTES // case.bytes))
    runs = [case.make() for _ in range(sets)]
    launches = max(sets, 24 if case.bytes < L2_BYTES else 4)
    times = {"tuning.py": time_runs(runs, launches)}
    for choice in case.choices:
        try:
            with choice.applied():
                times[choice.label] = time_runs(runs, launches)
        except Exception:  # noqa: BLE001 (an unattended run goes on)
            print(f"FAILED {case.name} {choice.label}: {traceback.format_exc(limit=1)}", flush=True)
    return times


def copy_rate() -> float:
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() / median_s(lambda: target.copy_(source), 10)


def compile_share(groups: list[str], share: int, of: int) -> None:
    """Run once what falls to this process, so that the compiled kernels are in Triton's cache."""
    for group in groups:
        for case in GROUPS[group]():
            for choice in [None, *case.choices]:
                # The same kernel for other numbers of rows falls to the same process: it is compiled once.
                kernel = f"{case.name.rsplit(' ', 1)[0]} {choice.label if choice else ''}"
                if zlib.crc32(kernel.encode()) % of == share:
                    run_once(case, choice)


def run_once(case: Case, choice: Choice | None) -> None:
    try:
        with choice.applied() if choice else nullcontext():
            case.make()()
    except Exception:  # noqa: BLE001 (reported when it is timed)
        return
    finally:
        torch.cuda.empty_cache()


def compile_all(groups: list[str], workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=compile_share, args=(groups, index, workers)) for index in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def run_group(group: str, rate: float) -> dict[str, dict[str, float]]:
    table = {}
    print(f"\n{'case':<32}{'us':>9}{'floor':>9}{'share':>7}   best{'':<23}{'us':>9}{'share':>7}", flush=True)
    for case in GROUPS[group]():
        try:
            times = time_case(case)
        except Exception:  # noqa: BLE001 (an unattended run goes on)
            print(f"FAILED {case.name}: {traceback.format_exc(limit=2)}", flush=True)
            continue
        finally:
            torch.cuda.empty_cache()
        floor, now = 1e6 * case.bytes / rate, times["tuning.py"]
        best = min(times, key=lambda label: times[label])
        print(
            f"{case.name:<32}{now:>9.2f}{floor:>9.2f}{floor / now:>7.0%}   {best:<27}{times[best]:>9.2f}"
            f"{floor / times[best]:>7.0%}",
            flush=True,
        )
        table[case.name] = {"floor_us": floor, **times}
    return table


def profile_sampling() -> None:
    """Microseconds of each launch of one draw at S = 512."""
    for mix in MIXES:
        run = _sample(512, 128256, mix)
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            run()
            torch.cuda.synchronize()
        parts = [f"{event.key} {event.self_device_time_total:.0f}" for event in profiler.key_averages()]
        print(f"launches of {mix}: " + ", ".join(part for part in parts if part.startswith("_")), flush=True)


def main() -> None:
    """Compile in parallel, check, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--workers", type=int, default=14)
    args = parser.parse_args()
    groups, started = args.only.split(","), time.monotonic()
    compile_all(groups, args.workers)
    print(f"{torch.cuda.get_device_name()}; compiled in {time.monotonic() - started:.0f} s", flush=True)
    torch.manual_seed(1)
    for checks, bound in ((check_fused, 1e-2), (check_sampling, 0.005)):
        try:
            with poisoned():
                report_checks(checks(), bound)
        except Exception:  # noqa: BLE001 (an unattended run goes on)
            print(f"FAILED {checks.__name__}: {traceback.format_exc()}", flush=True)
    rate = copy_rate()
    print(f"copy {rate / 1e12:.2f} TB/s; {time.monotonic() - started:.0f} s so far", flush=True)
    results = {}
    for group in groups:
        results[group] = run_group(group, rate)
        print(f"{time.monotonic() - started:.0f} s so far", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"copy_bytes_per_s": rate, "us": results}, indent=1))
    if "sample" in groups:
        profile_sampling()


if __name__ == "__main__":
    main()
