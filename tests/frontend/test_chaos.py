"""Seeded random trouble under many requests: every one that was not cancelled gets exactly its tokens, and one end."""

import asyncio
import random
import shutil
from pathlib import Path
from tempfile import mkdtemp

import pytest

from frontend.generation import Generation, start_generation
from frontend.services import Services
from protocol.address import engine_address
from tests.helpers.fake_engine import FakeEngine, next_token
from tests.helpers.serving import RecordingSink, asked, make_services, on_loop, until, until_ready

NUM_REQUESTS = 60


class Trouble:
    """One engine core at a time, and what befalls it."""

    def __init__(self, seed: int, tokenizer_dir: str) -> None:
        self.random = random.Random(seed)
        self.run_dir = Path(mkdtemp(prefix="headrace-"))
        self.services: Services = make_services()
        self.tokenizer_dir = tokenizer_dir
        self.num_epochs = 0
        self.new_epoch()

    def new_epoch(self) -> None:
        self.num_epochs += 1
        address = engine_address(self.run_dir, 0, self.num_epochs)
        self.engine = FakeEngine(address, epoch=self.num_epochs, tokenizer_dir=self.tokenizer_dir)
        self.engine.__enter__()
        self.services.engine.connect(0, self.num_epochs, address)

    async def strike(self) -> None:
        kind = self.random.choice(["garbage", "pause", "death"])
        if kind == "garbage":
            self.engine.send_garbage(self.random.randbytes(self.random.randrange(40)))
        elif kind == "pause":
            self.engine.paused = not self.engine.paused
        elif self.num_epochs < 5:
            self.engine.kill()
            self.new_epoch()
            await until(lambda: self.services.engine.num_ready == 1)

    def end(self) -> None:
        self.services.close()
        self.engine.kill()
        shutil.rmtree(self.run_dir)


@pytest.mark.parametrize("seed", range(3))
@on_loop
async def test_no_token_is_lost_or_doubled(tiny_model: str, seed: int) -> None:
    trouble = Trouble(seed, tiny_model)
    draw, services = trouble.random, trouble.services
    try:
        await until_ready(services)
        begun: list[tuple[int, int, RecordingSink, Generation]] = []
        for number in range(NUM_REQUESTS):
            length, sink = draw.randrange(1, 120), RecordingSink()
            request = asked(seed=number, max_tokens=length, num_choices=draw.choice([1, 1, 2]))
            begun.append((number, length, sink, start_generation(services, request, sink)))
            await asyncio.sleep(0.004 * draw.random())
            if draw.random() < 0.2:
                draw.choice(begun)[3].cancel()
            if draw.random() < 0.15:
                await trouble.strike()
        trouble.engine.paused = False
        await until(lambda: services.num_open == 0)
        for number, length, sink, generation in begun:
            for choice in range(generation.request.num_choices):
                whole = [next_token(number + choice, 3 + i, 256) for i in range(length)]
                got = sink.token_ids(choice)
                assert got == whole[: len(got)]
                assert sink.ends == 0 or got == whole
            assert sink.errors == []
            assert sink.ends <= 1
        cancelled = sum(sink.ends == 0 for _, _, sink, _ in begun)
        assert services.row.get("requests_error") == 0
        assert 0 < cancelled < NUM_REQUESTS // 2
        await until(lambda: trouble.engine.num_open_rows == 0)
    finally:
        trouble.end()
