"""The command finds its sub-command, hands the arguments on, and answers mistakes with status 2."""

import argparse
import sys
from types import ModuleType

import pytest

import headrace
from frontend import cli
from frontend.settings import Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What a stand-in for the supervisor was asked to serve."""
    asked: list[Settings] = []

    def run(settings: Settings) -> int:
        asked.append(settings)
        return 4

    stand_in(monkeypatch, "frontend.supervisor", run=run)
    return asked


def test_serve_hands_checked_settings_to_the_supervisor(served: list[Settings]) -> None:
    assert cli.main(["serve", "demo", "--port", "0"]) == 4
    assert served == [Settings(model="demo", port=0)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["demo", "--prot", "1"], "headrace serve: unknown flag --prot; the nearest known one is --port\n"),
        (["demo", "--block-size", "24"], "headrace serve: --block-size must be a power of two, not 24\n"),
    ],
)
def test_wrong_settings_start_nothing(
    argv: list[str], message: str, served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", *argv]) == 2
    assert capsys.readouterr().err == message
    assert served == []


@pytest.mark.parametrize(
    ("argv", "module"),
    [(["chat", "--url", "u"], "frontend.chat_cli"), (["bench", "serve", "--url", "u"], "frontend.bench_serve")],
)
def test_other_commands_get_their_arguments(argv: list[str], module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--url")

    def run(arguments: argparse.Namespace) -> int:
        return 7 if arguments.url == "u" else 1

    stand_in(monkeypatch, module, add_arguments=add_arguments, run=run)
    assert cli.main(argv) == 7


@pytest.mark.parametrize("argv", [[], ["sevre"], ["bench"], ["bench", "latency"]])
def test_an_unknown_command_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "serve" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"headrace {headrace.__version__}\n"


def test_the_public_names_come_from_the_offline_module(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "frontend.llm", LLM="the class", SamplingParams="the other")
    found: tuple[object, object] = (headrace.LLM, headrace.SamplingParams)
    assert found == ("the class", "the other")
    with pytest.raises(AttributeError, match="no attribute 'Llm'"):
        _ = headrace.Llm


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **names: object) -> None:
    module = ModuleType(name)
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, name, module)
    package, _, last = name.rpartition(".")
    monkeypatch.setattr(sys.modules[package], last, module, raising=False)
