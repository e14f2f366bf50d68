"""Where log lines go and what they look like: standard error, each with its time, level and process."""

import logging
import sys
from collections.abc import Sequence

_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s [{process}] %(message)s"


def configure_logging(process: str, *, level: str, uvicorn_level: str = "warning") -> None:
    """Set up this process's log. `process` names it and its place; uvicorn's lines go the same way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT.format(process=process), datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("headrace").setLevel(level.upper())
    # uvicorn's own level below debug
    logging.addLevelName(5, "TRACE")
    logging.getLogger("uvicorn").setLevel(uvicorn_level.upper())


def write_at_once(records: Sequence[logging.LogRecord]) -> None:
    """Many lines as one piece, for what would else be a write each."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream.write("".join([handler.format(record) + "\n" for record in records]))
            handler.flush()
