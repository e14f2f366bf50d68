"""The model's generation_config.json is heard unless the user says otherwise; what is wrong in it is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from frontend.sampling_defaults import SamplingDefaults, load_sampling_defaults
from frontend.settings import Settings, SettingsError


def folder_with(path: Path, config: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "generation_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


MODELS = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_new_tokens": None, "eos_token_id": [1, 2]}


def test_without_a_file_they_are_openais(tmp_path: Path) -> None:
    assert load_sampling_defaults(Settings(model="x"), str(tmp_path)) == SamplingDefaults()
    assert (SamplingDefaults().temperature, SamplingDefaults().top_p) == (1.0, 1.0)


def test_the_models_own_are_heard(tmp_path: Path) -> None:
    defaults = load_sampling_defaults(Settings(model="x"), folder_with(tmp_path, MODELS))
    assert defaults == SamplingDefaults(temperature=0.6, top_p=0.9, top_k=20)


def test_none_leaves_the_models_own_out(tmp_path: Path) -> None:
    settings = Settings(model="x", generation_config="none")
    assert load_sampling_defaults(settings, folder_with(tmp_path, MODELS)) == SamplingDefaults()


def test_another_folder_takes_the_place_of_the_models(tmp_path: Path) -> None:
    other = folder_with(tmp_path / "other", {"min_p": 0.1})
    settings = Settings(model="x", generation_config=other)
    assert load_sampling_defaults(settings, folder_with(tmp_path, MODELS)) == SamplingDefaults(min_p=0.1)


def test_an_override_goes_over_the_file(tmp_path: Path) -> None:
    settings = Settings(model="x", override_generation_config={"temperature": 0, "max_new_tokens": 64})
    defaults = load_sampling_defaults(settings, folder_with(tmp_path, MODELS))
    assert defaults == SamplingDefaults(temperature=0.0, top_p=0.9, top_k=20, max_new_tokens=64)


@pytest.mark.parametrize(
    ("config", "word"),
    [("{", "JSON"), ("[]", "JSON"), ({"temperature": "hot"}, "temperature"), ({"top_p": 2}, "top_p")],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, config: Any, word: str) -> None:
    with pytest.raises(SettingsError, match=word) as caught:
        load_sampling_defaults(Settings(model="x"), folder_with(tmp_path, config))
    assert "generation_config.json" in str(caught.value)


def test_a_named_folder_must_have_the_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_sampling_defaults(Settings(model="x", generation_config=str(tmp_path)), "/model")


def test_an_override_out_of_range_is_named(tmp_path: Path) -> None:
    settings = Settings(model="x", override_generation_config={"top_k": -5})
    with pytest.raises(SettingsError, match="--override-generation-config.*top_k"):
        load_sampling_defaults(settings, str(tmp_path))
