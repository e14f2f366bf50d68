"""What an API server holds: its state word, the text side off the event loop, and what it may not load."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from frontend.errors import ApiError
from frontend.settings import Settings
from protocol.scoreboard import State
from tests.helpers.serving import make_services, on_loop, serving, until, until_ready


@on_loop
async def test_it_is_starting_until_text_and_engine_are_there(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        other = make_services()
        engine.loading = True
        assert other.state == "starting"
        other.engine.connect(0, engine.epoch, engine.address)
        for call in (lambda: other.text, lambda: other.max_model_len):
            with pytest.raises(ApiError, match="starting") as caught:
                call()
            assert caught.value.status == 503
        await other.loaded()
        states = [other.state]
        engine.loading = False
        await until_ready(other)
        states.append(other.state)
        assert (states, other.max_model_len) == (["starting", "ready"], engine.max_model_len)
        other.close()


@on_loop
async def test_the_whole_servers_drain_is_everybodys(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        services.scoreboard.supervisor.set("state", State.DRAINING)
        assert services.state == "draining"


@on_loop
async def test_its_own_drain_is_its_own(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        services.begin_drain()
        assert services.state == "draining"
        assert services.scoreboard.supervisor.get("state") != State.DRAINING


@on_loop
async def test_long_texts_are_tokenized_in_few_threads_of_their_own(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        threads: set[int] = set()
        tokenizer = services.text.tokenizer
        encode = type(tokenizer).encode

        class Spy:
            def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
                threads.add(threading.get_ident())
                return encode(tokenizer, text, add_special_tokens=add_special_tokens)

        object.__setattr__(services.text, "tokenizer", Spy())
        ids = await asyncio.gather(*(services.tokenize("abc" * 1000, add_special_tokens=False) for _ in range(8)))
        assert ids == [ids[0]] * 8
        assert len(ids[0]) == 3000
        assert 1 <= len(threads) <= 2
        assert threading.get_ident() not in threads
        assert len(await services.tokenize("abc", add_special_tokens=False)) == 3
        assert threading.get_ident() in threads, "a short text is not worth the way to a thread"


@on_loop
async def test_a_model_without_a_template_cannot_chat(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, _):
        with pytest.raises(ApiError, match="--chat-template") as caught:
            await services.render_chat([{"role": "user", "content": "Hi"}])
        assert (caught.value.status, caught.value.param) == (400, "messages")


@on_loop
async def test_a_template_renders_and_its_refusal_is_the_clients_fault(tiny_model: str) -> None:
    template = "{% if messages[0].content == 'bad' %}{{ raise_exception('no') }}{% endif %}<{{ messages[0].content }}>"
    async with serving(tiny_model, settings=Settings(model="fake", chat_template=template)) as (services, _):
        assert await services.render_chat([{"role": "user", "content": "Hi"}]) == "<Hi>"
        with pytest.raises(ApiError, match="refuses") as caught:
            await services.render_chat([{"role": "user", "content": "bad"}])
        assert (caught.value.status, caught.value.param) == (400, "messages")


@on_loop
async def test_a_text_side_that_cannot_be_loaded_is_told_to_who_waits(tiny_model: str, tmp_path: Path) -> None:
    async with serving(tiny_model) as (_, engine):
        engine.tokenizer_dir = str(tmp_path)
        services = make_services()
        services.engine.connect(0, engine.epoch, engine.address)
        with pytest.raises(OSError, match=r"tokenizer\.json"):
            await services.loaded()
        assert services.state == "starting"
        services.close()


@on_loop
async def test_names_are_the_settings_or_the_models(tiny_model: str) -> None:
    named = make_services(Settings(model="m", served_model_name=("a", "b")))
    plain = make_services(Settings(model="m"))
    assert (named.model_names, plain.model_names) == (("a", "b"), ("m",))
    named.close()
    plain.close()


@on_loop
async def test_close_leaves_no_thread_and_no_connection(tiny_model: str) -> None:
    async with serving(tiny_model) as (services, engine):
        await services.tokenize("abc" * 1000, add_special_tokens=False)
        services.close()
        await until(lambda: engine.peers_ended == 1)
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("tokenizer")])


def test_it_loads_nothing_heavy() -> None:
    script = (
        "import sys, frontend.services, frontend.generation\n"
        "heavy = {'torch', 'triton', 'transformers', 'numpy', 'engine', 'pydantic', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
