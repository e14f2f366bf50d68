import json
from pathlib import Path

import pytest

from frontend.model_files.errors import ModelFilesError
from frontend.model_files.folder import check_weights


def index(folder: Path, *names: str) -> None:
    weight_map = {f"tensor{i}": name for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_every_shard_of_the_index_must_be_there(tmp_path: Path) -> None:
    index(tmp_path, "a.safetensors", "b.safetensors")
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ModelFilesError, match=r"b\.safetensors is missing"):
        check_weights(tmp_path)
    (tmp_path / "b.safetensors").touch()
    check_weights(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", ".."])
def test_a_name_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    index(tmp_path, name)
    with pytest.raises(ModelFilesError):
        check_weights(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "elsewhere").touch()
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFilesError, match="outside of its folder"):
        check_weights(folder)


def test_the_links_of_hugging_faces_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "abc"
    blobs = tmp_path / "models--owner--model" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1234").touch()
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    check_weights(snapshot)


def test_shards_without_an_index_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(ModelFilesError, match="2 .safetensors files but no"):
        check_weights(tmp_path)


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ModelFilesError, match="is not an index of weights"):
        check_weights(tmp_path)
