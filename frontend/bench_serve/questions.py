"""Questions of people, out of a ShareGPT-like file: a JSON list of conversations, or one conversation a line."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from frontend.bench_serve.prompts import Prompt

_HUMANS = frozenset({"human", "user"})


class _Turn(msgspec.Struct):
    """ShareGPT says `from` and `value`, OpenAI `role` and `content`."""

    from_: str = msgspec.field(default="", name="from")
    value: str = ""
    role: str = ""
    content: str = ""


class _Conversation(msgspec.Struct):
    conversations: list[_Turn] = []
    messages: list[_Turn] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """A random choice of the file's questions, over again where it holds too few. Answers end by themselves."""

    name: str
    questions: list[str]
    num_prompts: int
    max_tokens: int
    seed: int
    sampling: dict[str, Any]

    def prompts(self, rep: int) -> Iterator[Prompt]:
        rng = random.Random(f"{self.seed}-{rep}")
        for start in range(0, self.num_prompts, len(self.questions)):
            count = min(len(self.questions), self.num_prompts - start)
            for question in rng.sample(self.questions, count):
                yield Prompt(content=question, max_tokens=self.max_tokens)


def read_questions(path: Path) -> list[str]:
    """The first question of each conversation. Raises ValueError."""
    questions = [text for conversation in _read(path) if (text := _first_question(conversation))]
    if not questions:
        raise ValueError(f"{path} holds no conversation in which a human speaks first")
    return questions


def _read(path: Path) -> list[_Conversation]:
    try:
        data = path.read_bytes()
        if data.lstrip().startswith(b"["):
            return msgspec.json.decode(data, type=list[_Conversation])
        return msgspec.json.Decoder(_Conversation).decode_lines(data)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path} is no list of conversations: {error}") from error


def _first_question(conversation: _Conversation) -> str | None:
    for turn in conversation.conversations or conversation.messages:
        speaker = turn.from_ or turn.role
        if speaker in _HUMANS:
            return turn.value or turn.content
        if speaker != "system":
            return None
    return None
