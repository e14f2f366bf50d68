"""Every tensor accounted for, and no file outside the folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.models.shape import ModelError, read_shape
from engine.weights.safetensors_folder import INDEX, SINGLE, SafetensorsFolder
from engine.weights.source import check_tensors
from tests.helpers.drive_runner import engine_config, start
from tests.helpers.small_models import save_model

A_TENSOR = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model("llama", folder)
    return folder


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / SINGLE)


def check(folder: Path) -> None:
    check_tensors(SafetensorsFolder(folder), read_shape(folder))


def write_shards(folder: Path, **changes: Any) -> None:
    """Two shards and their index; `changes` are made to the index's weight_map."""
    whole = tensors(folder)
    (folder / SINGLE).unlink()
    names = sorted(whole)
    files = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: whole[name] for name in names if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": files | changes}))


def test_missing(folder: Path) -> None:
    whole = tensors(folder)
    del whole[A_TENSOR]
    save_file(whole, folder / SINGLE)
    with pytest.raises(ModelError, match=f"lacks tensor {A_TENSOR}, which LlamaForCausalLM needs"):
        check(folder)


def test_surplus(folder: Path) -> None:
    save_file(tensors(folder) | {"model.layers.9.extra": torch.zeros(3)}, folder / SINGLE)
    with pytest.raises(ModelError, match=r"holds tensor model.layers.9.extra, which LlamaForCausalLM does not use"):
        check(folder)


def test_wrong_shape(folder: Path) -> None:
    save_file(tensors(folder) | {A_TENSOR: torch.zeros(7, 48)}, folder / SINGLE)
    with pytest.raises(ModelError, match=rf"{A_TENSOR} has shape \[7, 48\]; config.json asks for \[80, 48\]"):
        check(folder)


def test_wrong_type(folder: Path) -> None:
    save_file(tensors(folder) | {A_TENSOR: torch.zeros(80, 48, dtype=torch.int8)}, folder / SINGLE)
    with pytest.raises(ModelError, match=f"tensor {A_TENSOR} has type I8"):
        check(folder)


@pytest.mark.parametrize("kept", [0, 5, 400, -1])
def test_truncated(folder: Path, kept: int) -> None:
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:kept])
    with pytest.raises(ModelError, match="model.safetensors is not a whole safetensors file"):
        check(folder)


def test_no_weights_at_all(folder: Path) -> None:
    (folder / SINGLE).unlink()
    with pytest.raises(ModelError, match="holds no .safetensors file; --load-format dummy needs none"):
        check(folder)


def test_shards_give_the_same_tokens(folder: Path) -> None:
    def tokens() -> list[list[int]]:
        driver = start(engine_config(folder))
        return driver.generate([driver.add(0, [1, 2, 3])], 6)

    whole = tokens()
    write_shards(folder)
    assert tokens() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({A_TENSOR: "../model/part-0.safetensors"}, "lies outside the folder"),
        ({A_TENSOR: "/etc/passwd"}, "lies outside the folder"),
        ({A_TENSOR: "part-7.safetensors"}, "part-7.safetensors is missing"),
        ({"model.norm.weight": "part-1.safetensors"}, "is not where"),
        ({"no.such.tensor": "part-1.safetensors"}, "lacks tensor no.such.tensor"),
        ({A_TENSOR: 3}, "must map tensor names to file names"),
    ],
)
def test_an_index_that_lies(folder: Path, changes: dict[str, Any], message: str) -> None:
    write_shards(folder)
    index = json.loads((folder / INDEX).read_text())
    if "model.norm.weight" in changes:
        other = {"part-0.safetensors": "part-1.safetensors", "part-1.safetensors": "part-0.safetensors"}
        changes = {"model.norm.weight": other[index["weight_map"]["model.norm.weight"]]}
    index["weight_map"] |= changes
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        check(folder)


def test_a_symlink_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / SINGLE, tmp_path / "elsewhere")
    (folder / SINGLE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="model.safetensors lies outside the folder"):
        check(folder)


def test_the_hugging_face_caches_own_symlinks_are_followed(folder: Path, tmp_path: Path) -> None:
    entry = tmp_path / "models--some--model"
    snapshot = Path(shutil.copytree(folder, entry / "snapshots" / "abc"))
    (entry / "blobs").mkdir()
    shutil.move(snapshot / SINGLE, entry / "blobs" / "123")
    (snapshot / SINGLE).symlink_to("../../blobs/123")
    check(snapshot)
