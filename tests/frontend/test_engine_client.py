"""Engine cores that die, garble, go silent or are replaced: no token is lost or doubled, and nobody waits for ever."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from frontend import engine_link
from frontend.engine_socket import EngineSocket
from frontend.errors import ApiError
from frontend.generation import start_generation
from frontend.services import Services
from frontend.token_stream import MAX_FRUITLESS_ATTEMPTS
from protocol.address import engine_address
from protocol.codec import encode
from protocol.errors import PeerError
from protocol.messages import Heartbeat
from protocol.sockets import HEARTBEAT_TIMEOUT_S
from tests.helpers.fake_engine import FakeEngine, next_token
from tests.helpers.serving import RecordingSink, asked, make_services, on_loop, serving, until, until_ready

FIRST, SECOND = 0xA11CE, 0xB0B


@pytest.fixture
def run_dir() -> Iterator[Path]:
    folder = Path(mkdtemp(prefix="headrace-"))
    yield folder
    shutil.rmtree(folder)


@asynccontextmanager
async def connected(*engines: FakeEngine) -> AsyncIterator[Services]:
    """Services that know these engines, one a rank; the first is ready."""
    services = make_services()
    try:
        for rank, engine in enumerate(engines):
            services.engine.connect(rank, engine.epoch, engine.address)
        await until_ready(services)
        yield services
    finally:
        services.close()


def undisturbed(seed: int, count: int) -> list[int]:
    return [next_token(seed, 3 + i, 256) for i in range(count)]


def gap(engine: FakeEngine) -> bytes:
    return encode(
        Heartbeat(
            seq=10**6, epoch=engine.epoch, step=0, num_running=0, num_waiting=0, num_waiting_tokens=0, num_blocks_used=0
        )
    )


@pytest.mark.parametrize("num_choices", [1, 2])
@on_loop
async def test_streams_go_on_in_a_new_epoch(run_dir: Path, tiny_model: str, num_choices: int) -> None:
    old = FakeEngine(engine_address(run_dir, 0, FIRST), epoch=FIRST, tokenizer_dir=tiny_model)
    new = FakeEngine(engine_address(run_dir, 0, SECOND), epoch=SECOND, tokenizer_dir=tiny_model)
    with old:
        async with connected(old) as services:
            sink = RecordingSink()
            generation = start_generation(services, asked(seed=3, max_tokens=200, num_choices=num_choices), sink)
            await sink.wait_for_tokens(20)
            old.kill()
            with new:
                services.engine.connect(0, SECOND, new.address)
                await sink.wait()
            for choice in range(num_choices):
                assert sink.token_ids(choice) == undisturbed(3 + choice, 200)
            assert [submit.attempt for submit in new.submits] == [1] * num_choices
            assert (sink.ends, generation.usage.completion_tokens) == (1, 200 * num_choices)
            assert generation.usage.cached_tokens == 0


@on_loop
async def test_a_request_that_waited_is_replayed_from_its_beginning(run_dir: Path, tiny_model: str) -> None:
    old = FakeEngine(engine_address(run_dir, 0, FIRST), epoch=FIRST, tokenizer_dir=tiny_model)
    new = FakeEngine(engine_address(run_dir, 0, SECOND), epoch=SECOND, tokenizer_dir=tiny_model)
    with old, new:
        async with connected(old) as services:
            old.paused = True
            sink = RecordingSink()
            generation = start_generation(services, asked(seed=3, prompt_logprobs=0), sink)
            await until(lambda: len(old.submits) == 1)
            services.engine.connect(0, SECOND, new.address)
            await sink.wait()
            assert sink.token_ids() == undisturbed(3, 8)
            assert new.submits[0].prompt_logprobs == 0
            assert generation.prompt_logprobs is not None
            assert len(generation.prompt_logprobs) == 3


@on_loop
async def test_an_epoch_that_ended_fails_its_requests_with_the_cause(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sink = RecordingSink()
        start_generation(services, asked(max_tokens=1000), sink)
        await sink.wait_for_tokens(3)
        engine.kill()
        services.engine.ended(0, 1234, "of another epoch")
        assert sink.errors == []
        services.engine.ended(0, engine.epoch, "it was killed by SIGKILL")
        (error,) = sink.errors
        assert isinstance(error, ApiError)
        assert (error.status, "SIGKILL" in error.message) == (500, True)
        assert services.num_open == 0
        with pytest.raises(ApiError) as caught:
            start_generation(services, asked(), RecordingSink())
        assert caught.value.status == 503


GARBAGE = [
    [b""],
    [b"\xff" * 50],
    [b"\x91" * 100_000],
    [b"a", b"b", b"c", b"d", b"e"],
    [b"\x81\xa4type\xa7unknown"],
]


@pytest.mark.parametrize("frames", GARBAGE)
@on_loop
async def test_garbage_ends_the_connection_and_no_stream(tiny_model: str, frames: list[bytes]) -> None:
    async with serving(tiny_model) as (services, engine):
        sinks = [RecordingSink() for _ in range(3)]
        for seed, sink in enumerate(sinks):
            start_generation(services, asked(seed=seed, max_tokens=100), sink)
        await sinks[0].wait_for_tokens(5)
        engine.send_garbage(*frames)
        for seed, sink in enumerate(sinks):
            await sink.wait()
            assert (sink.token_ids(), sink.ends, sink.errors) == (undisturbed(seed, 100), 1, [])
        assert len(engine.hellos) == 2
        await until(lambda: engine.peers_ended == 1)


@on_loop
async def test_a_gap_in_the_numbers_ends_the_connection_and_no_stream(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sink = RecordingSink()
        start_generation(services, asked(seed=4, max_tokens=100), sink)
        await sink.wait_for_tokens(5)
        engine.send_garbage(gap(engine))
        await sink.wait()
        assert (sink.token_ids(), len(engine.hellos)) == (undisturbed(4, 100), 2)


@on_loop
async def test_rows_that_ended_here_are_not_replayed(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.paused = True
        gone, kept = RecordingSink(), RecordingSink()
        cancelled = start_generation(services, asked(seed=1), gone)
        start_generation(services, asked(seed=2), kept)
        await until(lambda: len(engine.submits) == 2)
        engine.send_garbage(b"x")
        cancelled.cancel()
        engine.paused = False
        await kept.wait()
        assert [submit.number for submit in engine.submits] == [0, 1, 1]
        assert gone.deltas == []


@on_loop
async def test_a_request_that_comes_while_reconnecting_waits_for_the_connection(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        engine.loading = True
        engine.send_garbage(b"x")
        await until(lambda: len(engine.hellos) == 2)
        served, left = RecordingSink(), RecordingSink()
        start_generation(services, asked(seed=1, num_choices=2), served)
        start_generation(services, asked(seed=1), left).cancel()
        engine.loading = False
        await served.wait()
        assert (served.token_ids(0), served.token_ids(1)) == (undisturbed(1, 8), undisturbed(2, 8))
        assert [submit.attempt for submit in engine.submits] == [0, 0]


@on_loop
async def test_a_request_that_fails_the_connection_each_time_is_given_up(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_link, "_LONGEST_DELAY_S", 0.02)
    async with serving(tiny_model) as (services, engine):
        engine.paused = True
        sink = RecordingSink()
        start_generation(services, asked(), sink)
        for attempt in range(MAX_FRUITLESS_ATTEMPTS):
            await until(lambda attempt=attempt: len(engine.submits) == attempt + 1)  # type: ignore[misc]
            engine.send_garbage(b"x")
        await sink.wait()
        (error,) = sink.errors
        assert isinstance(error, ApiError)
        assert (error.status, len(engine.submits)) == (500, MAX_FRUITLESS_ATTEMPTS)


@on_loop
async def test_a_connection_that_was_never_ready_is_no_try(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_link, "_LONGEST_DELAY_S", 0.02)
    async with serving(tiny_model) as (services, engine):
        engine.loading = True
        engine.send_garbage(b"x")
        await until(lambda: len(engine.hellos) == 2)
        sink = RecordingSink()
        start_generation(services, asked(seed=2), sink)
        for lost in range(MAX_FRUITLESS_ATTEMPTS + 1):
            engine.send_garbage(b"x")
            await until(lambda lost=lost: len(engine.hellos) == lost + 3)  # type: ignore[misc]
        engine.loading = False
        await sink.wait()
        assert (sink.token_ids(), [submit.attempt for submit in engine.submits]) == (undisturbed(2, 8), [0])


@on_loop
async def test_an_engine_that_takes_no_more_never_blocks_us(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tiny_model) as (services, engine):

        def refuse(self: EngineSocket, frame: bytes) -> None:
            monkeypatch.undo()
            raise PeerError("full")

        monkeypatch.setattr(EngineSocket, "send", refuse)
        sink = RecordingSink()
        start_generation(services, asked(seed=6), sink)
        await sink.wait()
        assert (sink.token_ids(), len(engine.hellos)) == (undisturbed(6, 8), 2)


@on_loop
async def test_an_engine_that_beats_to_others_only_has_ended_us(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sink = RecordingSink()
        start_generation(services, asked(seed=7, max_tokens=100), sink)
        await sink.wait_for_tokens(5)
        engine.muted = True
        board_row = services.scoreboard.engine_row(0)
        started = asyncio.get_running_loop().time()
        while services.engine.num_ready == 1:
            board_row.beat()
            await asyncio.sleep(0.05)
        silence_s = asyncio.get_running_loop().time() - started
        assert HEARTBEAT_TIMEOUT_S - 0.2 < silence_s < HEARTBEAT_TIMEOUT_S + 1
        engine.muted = False
        await sink.wait()
        assert (sink.token_ids(), len(engine.hellos)) == (undisturbed(7, 100), 2)


@on_loop
async def test_an_engine_in_a_long_step_is_waited_for(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        sink = RecordingSink()
        start_generation(services, asked(seed=8, max_tokens=100), sink)
        await sink.wait_for_tokens(5)
        engine.muted = True
        services.scoreboard.engine_row(0).beat()
        await asyncio.sleep(HEARTBEAT_TIMEOUT_S + 0.5)
        engine.muted = False
        await sink.wait()
        assert (sink.token_ids(), len(engine.hellos), len(engine.submits)) == (undisturbed(8, 100), 1, 1)


@on_loop
async def test_an_engine_that_binds_late_is_found(run_dir: Path, tiny_model: str) -> None:
    engine = FakeEngine(engine_address(run_dir, 0, FIRST), epoch=FIRST, tokenizer_dir=tiny_model)
    services = make_services()
    services.engine.connect(0, FIRST, engine.address)
    await asyncio.sleep(0.1)
    with engine:
        await until_ready(services)
        sink = RecordingSink()
        start_generation(services, asked(seed=1), sink)
        await sink.wait()
        assert (sink.token_ids(), len(engine.hellos)) == (undisturbed(1, 8), 1)
        services.close()


@on_loop
async def test_requests_go_where_the_least_is_to_do(run_dir: Path, tiny_model: str) -> None:
    engines = [
        FakeEngine(engine_address(run_dir, rank, FIRST + rank), epoch=FIRST + rank, tokenizer_dir=tiny_model)
        for rank in range(2)
    ]
    with engines[0], engines[1]:
        async with connected(*engines) as services:
            await until(lambda: services.engine.num_ready == 2)
            sinks = [RecordingSink() for _ in range(10)]
            for seed, sink in enumerate(sinks):
                start_generation(services, asked(seed=seed), sink)
            for seed, sink in enumerate(sinks):
                await sink.wait()
                assert sink.token_ids() == undisturbed(seed, 8)
            assert [len(engine.submits) for engine in engines] == [5, 5]
