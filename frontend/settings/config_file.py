"""The file of --config: a flat YAML mapping whose keys are the flags without their dashes."""

import json
from typing import Any, TextIO

import configargparse

from frontend.settings.fields import fields, unknown


class ConfigFile(configargparse.ConfigFileParser):  # type: ignore[misc]  # the library has no annotations
    """Reads it for ConfigArgParse, which wants each value as text or as a list of texts."""

    def parse(self, stream: TextIO) -> dict[str, str | list[str]]:
        known = {field.key: field for field in fields()}
        items: dict[str, str | list[str]] = {}
        for name, value in _load(stream).items():
            key = str(name).replace("_", "-")
            if key not in known:
                raise configargparse.ConfigFileParserException(f"{stream.name}: {unknown('key', str(name), known)}")
            if isinstance(value, list):
                if not known[key].is_list:
                    raise configargparse.ConfigFileParserException(f"{stream.name}: {key} takes one value, not a list")
                items[key] = [_text(item) for item in value]
            elif value is not None:  # "key:" alone leaves the default
                items[key] = _text(value)
        return items

    def get_syntax_description(self) -> str:
        return "The config file is a YAML mapping."


def _load(stream: TextIO) -> dict[Any, Any]:
    import yaml  # 15 ms and 3 MB that only a config file needs

    try:
        found = yaml.safe_load(stream)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise configargparse.ConfigFileParserException(f"{stream.name} is not YAML: {reason}") from None
    if not isinstance(found or {}, dict):
        raise configargparse.ConfigFileParserException(f"{stream.name} must hold one line 'key: value' per setting")
    return found or {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
