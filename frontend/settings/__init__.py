"""What the user asked for: one frozen record, from flags, environment, config file and defaults. Knows no process."""

import functools

import msgspec

from frontend.settings.check import check_settings
from frontend.settings.fields import make_settings
from frontend.settings.record import Settings
from frontend.settings.values import SettingsError

__all__ = ["Settings", "SettingsError", "check_settings", "make_settings", "settings_from_json", "settings_to_json"]


def settings_to_json(settings: Settings) -> bytes:
    """How a supervisor hands its settings to an API server."""
    return msgspec.json.encode(settings)


def settings_from_json(data: bytes) -> Settings:
    return _decoder().decode(data)


@functools.cache
def _decoder() -> msgspec.json.Decoder[Settings]:
    return msgspec.json.Decoder(Settings)
