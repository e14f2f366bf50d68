"""The progress bar of `generate`: prompts done, tokens a second. To standard error, and only if that is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from frontend.offline.outputs import RequestOutput


@contextmanager
def progress_bar(num_prompts: int, *, shown: bool) -> Iterator[Callable[[RequestOutput], None]]:
    """Gives what is to be called for each output, from any thread."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as progress:
        bar = progress.add_task("", total=num_prompts, speed="")
        began = time.monotonic()
        num_tokens = 0

        def advance(output: RequestOutput) -> None:
            nonlocal num_tokens
            num_tokens += sum(len(choice.token_ids) for choice in output.outputs)
            speed = num_tokens / (time.monotonic() - began)
            progress.update(bar, advance=1, speed=f"{speed:.0f} output tokens/s")

        yield advance
