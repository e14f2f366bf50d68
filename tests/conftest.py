"""The demo model's files, and a tokenizer of either kind: one real, one small."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from frontend.model_files.gguf_tokenizer import build_tokenizer
from frontend.model_files.source import resolve_model
from frontend.tokenizer import Tokenizer
from protocol.gguf_header import read_header
from protocol.launch import ModelFiles
from tests.helpers.gguf_bytes import gguf
from tests.helpers.sentencepiece_files import metadata

# On a busy machine everything is slow, and that is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """The demo model, from the user's cache folder if it is there."""
    return resolve_model("demo", run_dir=tmp_path_factory.mktemp("run"), progress=lambda line: None)


@pytest.fixture(scope="session")
def demo_tokenizer(demo_files: ModelFiles) -> Tokenizer:
    """The demo model's: byte-level BPE."""
    return Tokenizer(demo_files.config_dir)


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small vocabulary with byte fallback."""
    folder: Path = tmp_path_factory.mktemp("sentencepiece")
    (folder / "model.gguf").write_bytes(gguf(metadata()))
    tokenizer, _ = build_tokenizer(read_header(folder / "model.gguf"))
    (folder / "tokenizer.json").write_bytes(msgspec.json.encode(tokenizer))
    return Tokenizer(folder)
