"""What the user asked for: one frozen record, from flags, environment, config file and defaults. Knows no process."""

import msgspec

from frontend.settings.record import Settings
from frontend.settings.values import SettingsError

__all__ = ["Settings", "SettingsError", "settings_from_json", "settings_to_json"]

_DECODER = msgspec.json.Decoder(Settings)


def settings_to_json(settings: Settings) -> bytes:
    return msgspec.json.encode(settings)


def settings_from_json(data: bytes) -> Settings:
    return _DECODER.decode(data)
