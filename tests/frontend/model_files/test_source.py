import json
from pathlib import Path

import pytest

from frontend.model_files import hub
from frontend.model_files.errors import ModelFilesError
from frontend.model_files.source import resolve_model
from protocol.launch import ModelFiles


def resolve(
    name: str | Path, run_dir: Path, *, tokenizer: str | None = None, revision: str | None = None, weights: bool = True
) -> ModelFiles:
    return resolve_model(
        str(name),
        run_dir=run_dir,
        progress=lambda line: None,
        tokenizer=tokenizer,
        revision=revision,
        need_weights=weights,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (path / name).write_text("{}")
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def test_the_demo_becomes_a_folder_like_any_other(demo_files: ModelFiles) -> None:
    config_dir = Path(demo_files.config_dir)
    assert demo_files.name == "demo"
    assert {path.name for path in config_dir.iterdir()} == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    config = json.loads((config_dir / "config.json").read_text())
    assert (config["vocab_size"], config["hidden_size"], config["eos_token_id"]) == (49152, 576, 2)
    sampling = json.loads((config_dir / "generation_config.json").read_text())
    assert (sampling["temperature"], sampling["top_p"], sampling["eos_token_id"]) == (0.2, 0.9, 2)


def test_a_local_folder_is_used_where_it_lies(folder: Path, run_dir: Path) -> None:
    files = resolve(folder, run_dir)
    assert (files.config_dir, files.weights) == (str(folder), str(folder))


def test_a_gguf_file_is_named_by_its_path(demo_files: ModelFiles, run_dir: Path) -> None:
    files = resolve(demo_files.weights, run_dir)
    assert files.weights == demo_files.weights
    assert (Path(files.config_dir) / "tokenizer.json").is_file()


def test_dummy_weights_need_no_weight_files(folder: Path, run_dir: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelFilesError, match=r"no \.safetensors files"):
        resolve(folder, run_dir)
    assert resolve(folder, run_dir, weights=False).config_dir == str(folder)


def test_another_tokenizer_comes_with_its_own_template(folder: Path, run_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text('{"other": 1}')
    (other / "config.json").write_text('{"other": 1}')
    (other / "chat_template.jinja").write_text("other")
    merged = Path(resolve(folder, run_dir, tokenizer=str(other)).config_dir)
    assert (merged / "tokenizer.json").read_text() == '{"other": 1}'
    assert (merged / "chat_template.jinja").read_text() == "other"
    assert (merged / "config.json").read_text() == "{}"


def test_a_hugging_face_id_is_downloaded(folder: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, bool]] = []

    def download(repository: str, *, revision: str | None, weights: bool) -> Path:
        asked.append((repository, revision, weights))
        return folder

    monkeypatch.setattr(hub, "download", download)
    assert resolve("owner/model-1.5B", run_dir, revision="v1").config_dir == str(folder)
    assert asked == [("owner/model-1.5B", "v1", True)]


@pytest.mark.parametrize("name", ["./gone", "/no/such/folder", "a/b/c", "two words", ""])
def test_a_name_that_is_nothing_is_refused(name: str, run_dir: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"neither an existing folder, nor a \.gguf file, nor a Hugging Face id"):
        resolve(name, run_dir)


def test_a_missing_gguf_file_is_named(run_dir: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"gone\.gguf: there is no such file"):
        resolve("gone.gguf", run_dir)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_of_a_folder_is_named(name: str, folder: Path, run_dir: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFilesError, match=f"has no {name}"):
        resolve(folder, run_dir)


def test_a_folder_that_holds_a_gguf_file_points_to_it(tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "some.gguf").write_bytes(b"")
    with pytest.raises(ModelFilesError, match=r"name the file itself: .*some\.gguf"):
        resolve(tmp_path, run_dir)
