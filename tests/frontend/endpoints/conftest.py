"""The tiny model with a chat template."""

import shutil
from pathlib import Path

import pytest

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
