"""Lines in batches, that look and go as if each had been logged by itself."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from frontend.access_log import AccessLog, make_access_log
from protocol.logs import configure_logging

LOGGER = logging.getLogger("headrace.access")  # other tests' servers leave uvicorn's loggers as uvicorn likes them
TEMPLATE = '%s - "%s %s HTTP/%s" %d'


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    root, access, uvicorn = logging.getLogger(), logging.getLogger("uvicorn.access"), logging.getLogger("uvicorn")
    before = root.handlers, root.level, uvicorn.level, access.level
    access.setLevel(logging.NOTSET)
    configure_logging("API server 7", level="info", uvicorn_level="info")
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    yield stream
    root.handlers, root.level, uvicorn.level, access.level = before


def test_lines_look_like_the_loggers_own(output: io.StringIO) -> None:
    values = ("127.0.0.1:9", "GET", "/version", "1.1", 200)

    async def scenario() -> None:
        log = AccessLog(LOGGER)
        log.info(TEMPLATE, *values)
        log.info(TEMPLATE, *values)
        assert output.getvalue() == "", "not one by one"
        log.flush()

    asyncio.run(scenario())
    LOGGER.info(TEMPLATE, *values)
    ours, also_ours, theirs = (line.partition(" ")[2] for line in output.getvalue().splitlines())
    assert ours == also_ours == theirs == 'INFO    [API server 7] 127.0.0.1:9 - "GET /version HTTP/1.1" 200'


def test_they_are_written_soon_without_being_asked(output: io.StringIO) -> None:
    async def scenario() -> None:
        AccessLog(LOGGER).info(TEMPLATE, "a", "GET", "/", "1.1", 200)
        async with asyncio.timeout(5):
            while not output.getvalue():
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("level", "is_wanted", "is_made"), [("info", True, True), ("warning", True, False), ("info", False, False)]
)
def test_nothing_is_gathered_that_nobody_would_see(
    level: str, is_wanted: bool, is_made: bool, output: io.StringIO
) -> None:
    logging.getLogger("uvicorn").setLevel(level.upper())

    async def scenario() -> None:
        assert (make_access_log(is_wanted=is_wanted) is not None) == is_made

    asyncio.run(scenario())
