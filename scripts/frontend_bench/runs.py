"""The runs of the benchmark: load on a server for a while, and what is seen meanwhile."""

import multiprocessing
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType

from scripts.frontend_bench.client import Client, Workload
from scripts.frontend_bench.null_server import serve_null
from scripts.frontend_bench.page import Page
from scripts.frontend_bench.probes import Prober
from scripts.frontend_bench.server import BenchServer

_WARM_UP_S = 1.0
_SAMPLE_S = 0.02
_JOIN_S = 40.0
_TIMED_STREAMS = 16  # of a load process
_context = multiprocessing.get_context("fork")  # nothing here has threads when a process is started


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What all load processes do together."""

    num_streams: int
    num_clients: int
    num_tokens: int
    seconds: float
    keep_alive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What happened between two looks."""

    seconds: float
    events: int
    ended: int
    client_cpu_s: float
    api_cpu_s: list[float]
    memory_mib: list[dict[str, float]]
    mean_in_flight: list[float]
    probes: dict[str, dict[str, float]]
    latencies_us: list[int]
    total_ended: int  # the whole run, to the end of every answer
    total_wrong: int


class LoadProcesses(AbstractContextManager["LoadProcesses"]):
    """Begun on entry, brought to their end on leaving."""

    def __init__(self, page: Page, workload: Workload, load: Load) -> None:
        self.latencies_us: list[int] = []
        self._page = page
        self._processes: list[BaseProcess] = []
        self._ends: list[Connection] = []
        self._workloads = [
            replace(
                workload,
                index=index,
                num_streams=len(range(index, load.num_streams, load.num_clients)),
                timed_streams=min(workload.timed_streams, len(range(index, load.num_streams, load.num_clients))),
            )
            for index in range(min(load.num_clients, load.num_streams))
        ]

    def __enter__(self) -> "LoadProcesses":
        self._page.start()
        for workload in self._workloads:
            ours, theirs = _context.Pipe(duplex=False)
            process = _context.Process(target=_run_client, args=(self._page, workload, theirs))
            process.start()
            theirs.close()
            self._processes.append(process)
            self._ends.append(ours)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._page.stop()
        for end in self._ends:
            if end.poll(_JOIN_S):
                try:
                    self.latencies_us += end.recv()
                except EOFError:
                    raise RuntimeError("a load process failed; see above") from error
        for process in self._processes:
            process.join(_JOIN_S)
            process.kill()


def _run_client(page: Page, workload: Workload, end: Connection) -> None:
    end.send(Client(page, workload).run())


def measure(server: BenchServer, page: Page, load: Load, *, timed: bool = False, probed: bool = False) -> Window:
    """Load, a warm-up, a window that is looked at, and the end of all answers."""
    workload = Workload(
        host=server.host,
        port=server.port,
        model="demo",
        index=0,
        num_streams=0,
        num_tokens=load.num_tokens,
        keep_alive=load.keep_alive,
        timed_streams=_TIMED_STREAMS if timed else 0,
    )
    prober = Prober(server.host, server.port) if probed else None
    with LoadProcesses(page, workload, load) as processes:
        _until_all_run(page, load)
        began, cpu, client_cpu = time.monotonic(), server.cpu_s(), page.total("cpu_us")
        events, ended = page.total("events"), page.total("ended")
        in_flight = _sample(server, load.seconds, prober)
        seconds = time.monotonic() - began
        window = Window(
            seconds=seconds,
            events=page.total("events") - events,
            ended=page.total("ended") - ended,
            client_cpu_s=(page.total("cpu_us") - client_cpu) / 1e6,
            api_cpu_s=[after - before for before, after in zip(cpu, server.cpu_s(), strict=True)],
            memory_mib=server.memory_mib(),
            mean_in_flight=in_flight,
            probes=prober.figures() if prober else {},
            latencies_us=[],
            total_ended=0,
            total_wrong=0,
        )
    return replace(
        window,
        latencies_us=processes.latencies_us,
        total_ended=page.total("ended"),
        total_wrong=page.total("wrong"),
    )


def _until_all_run(page: Page, load: Load) -> None:
    deadline = time.monotonic() + 30.0
    while page.total("events") < load.num_streams:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{page.total('events')} events of {load.num_streams} streams in 30 s")
        time.sleep(0.01)
    time.sleep(_WARM_UP_S)


def _sample(server: BenchServer, seconds: float, prober: Prober | None) -> list[float]:
    """Requests in flight of each API server, averaged over the time."""
    samples: list[Sequence[int]] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        samples.append(server.in_flight())
        if prober is not None:
            prober.ask()
        time.sleep(_SAMPLE_S)
    return [round(statistics.fmean(column), 2) for column in zip(*samples, strict=True)]


def measure_null(page: Page, load: Load) -> Window:
    """What the load processes take from a server that only writes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=load.num_streams)
    host, port = listener.getsockname()
    server = _context.Process(target=serve_null, args=(listener, page, load.num_streams))
    page.start()
    server.start()
    listener.close()
    workload = Workload(host=host, port=port, model="", index=0, num_streams=0, num_tokens=load.num_tokens)
    with LoadProcesses(page, workload, load):
        _until_all_run(page, load)
        events, cpu, began = page.total("events"), page.total("cpu_us"), time.monotonic()
        time.sleep(load.seconds)
        seconds = time.monotonic() - began
        events, cpu = page.total("events") - events, page.total("cpu_us") - cpu
    server.join(_JOIN_S)
    server.kill()
    return Window(
        seconds=seconds,
        events=events,
        ended=0,
        client_cpu_s=cpu / 1e6,
        api_cpu_s=[],
        memory_mib=[],
        mean_in_flight=[],
        probes={},
        latencies_us=[],
        total_ended=0,
        total_wrong=0,
    )
