"""The command `headrace`: finds the sub-command and imports only what it needs."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from headrace import __version__

WRONG_SETTINGS = 2


class Command(Protocol):
    """What a module that is a sub-command gives."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


def main(argv: Sequence[str]) -> int:
    """Run the sub-command that `argv` names; the process's exit status."""
    parser = argparse.ArgumentParser(prog="headrace", description="An LLM serving engine.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    parser.add_argument("command", choices=list(_COMMANDS), help="serve a model, talk to a server, or measure one")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="headrace COMMAND --help says which")
    chosen = parser.parse_args(argv)
    return _COMMANDS[chosen.command](chosen.arguments)


def _serve(argv: Sequence[str]) -> int:
    from frontend.settings import SettingsError, check_settings
    from frontend.settings.parser import parse_settings

    try:
        settings = parse_settings(argv)
        check_settings(settings)
    except SettingsError as error:
        sys.stderr.write(f"headrace serve: {error}\n")
        return WRONG_SETTINGS
    from frontend.supervisor import run

    return run(settings)


def _chat(argv: Sequence[str]) -> int:
    return _run("chat", "frontend.chat_cli", argv)


def _bench(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="headrace bench")
    parser.add_argument("kind", choices=["serve"], help="what to measure: a server over HTTP")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="headrace bench serve --help says which")
    return _run("bench serve", "frontend.bench_serve", parser.parse_args(argv).arguments)


def _run(name: str, module: str, argv: Sequence[str]) -> int:
    command = cast(Command, importlib.import_module(module))
    parser = argparse.ArgumentParser(prog=f"headrace {name}", description=command.__doc__)
    command.add_arguments(parser)
    return command.run(parser.parse_args(argv))


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"serve": _serve, "chat": _chat, "bench": _bench}
