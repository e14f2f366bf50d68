"""From a command line, an environment and a config file to the record; flag > environment > config file > default."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import configargparse

from frontend.settings.config_file import ConfigFile
from frontend.settings.fields import ENVIRONMENT_PREFIX, Field, fields, make_settings, unknown
from frontend.settings.record import Settings
from frontend.settings.values import SettingsError

_CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
# What Kubernetes puts into each container for a Service whose name begins with "headrace".
_SERVICE_LINK_NAME = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp)://")
_EPILOG = (
    f"Each flag is also an environment variable ({ENVIRONMENT_PREFIX}MAX_NUM_SEQS for --max-num-seqs) and a key of the "
    "YAML file of --config (max-num-seqs). A flag goes over the environment, that over the file, that over the default."
)


def parse_settings(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of `headrace serve`, each checked alone. Raises `SettingsError`; --help exits."""
    variables = _own_variables(os.environ if environment is None else environment)
    parser = _parser()
    given, surplus = parser.parse_known_args(list(argv), env_vars=variables)
    _refuse_unknown(surplus, variables)
    values = vars(given)
    values.pop("config", None)
    positional = values.pop("positional_model", None)
    if positional is not None:
        if any(argument.split("=", 1)[0] == "--model" for argument in argv):
            raise SettingsError(f"the model is named twice, as {positional} and by --model; leave one of them out")
        values["model"] = positional
    return make_settings(values)


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]  # the library has no annotations
    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, under the name that the user wrote: flag, variable or key."""
        option = re.match(r"argument (--[a-z0-9-]+|MODEL)[^:]*: ", message)
        if option is not None:
            message = f"{self._origin(option[1])}: {message[option.end() :]}"
        raise SettingsError(message)

    def _origin(self, flag: str) -> str:
        for source, settings in self.get_source_to_settings_dict().items():
            for name, (action, _) in settings.items():
                if name and source != "defaults" and flag in action.option_strings:
                    place = source.partition("|")[2]
                    return f"{name} in {place}" if place else name
        return flag


def _parser() -> Any:
    parser = _Parser(
        prog="headrace serve",
        usage="headrace serve MODEL [--flag VALUE ...]",
        description="Serve MODEL over the OpenAI API.",
        epilog=_EPILOG,
        allow_abbrev=False,
        add_config_file_help=False,
        add_env_var_help=False,
        config_file_parser_class=ConfigFile,
    )
    parser.add_argument(
        "--config", is_config_file=True, env_var=_CONFIG_VARIABLE, metavar="FILE", help="YAML file of settings"
    )
    groups: dict[str, Any] = {}
    for field in fields():
        if field.group not in groups:
            groups[field.group] = parser.add_argument_group(field.group)
        if field.name == "model":
            _add_positional(groups[field.group], field)
        _add_flag(groups[field.group], field)
    return parser


def _add_positional(group: Any, field: Field) -> None:
    group.add_argument(
        "positional_model", metavar="MODEL", nargs="?", type=_typed(field), default=argparse.SUPPRESS, help=field.help
    )


def _add_flag(group: Any, field: Field) -> None:
    text = field.help if field.default is None else f"{field.help} (default: {field.default})"
    how: dict[str, Any] = {"help": text.replace("%", "%%"), "dest": field.name, "default": argparse.SUPPRESS}
    if field.is_flag:
        how["action"] = argparse.BooleanOptionalAction
    else:
        how |= {"type": _typed(field), "metavar": field.metavar, "nargs": "+" if field.is_list else None}
    group.add_argument(field.flag, env_var=field.environment_variable, **how)


def _typed(field: Field) -> Any:
    def parse(text: str) -> object:
        try:
            return field.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _own_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Ours; without empty ones (a template that was not filled in) and what Kubernetes adds."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
        and value
        and not _SERVICE_LINK_NAME.search(name)
        and not _SERVICE_LINK_VALUE.match(value)
    }


def _refuse_unknown(surplus: list[str], variables: Mapping[str, str]) -> None:
    if surplus:
        name = surplus[0].split("=", 1)[0]
        if not name.startswith("-"):
            raise SettingsError(f"unexpected argument {name}: only one MODEL is served")
        flags = [field.flag for field in fields()] + ["--no-" + field.key for field in fields() if field.is_flag]
        raise SettingsError(unknown("flag", name, [*flags, "--config", "--help"]))
    known = [field.environment_variable for field in fields()] + [_CONFIG_VARIABLE]
    for name in variables:
        if name not in known:
            raise SettingsError(unknown("environment variable", name, known))
