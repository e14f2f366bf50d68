"""A summary for people: a table in the terminal. It computes nothing."""

from rich.console import Console
from rich.table import Table

from frontend.bench_serve.summary import Percentiles, Summary

_BUSY_WARNING = 0.8


def show_summary(console: Console, title: str, summary: Summary) -> None:
    """Write the tables, the first error and what makes the numbers doubtful."""
    console.print(_rates(title, summary))
    console.print(_latencies(summary))
    if summary.num_failed:
        failed = f"{summary.num_failed} of {summary.num_requests} requests failed; the first: {summary.first_error}"
        console.print(failed, style="red", markup=False, highlight=False)
    if summary.client_busy > _BUSY_WARNING:
        busy = f"A load process used {summary.client_busy:.0%} of a core: it may be the bottleneck, raise --procs."
        console.print(busy, style="yellow", highlight=False)


def _rates(title: str, summary: Summary) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = {
        "requests served": f"{summary.num_requests - summary.num_failed}",
        "requests failed": f"{summary.num_failed}",
        "duration": f"{summary.duration_s:.2f} s",
        "prompt tokens": f"{summary.prompt_tokens}",
        "output tokens": f"{summary.output_tokens}",
        "requests/s": f"{summary.requests_per_s:.2f}",
        "output tokens/s": f"{summary.output_tokens_per_s:.1f}",
        "total tokens/s": f"{summary.total_tokens_per_s:.1f}",
    }
    if summary.goodput_requests_per_s is not None:
        rows["goodput, requests/s"] = f"{summary.goodput_requests_per_s:.2f}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _latencies(summary: Summary) -> Table:
    table = Table("ms", title_justify="left")
    for name in Percentiles.__struct_fields__:
        table.add_column(name, justify="right")
    latencies = {"TTFT": summary.ttft_ms, "TPOT": summary.tpot_ms, "ITL": summary.itl_ms, "E2E": summary.e2e_ms}
    for name, values in latencies.items():
        table.add_row(name, *(_milliseconds(value) for value in (values.p50, values.p90, values.p99)))
    return table


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
