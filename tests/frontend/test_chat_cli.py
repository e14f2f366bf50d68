"""The chat from a pipe and in a terminal, against an endpoint that answers as a script says."""

import argparse
import asyncio
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from frontend import chat_cli
from tests.helpers.scripted_endpoint import (
    STREAM_HEAD,
    Endpoint,
    Request,
    completion_stream,
    event,
    json_answer,
    scripted_endpoint,
)
from tests.helpers.server_process import eventually


async def two_words(request: Request) -> AsyncIterator[bytes]:
    if request.line.startswith("GET /v1/models"):
        yield json_answer({"data": [{"id": "some-model"}]})
        return
    for piece in completion_stream(2, chat=True):
        yield piece


def run_piped(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    parser = argparse.ArgumentParser()
    chat_cli.add_arguments(parser)
    return chat_cli.run(parser.parse_args(arguments))


def asked(server: Endpoint) -> list[list[tuple[str, str]]]:
    bodies = [request.body for request in server.requests if request.body]
    return [[(message["role"], message["content"]) for message in body["messages"]] for body in bodies]


def test_a_line_is_a_question_and_the_chat_remembers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_endpoint(two_words) as server:
        status = run_piped(
            monkeypatch, "one\n\n/reset\ntwo\nthree\n/exit\nfour\n", "--url", server.url, "--system", "S"
        )
    assert status == 0
    assert capsys.readouterr().out == "w0 w1 \n" * 3
    system = ("system", "S")
    assert asked(server) == [
        [system, ("user", "one")],
        [system, ("user", "two")],
        [system, ("user", "two"), ("assistant", "w0 w1 "), ("user", "three")],
    ]


def test_the_settings_reach_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_endpoint(two_words) as server:
        settings = ("--url", server.url, "--temperature", "0", "--max-tokens", "9", "--api-key", "k")
        assert run_piped(monkeypatch, "hi", *settings) == 0
    request = server.requests[-1]
    assert request.headers["authorization"] == "Bearer k"
    assert request.body["model"] == "some-model"
    assert (request.body["temperature"], request.body["max_tokens"], request.body["stream"]) == (0, 9, True)


def test_a_failed_question_is_said_forgotten_and_told_by_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if request.body["messages"][-1]["content"] == "early":
            yield json_answer({"error": {"message": "overloaded"}}, "429 Too Many Requests")
        elif request.body["messages"][-1]["content"] == "late":
            yield STREAM_HEAD
            yield event({"choices": [{"delta": {"content": "half "}}]})
            yield event({"error": {"message": "engine died"}})
        else:
            async for piece in two_words(request):
                yield piece

    with scripted_endpoint(script) as server:
        status = run_piped(monkeypatch, "early\nlate\nlast\n", "--url", server.url, "--model", "m")
    assert status == 1
    told = capsys.readouterr()
    assert told.err.splitlines() == ["headrace chat: HTTP 429: overloaded", "headrace chat: engine died"]
    assert told.out.endswith("w0 w1 \n")
    assert asked(server)[-1] == [("user", "last")]


def test_an_unknown_command_is_not_sent_but_a_question_with_a_slash_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_endpoint(two_words) as server:
        assert run_piped(monkeypatch, "/quit\n/etc is what?\n", "--url", server.url, "--model", "m") == 0
    assert "/quit is no command" in capsys.readouterr().err
    assert asked(server) == [[("user", "/etc is what?")]]


@pytest.mark.parametrize(("url", "status"), [("nowhere", 2), ("http://127.0.0.1:1", 1)])
def test_no_server_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, status: int
) -> None:
    assert run_piped(monkeypatch, "hi", "--url", url) == status
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("headrace chat: ")


class Terminal:
    """The real command in a terminal of its own."""

    def __init__(self, url: str) -> None:
        self._fd, theirs = pty.openpty()
        command = [sys.executable, "-m", "headrace", "chat", "--url", url]
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._shown = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def press_ctrl_c(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait_for(self, text: str) -> None:
        """Read until `text` is shown after what was waited for before."""
        deadline = time.monotonic() + 20
        while text not in self._shown:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not appear; there is {self._shown!r}"
            self._shown += os.read(self._fd, 65536).decode()
        self._shown = self._shown.partition(text)[2]

    def end(self) -> int:
        """Its exit status. Ends it where it does not end by itself."""
        try:
            return self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._fd)


def test_ctrl_c_stops_the_answer_and_keeps_the_chat() -> None:
    async def script(request: Request) -> AsyncIterator[bytes]:
        if not request.body or len(request.body["messages"]) > 1:
            async for piece in two_words(request):
                yield piece
            return
        yield STREAM_HEAD
        yield event({"choices": [{"delta": {"content": "endless \x1b[31m"}}]})
        while True:
            yield event({"choices": [{"delta": {"content": ""}}]})
            await asyncio.sleep(0.01)

    with scripted_endpoint(script) as server:
        terminal = Terminal(server.url)
        terminal.wait_for("> ")
        terminal.type("first\n")
        terminal.wait_for("endless [31m")  # without the escape: a terminal does not obey a model
        terminal.press_ctrl_c()
        terminal.wait_for("stopped")
        terminal.wait_for("> ")
        terminal.type("second\n")
        terminal.wait_for("w0 w1 ")
        terminal.wait_for("> ")
        terminal.type("/exit\n")
        assert terminal.end() == 0
        eventually(lambda: server.num_cut == 1, "the answer that was stopped is cut")
    assert asked(server)[-1] == [("user", "first"), ("assistant", "endless \x1b[31m"), ("user", "second")]
