"""The record's fields as data: what flags, environment, config file and help are made from."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from frontend.settings.record import GROUPS, Settings
from frontend.settings.values import SettingsError, describe, element_of, from_text, in_words, unit_of

ENVIRONMENT_PREFIX = "HEADRACE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting."""

    name: str
    kind: Any  # the annotation without its help
    help: str
    default: str | None  # in words; None where there is none
    group: str

    @property
    def flag(self) -> str:
        return "--" + self.key

    @property
    def key(self) -> str:
        return self.name.replace("_", "-")

    @property
    def environment_variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def is_flag(self) -> bool:
        return self.kind is bool

    @property
    def is_list(self) -> bool:
        return element_of(self.kind) is not None

    @property
    def metavar(self) -> str | None:
        return unit_of(element_of(self.kind) or self.kind)

    def parse(self, text: str) -> object:
        """The value (of a list: one element) that `text` stands for. Raises `ValueError` for after "--flag: "."""
        kind = element_of(self.kind) or self.kind
        try:
            return from_text(text, kind)
        except (ValueError, msgspec.DecodeError):
            raise ValueError(f"must be {describe(kind)}, not {text!r}") from None

    def check(self, value: object) -> object:
        """`value`, given from Python, in the form that the record keeps. Raises `SettingsError`."""
        try:
            return msgspec.convert(value, self.kind)
        except msgspec.ValidationError:
            raise SettingsError(f"{self.name} must be {describe(self.kind)}, not {value!r}") from None


@functools.cache
def fields() -> tuple[Field, ...]:
    """All fields in the order of the record."""
    hints = get_type_hints(Settings, include_extras=True)
    titles = {first: title for title, first in GROUPS}
    found, group = [], ""
    for info in msgspec.structs.fields(Settings):
        group = titles.get(info.name, group)
        kind, text = _without_help(hints[info.name])
        default = in_words(_default(info), kind)
        found.append(Field(name=info.name, kind=kind, help=text, default=default, group=group))
    return tuple(found)


def make_settings(values: Mapping[str, object]) -> Settings:
    """A record from Python values, each checked alone. Raises `SettingsError`, also for a name that is no setting."""
    by_name = {field.name: field for field in fields()}
    for name in values:
        if name not in by_name:
            raise SettingsError(unknown("setting", name, by_name))
    if "model" not in values:
        raise SettingsError("MODEL is missing: name a Hugging Face id, a local folder, a .gguf file, or demo")
    return msgspec.convert({name: by_name[name].check(value) for name, value in values.items()}, Settings)


def unknown(what: str, name: str, known: Mapping[str, object] | list[str]) -> str:
    """The sentence for a name that nobody declared; it names the nearest that somebody did."""
    nearest = get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"unknown {what} {name}; the nearest known one is {nearest[0]}"


def _default(info: msgspec.structs.FieldInfo) -> object:
    if info.default is not msgspec.NODEFAULT:
        return info.default
    return info.default_factory() if info.default_factory is not msgspec.NODEFAULT else None


def _without_help(hint: Any) -> tuple[Any, str]:
    assert get_origin(hint) is Annotated, f"{hint} has no help"
    plain, *extras = get_args(hint)
    text = extras.pop()
    return (Annotated[plain, *extras] if extras else plain), text
