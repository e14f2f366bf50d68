"""Reads typed values out of a model's JSON files; what is missing or of the wrong kind is named. Knows no model."""

import json
import math
from pathlib import Path


class ModelError(ValueError):
    """The model cannot be served; the message is one sentence that names the file, field or tensor."""


class Fields:
    """The values of one JSON object; `null` counts as missing."""

    def __init__(self, values: dict[str, object], place: str) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}
        self.place = place

    @classmethod
    def read(cls, path: Path) -> "Fields":
        try:
            values = json.loads(path.read_bytes())
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ModelError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path} must hold a JSON object")
        return cls(values, str(path))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def find(self, key: str) -> object:
        return self._values.get(key)

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "a whole number of at least 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above 0."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise self.error(key, "a number greater than 0")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self._values.get(key, default)
        if not isinstance(value, str):
            raise self.error(key, "a string")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "a list of strings")
        return tuple(value)

    def ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them."""
        value = self._values.get(key, [])
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in listed):
            raise self.error(key, "a token id or a list of token ids")
        return tuple(listed)

    def inner(self, key: str) -> "Fields":
        """The object under `key`, empty where there is none."""
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return Fields(value, f"{self.place}: {key}")

    def error(self, key: str, wanted: str) -> ModelError:
        if key not in self._values:
            return ModelError(f"{self.place} lacks {key}, which must be {wanted}")
        return ModelError(f"{self.place}: {key} must be {wanted}, not {self._values[key]!r}")
