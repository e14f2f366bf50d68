"""The CPU figures of the README: a server of the demo model, streamed load at several concurrencies, start, memory.

usage: python scripts/bench_cpu.py [--concurrency 1,8,32] [--reps 3] [--json FILE] [-- --dtype bfloat16 ...]

What follows `--` goes to `headrace serve`. Prompts are random token ids and different in each repetition, answers
greedy and of full length; each figure is the median of the repetitions. Run it with nothing else running.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from frontend.bench_serve.jobs import Load, Target, make_jobs
from frontend.bench_serve.messages import Sample
from frontend.bench_serve.processes import run_jobs
from frontend.bench_serve.summary import Summary, summarize
from frontend.bench_serve.workloads import DEFAULT_VOCAB_SIZE, fixed_workload

START_DEADLINE_S = 300.0
STOP_DEADLINE_S = 60.0
ROUNDS = 2  # requests of each client in a repetition, one after the other
MIB = 1024**2
SERVE_FLAGS = ("--dtype", "bfloat16")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what a CPU's speed in bf16 hangs on
URL = re.compile(r"listening on (http://\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Medians over the repetitions at one concurrency."""

    concurrency: int
    output_tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    all_output_tokens_per_s: list[float]  # of each repetition, to show the noise
    client_busy: float  # the highest share of a core that the load process took


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of one process after the load."""

    process: str
    rss_mib: float
    pss_mib: float


@contextmanager
def running_server(flags: list[str]) -> Iterator[tuple[str, float, psutil.Process]]:
    """URL, seconds from launch to /readyz 200, supervisor. Ends it with SIGTERM."""
    command = [sys.executable, "-m", "headrace", "serve", "demo", "--host", "127.0.0.1", "--port", "0", *flags]
    with tempfile.NamedTemporaryFile("r", prefix="bench-cpu-", suffix=".log") as log:
        began = time.monotonic()
        with Path(log.name).open("w") as output:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            url = wait_ready(server, Path(log.name))
            yield url, time.monotonic() - began, psutil.Process(server.pid)
        finally:
            end(server)


def wait_ready(server: "subprocess.Popen[bytes]", log: Path) -> str:
    """The URL, as soon as /readyz there answers 200."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        found = URL.search(log.read_text())
        if found and is_ready(found[1]):
            return found[1]
        if server.poll() is not None:
            break
        time.sleep(0.02)
    sys.exit(f"the server is not ready (exit status {server.poll()}):\n{log.read_text()}")


def is_ready(url: str) -> bool:
    """Whether it would take a request now."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def end(server: "subprocess.Popen[bytes]") -> None:
    """In order; by force after the deadline."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def measure(url: str, concurrency: int, args: argparse.Namespace) -> Figures:
    """A warm-up and `--reps` repetitions."""
    summaries = [asyncio.run(run_rep(url, concurrency, rep, args)) for rep in range(args.reps + 1)][1:]
    rates = [summary.output_tokens_per_s for summary in summaries]
    return Figures(
        concurrency=concurrency,
        output_tokens_per_s=median(rates),
        ttft_p50_ms=median(summary.ttft_ms.p50 for summary in summaries),
        ttft_p99_ms=median(summary.ttft_ms.p99 for summary in summaries),
        tpot_p50_ms=median(summary.tpot_ms.p50 for summary in summaries),
        all_output_tokens_per_s=[round(rate, 1) for rate in rates],
        client_busy=round(max(summary.client_busy for summary in summaries), 3),
    )


