"""The tiny model with a chat template, and a server of it that a module's tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.http_serving import HttpServer, http_serving

_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def chat_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder: byte-level tokenizer of 256 tokens, and a template that only puts roles around messages."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(tiny_model, folder)
    Path(folder, "chat_template.jinja").write_text(_TEMPLATE)
    return str(folder)


@pytest.fixture(scope="module")
def shared_server(chat_model: str) -> Iterator[HttpServer]:
    with http_serving(chat_model) as server:
        yield server


@pytest.fixture
def server(shared_server: HttpServer) -> Iterator[HttpServer]:
    """With default behaviour of the engine again after each test, and nothing left under way."""
    yield shared_server
    engine = shared_server.engine
    engine.answer, engine.refusal, engine.paused, engine.num_waiting = None, None, False, 0
    shared_server.wait_until(lambda: shared_server.services.num_open == 0 and engine.num_open_rows == 0)
