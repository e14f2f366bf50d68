"""Fills Triton's cache on disk from many processes, so that the measuring process only loads what it runs."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

Job = tuple[Callable[..., None], tuple[object, ...]]  # a module's function, and what it takes


def compile_ahead(jobs: Sequence[Job], *, num_processes: int) -> list[str]:
    """What failed, a line each; most often shared memory that the GPU does not have."""
    failures = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        futures = [(job, pool.submit(_failure, job)) for job in jobs]
        for (function, arguments), future in futures:
            failure = str(future.exception()) if future.exception() else future.result()
            if failure:
                failures.append(f"{function.__module__} {arguments}: {failure}")
    return failures


def _failure(job: Job) -> str:
    """What went wrong, as text: not every exception survives the way to another process."""
    function, arguments = job
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 one config that does not compile must not end the others
        return f"{type(error).__name__}: {str(error).strip()[:160]}"
    return ""
