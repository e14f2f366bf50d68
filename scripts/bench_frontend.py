"""The front end by itself: real API servers and sockets on an engine that costs nothing, under a light load client.

usage: python -m scripts.bench_frontend [--streams 1,64,512] [--api-servers 1,2] [--json FILE] [-- flags of serve]
       python -m scripts.bench_frontend --smoke

For each number of API servers and streams: events/s as fast as they go and the CPU time of one event; the latency that
is added between the engine's send and the client's receipt at half that rate; whole chat answers of one token; memory;
shares of the API servers; health routes under load. A null server shows first what the load client could take.
"""

import argparse
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.frontend_bench.page import Page
from scripts.frontend_bench.runs import Load, Window, measure, measure_null
from scripts.frontend_bench.server import BenchServer, running_server

_WINDOW = 2  # steps on their way at full speed: an API server always has work, and is never two steps behind
_TINY_STEP_US = 1000  # steps while whole answers of one token are asked for: a wait, not a limit
_MAX_TINY_JOBS = 64  # at a time: more only wait for each other
_HEAD = (
    f"{'API':>3} {'streams':>7} | {'events/s':>9} {'us/event':>8} {'at half':>7} {'ceiling':>9} {'shares':>6}"
    f" {'Pss MiB':>7} | {'added p50 ms':>12} {'p99':>7} {'at ev/s':>8} |"
    f" {'req/s':>6} {'ms/req':>6} | {'health p99 ms':>13}"
)
Row = dict[str, Any]


def run_all(args: argparse.Namespace) -> Iterator[Row]:
    """A row for each number of API servers and streams."""
    with tempfile.TemporaryDirectory(prefix="bench-frontend-", dir="/dev/shm") as folder:
        page = Page(Path(folder) / "page")
        loads = [
            Load(num_streams=n, num_clients=args.clients, num_tokens=args.tokens, seconds=args.seconds)
            for n in args.streams
        ]
        ceilings = [round(rate_of(measure_null(page, load))) for load in loads]
        for count in args.api_servers:
            with running_server(page.path, count, args.flags) as server:
                idle = server.memory_mib()
                for load, ceiling in zip(loads, ceilings, strict=True):
                    row = run_one(server, page, load)
                    yield {"api_servers": count, "client_ceiling_per_s": ceiling, "idle_memory_mib": idle, **row}


def run_one(server: BenchServer, page: Page, load: Load) -> Row:
    """One row."""
    page.pace(step_us=0, window=_WINDOW)
    fast = measure(server, page, load)
    page.pace(step_us=round(1e6 * load.num_streams / (0.5 * rate_of(fast))), window=_WINDOW)
    half = measure(server, page, load, timed=True)
    page.pace(step_us=0, window=_WINDOW)
    probed = measure(server, page, load, probed=True)
    page.pace(step_us=_TINY_STEP_US, window=_WINDOW)
    jobs = Load(
        num_streams=min(load.num_streams, _MAX_TINY_JOBS),
        num_clients=load.num_clients,
        num_tokens=0,
        seconds=load.seconds,
    )
    tiny = measure(server, page, jobs)
    windows = (fast, half, probed, tiny)
    latencies = sorted(half.latencies_us) or [0]
    return {
        "streams": load.num_streams,
        "events_per_s": round(rate_of(fast)),
        "cpu_us_per_event": us_per_event(fast),
        "cpu_us_per_event_at_half": us_per_event(half),
        "api_server_busy": [round(cpu / fast.seconds, 2) for cpu in fast.api_cpu_s],
        "client_cpu_us_per_event": round(1e6 * fast.client_cpu_s / fast.events, 2),
        "added_latency_ms": {
            "p50": round(latencies[len(latencies) // 2] / 1000, 2),
            "p99": round(latencies[int(0.99 * (len(latencies) - 1))] / 1000, 2),
            "at_events_per_s": round(rate_of(half)),
        },
        "requests_per_s": round(tiny.ended / tiny.seconds, 1),
        "cpu_ms_per_request": round(1e3 * sum(tiny.api_cpu_s) / max(1, tiny.ended), 3),
        "memory_mib": fast.memory_mib,
        "mean_in_flight": fast.mean_in_flight,
        "max_over_mean_in_flight": _max_over_mean(fast.mean_in_flight),
        "health": probed.probes,
        "answers": {
            "ended": sum(window.total_ended for window in windows),
            "wrong": sum(window.total_wrong for window in windows),
        },
    }


def rate_of(window: Window) -> float:
    """Events a second."""
    return max(1, window.events) / window.seconds


def us_per_event(window: Window) -> float:
    """CPU time of all API servers."""
    return round(1e6 * sum(window.api_cpu_s) / max(1, window.events), 2)


def _max_over_mean(values: list[float]) -> float:
    return round(max(values) / max(1e-9, sum(values) / len(values)), 3)


def show(row: Row) -> None:
    """One line of the table."""
    latency = row["added_latency_ms"]
    pss = max(memory["pss"] for memory in row["memory_mib"])
    health = max((facts["p99_ms"] for facts in row["health"].values()), default=0.0)
    print(
        f"{row['api_servers']:3d} {row['streams']:7d} | {row['events_per_s']:9,d} {row['cpu_us_per_event']:8.1f}"
        f" {row['cpu_us_per_event_at_half']:7.1f}"
        f" {row['client_ceiling_per_s']:9,d} {row['max_over_mean_in_flight']:6.2f} {pss:7.1f} |"
        f" {latency['p50']:12.2f} {latency['p99']:7.2f} {latency['at_events_per_s']:8,d} |"
        f" {row['requests_per_s']:6.0f} {row['cpu_ms_per_request']:6.3f} | {health:13.1f}",
        flush=True,
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.date.today().isoformat(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=_numbers, default=[1, 64, 512], help="at a time (default 1,64,512)")
    parser.add_argument("--api-servers", type=_numbers, default=[1, 2], help="processes (default 1,2)")
    parser.add_argument("--clients", type=int, default=2, metavar="N", help="load processes (default 2)")
    parser.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens of an answer (default 128)")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="each measurement (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--smoke", action="store_true", help="a few seconds: are all answers whole?")
    parser.add_argument("flags", nargs="*", help="of headrace serve, after --")
    args = parser.parse_args()
    if args.smoke:
        args.streams, args.api_servers, args.seconds, args.tokens = [8], [2], 0.3, 16
    return args


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Every row, as it comes."""
    args = parse()
    report: dict[str, Any] = {"machine": machine(), "command": " ".join(sys.argv), "rows": []}
    facts = report["machine"]
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['date']}, load {facts['load_average_before']} before")
    print(_HEAD, flush=True)
    for row in run_all(args):
        show(row)
        report["rows"].append(row)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    wrong = sum(row["answers"]["wrong"] for row in report["rows"])
    if wrong:
        sys.exit(f"{wrong} answers did not have the tokens that were asked for")


if __name__ == "__main__":
    main()