async def run_rep(url: str, concurrency: int, rep: int, args: argparse.Namespace) -> Summary:
    """Repetition 0 is the warm-up: one round."""
    source = fixed_workload(
        input_len=args.input_len,
        output_len=args.output_len,
        num_prompts=concurrency * (ROUNDS if rep else 1),
        vocab_size=DEFAULT_VOCAB_SIZE,
        seed=concurrency,
    )
    target = Target(url=url, api_key=None, model="demo", chat=False, timeout_s=600.0, sampling={})
    load = Load(num_procs=1, concurrency=concurrency, rate=float("inf"), seed=concurrency)
    samples: list[Sample] = []
    busy = await run_jobs(make_jobs(source, rep, target, load), samples.append)
    summary = summarize(samples, [], client_busy=busy)
    if summary.num_failed:
        sys.exit(f"{summary.num_failed} of {summary.num_requests} requests failed: {summary.first_error}")
    return summary


def median(values: Iterable[float | None]) -> float:
    """To one decimal: more is noise. None stands for what no request had."""
    return round(statistics.median(value for value in values if value is not None), 1)


def memory_of(supervisor: psutil.Process) -> list[Memory]:
    """The supervisor and each child."""
    found = []
    for process in [supervisor, *supervisor.children(recursive=True)]:
        facts = process.memory_full_info()
        rss, pss = round(facts.rss / MIB, 1), round(facts.pss / MIB, 1)
        found.append(Memory(process=name_of(process, supervisor), rss_mib=rss, pss_mib=pss))
    return found


def name_of(process: psutil.Process, supervisor: psutil.Process) -> str:
    """By its program: what runs after `-m`."""
    if process == supervisor:
        return "supervisor"
    words = process.cmdline()
    return {"engine": "engine core", "frontend.api_server": "API server"}.get(words[words.index("-m") + 1], words[0])


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how quiet it was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    flags = {key.strip(): value for key, value in facts.items()}.get("flags", "").split()
    return {
        "cpu": next((value.strip() for key, value in facts.items() if key.strip() == "model name"), "unknown"),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def show(report: dict[str, Any]) -> None:
    """In the shape of the guide's table, so that rows can be put side by side."""
    figures, facts = report["figures"], report["machine"]
    instructions = ", ".join(facts["instructions"])
    print(f"{facts['cpu']}, {facts['cores']} cores ({instructions}), load {facts['load_average_before']} before")
    print(f"| headrace serve demo {' '.join(report['flags'])} |")
    heads = " / ".join(str(figure["concurrency"]) for figure in figures)
    rates = " / ".join(f"{figure['output_tokens_per_s']:,.0f}" for figure in figures)
    ttfts = " / ".join(f"{figure['ttft_p50_ms']:,.0f}" for figure in figures)
    print(f"| conc {heads}, output tok/s | TTFT p50 ms | launch to ready |\n|---|---|---|")
    print(f"| {rates} | {ttfts} | {report['launch_to_ready_s']:.1f} s |")
    for memory in report["memory"]:
        print(f"{memory['process']:12s} RSS {memory['rss_mib']:7.1f} MiB, Pss {memory['pss_mib']:7.1f} MiB")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", default="1,8,32", help="clients at a time (default %(default)s)")
    parser.add_argument("--input-len", type=int, default=128, metavar="N", help="tokens of a prompt (default 128)")
    parser.add_argument("--output-len", type=int, default=128, metavar="N", help="tokens of an answer (default 128)")
    parser.add_argument("--reps", type=int, default=3, metavar="N", help="repetitions after the warm-up (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("flags", nargs="*", default=list(SERVE_FLAGS), help="of headrace serve, after --")
    return parser.parse_args()


def main() -> None:
    """One server, all concurrencies."""
    args = parse()
    facts = machine()
    with running_server(args.flags) as (url, ready_s, supervisor):
        figures = [asdict(measure(url, int(number), args)) for number in args.concurrency.split(",")]
        memory = [asdict(process) for process in memory_of(supervisor)]
    lengths = {"input_len": args.input_len, "output_len": args.output_len, "reps": args.reps}
    report = {"machine": facts, "flags": args.flags, **lengths, "launch_to_ready_s": round(ready_s, 2)}
    report |= {"figures": figures, "memory": memory}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
