"""One line per HTTP request, written in batches: line by line they cost as much as all else of a small request.

A line is at most `INTERVAL_S` old when it is written. Only a process that is killed loses its last ones.
"""

import asyncio
import logging
import time

from protocol.logs import write_at_once

INTERVAL_S = 0.1


class AccessLog:
    """Stands in for uvicorn's access logger: its lines go where that one's would, and look the same."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._lines: list[tuple[float, str, tuple[object, ...]]] = []

    def info(self, template: str, *values: object) -> None:
        """As `logging.Logger.info`."""
        if not self._lines:
            self._loop.call_later(INTERVAL_S, self.flush)
        self._lines.append((time.time(), template, values))

    def flush(self) -> None:
        """Write now what there is."""
        lines, self._lines = self._lines, []
        if lines:
            write_at_once([self._record(*line) for line in lines])

    def _record(self, created: float, template: str, values: tuple[object, ...]) -> logging.LogRecord:
        record = self._logger.makeRecord(self._logger.name, logging.INFO, "", 0, template, values, None)
        record.created, record.msecs = created, int(created % 1 * 1000)
        return record


def make_access_log(*, is_wanted: bool) -> AccessLog | None:
    """None where nobody would see it."""
    logger = logging.getLogger("uvicorn.access")
    return AccessLog(logger) if is_wanted and logger.isEnabledFor(logging.INFO) else None
