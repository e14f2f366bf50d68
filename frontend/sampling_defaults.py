"""What a request gets that does not say: the model's generation_config.json unless told otherwise, then OpenAI's."""

from pathlib import Path
from typing import Annotated

import msgspec

from frontend.settings import Settings, SettingsError


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of generation_config.json that are about sampling; the values are OpenAI's own defaults."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None  # None: up to the context's end


def load_sampling_defaults(settings: Settings, config_dir: str) -> SamplingDefaults:
    """Raises `SettingsError` naming the file or the flag whose value is out of range."""
    path = _file_of(settings, config_dir)
    found = {} if path is None else _read(path)
    _convert(found, source=str(path))
    return _convert(found | settings.override_generation_config, source="--override-generation-config")


def _file_of(settings: Settings, config_dir: str) -> Path | None:
    """A model may have none; a folder that the user names must have one."""
    if settings.generation_config == "none":
        return None
    if settings.generation_config == "auto":
        path = Path(config_dir) / "generation_config.json"
        return path if path.is_file() else None
    path = Path(settings.generation_config) / "generation_config.json"
    if not path.is_file():
        raise SettingsError(f"--generation-config: {path} does not exist; name a folder that holds one, auto or none")
    return path


def _read(path: Path) -> dict[str, object]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path} is not a JSON object: {error}") from None
    return {key: value for key, value in found.items() if value is not None}  # null means: not said


def _convert(values: dict[str, object], *, source: str) -> SamplingDefaults:
    try:
        return msgspec.convert(values, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {error}") from None
