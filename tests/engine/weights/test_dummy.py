"""Weights out of config.json alone."""

from pathlib import Path

import pytest
import torch

from engine.models.shape import ModelError, read_shape
from engine.weights.dummy import DummyWeights
from tests.helpers.drive_runner import engine_config, start
from tests.helpers.small_models import VOCAB, save_model


@pytest.fixture(scope="module")
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without weights."""
    folder = tmp_path_factory.mktemp("model")
    save_model("qwen3", folder)
    (folder / "model.safetensors").unlink()
    return folder


def test_the_same_seed_generates_the_same_tokens(config_dir: Path) -> None:
    def tokens(seed: int) -> list[int]:
        driver = start(engine_config(config_dir, load_format="dummy", seed=seed))
        return driver.generate([driver.add(0, [1, 2, 3])], 8)[0]

    assert tokens(0) == tokens(0) != tokens(1)
    assert all(0 <= token < VOCAB for token in tokens(0))


def test_tensors_do_not_repeat_each_other(config_dir: Path) -> None:
    source = DummyWeights(read_shape(config_dir), seed=0)
    layers = [torch.empty(80, 48) for _ in range(2)]
    for index, out in enumerate(layers):
        source.read(f"model.layers.{index}.mlp.up_proj.weight", out)
    assert not torch.equal(*layers)


def test_a_format_that_contradicts_the_model(config_dir: Path) -> None:
    with pytest.raises(ModelError, match="is safetensors, but --load-format says gguf; leave it at auto"):
        start(engine_config(config_dir, load_format="gguf"))
