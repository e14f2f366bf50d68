"""Talk to a model: in the terminal, or one question a line from a pipe. /reset forgets what was said, /exit ends."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from frontend.client.answers import DONE, decode_chunk, first_model, refusal
from frontend.client.connection import ClientError
from frontend.client.http_client import DEFAULT_URL, HttpClient

_FAILED, _WRONG_ARGUMENTS, _INTERRUPTED = 1, 2, 130
_HELP = "/reset forgets what was said, /exit ends; Ctrl-C stops an answer"

# A model may say what a terminal would obey: control characters, but for tab and newline, are not shown.
_UNPRINTABLE = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})

Write = Callable[[str], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them all."""
    parser.add_argument("--url", default=DEFAULT_URL, help="where the server listens (default %(default)s)")
    parser.add_argument("--api-key", metavar="KEY", help="sent as a bearer token")
    parser.add_argument("--model", metavar="NAME", help="model to talk to; without it the endpoint's first")
    parser.add_argument("--system", metavar="TEXT", help="system message that opens the chat")
    parser.add_argument("--temperature", type=float, metavar="T", help="without it the server's default")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens of one answer, at most")


def run(arguments: argparse.Namespace) -> int:
    """The command's exit status: from a pipe 1 when a question had no answer."""
    try:
        client = HttpClient(arguments.url, api_key=arguments.api_key)
    except ValueError as error:
        return _complain(error, _WRONG_ARGUMENTS)
    with asyncio.Runner() as runner:
        try:
            chat = Chat(client, arguments.model or runner.run(first_model(client)), arguments)
            return _converse(runner, chat) if sys.stdin.isatty() else _answer_lines(runner, chat)
        except ClientError as error:
            return _complain(error, _FAILED)
        except KeyboardInterrupt:
            return _INTERRUPTED
        finally:
            runner.run(client.close())


class Chat:
    """One conversation. What it holds is what was said and answered, a stopped answer as far as it came."""

    def __init__(self, client: HttpClient, model: str, arguments: argparse.Namespace) -> None:
        self.model = model
        self._client = client
        given = {"temperature": arguments.temperature, "max_tokens": arguments.max_tokens}
        self._settings = {name: value for name, value in given.items() if value is not None}
        self._system = [_message("system", arguments.system)] if arguments.system else []
        self.messages = list(self._system)

    def reset(self) -> None:
        """Forget all but the system message."""
        self.messages = list(self._system)

    async def ask(self, question: str, write: Write) -> None:
        """Write the answer as it comes. Raises `ClientError`. An unanswered question is forgotten."""
        self.messages.append(_message("user", question))
        said: list[str] = []

        def on_event(event: bytes) -> None:
            text = "" if event == DONE else _text_of(event)
            said.append(text)
            write(text)

        try:
            answer = await self._client.post("/v1/chat/completions", self._body(), on_event)
            if not answer.streamed:
                raise ClientError(refusal(answer))
        except ClientError:
            said.clear()
            raise
        finally:
            self._keep("".join(said))

    def _keep(self, answer: str) -> None:
        if answer:
            self.messages.append(_message("assistant", answer))
        else:
            self.messages.pop()  # roles must take turns: without an answer there was no question

    def _body(self) -> bytes:
        body: dict[str, Any] = {"model": self.model, "messages": self.messages, "stream": True, **self._settings}
        return msgspec.json.encode(body)


def _converse(runner: asyncio.Runner, chat: Chat) -> int:
    import readline  # noqa: F401 (gives `input` its editing and history)

    from rich.console import Console

    console = Console()
    console.print(f"{chat.model}. {_HELP}.", style="dim", markup=False, highlight=False)
    for question in _typed(lambda: input("> ")):
        if _obey(question, chat):
            continue
        try:
            runner.run(chat.ask(question, _write_printable))
        except KeyboardInterrupt:
            console.print(" (stopped)", style="dim")
        except ClientError as error:
            console.print(str(error), style="red", markup=False, highlight=False)
        else:
            _write("\n")
    return 0


def _answer_lines(runner: asyncio.Runner, chat: Chat) -> int:
    status = 0
    for question in _typed(lambda: sys.stdin.readline() or _end_of_input()):
        if _obey(question, chat):
            continue
        try:
            runner.run(chat.ask(question, _write))
        except ClientError as error:
            status = _complain(error, _FAILED)
        else:
            _write("\n")
    return status


def _typed(read_line: Callable[[], str]) -> Iterator[str]:
    """Questions until /exit or the end of input; a line without words is none."""
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            return
        if line == "/exit":
            return
        if line:
            yield line


def _end_of_input() -> str:
    raise EOFError


def _obey(line: str, chat: Chat) -> bool:
    """Whether the line was a command. A line of several words that begins with a slash is a question."""
    if not line.startswith("/") or " " in line:
        return False
    if line == "/reset":
        chat.reset()
    else:
        sys.stderr.write(f"{line} is no command: {_HELP}.\n")
    return True


def _text_of(event: bytes) -> str:
    return "".join(choice.delta.content or "" for choice in decode_chunk(event).choices if choice.delta is not None)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_printable(text: str) -> None:
    _write(text.translate(_UNPRINTABLE))


def _complain(error: Exception, status: int) -> int:
    sys.stderr.write(f"headrace chat: {error}\n")
    return status
