"""The record: typed, the same on both ends of JSON, in step with the engine's own, and cheap to load."""

import subprocess
import sys

import msgspec
import pytest

from frontend.settings import Settings, SettingsError, make_settings, settings_from_json, settings_to_json
from frontend.settings.fields import fields
from protocol.launch import EngineConfig


def test_json_gives_the_same_record_back() -> None:
    settings = Settings(model="m", served_model_name=("a", "b"), override_generation_config={"top_k": 3, "x": [1]})
    assert settings_from_json(settings_to_json(settings)) == settings


def test_every_default_lies_in_its_own_range() -> None:
    assert settings_from_json(settings_to_json(Settings(model="m"))) == Settings(model="m")


def test_json_of_another_version_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `maxn`"):
        settings_from_json(b'{"model": "m", "maxn": 1}')


def test_the_engine_has_the_same_defaults() -> None:
    ours = {info.name: info.default for info in msgspec.structs.fields(Settings) if not info.required}
    theirs = {info.name: info.default for info in msgspec.structs.fields(EngineConfig) if not info.required}
    shared = ours.keys() & theirs.keys()
    assert shared >= {"max_num_seqs", "block_size", "max_num_queued_tokens", "scheduling_policy", "max_logprobs"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_python_values_are_checked_like_flags() -> None:
    assert make_settings({"model": "m", "port": 0, "served_model_name": ["a"]}).served_model_name == ("a",)
    with pytest.raises(SettingsError, match="^port must be a whole number from 0 to 65535, not 70000$"):
        make_settings({"model": "m", "port": 70000})
    with pytest.raises(SettingsError, match="^unknown setting max_seqs; the nearest known one is max_num_seqs$"):
        make_settings({"model": "m", "max_seqs": 1})
    with pytest.raises(SettingsError, match="^MODEL is missing"):
        make_settings({})


def test_every_setting_has_help_and_a_group() -> None:
    assert [field.name for field in fields()] == list(Settings.__struct_fields__)
    assert all(field.help and field.group for field in fields())


def test_reading_settings_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'yaml', 'fastapi', 'zmq', 'asyncio', 'engine'}"
    code = f"import sys, frontend.settings.parser as p; p.parse_settings(['m']); print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert found.stdout == "set()\n"
