"""A load process: many connections, raw bytes, counted and hardly looked at, so that it costs a fraction of the server.

Every token is a word with a space before it, so spaces less those of `data: ` are tokens, however events are cut.
"""

import json
import random
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.frontend_bench.page import COUNTS, NUM_STEP_TIMES, Page
from scripts.frontend_bench.words import NUM_WORDS, read_words

_END_DEADLINE_S = 30.0
_MARK = b"data: "
_TEXT = b'"text":"'
_LAST_CHUNK = b"\n0\r\n\r\n"
_MAX_SAMPLES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What one load process does."""

    host: str
    port: int
    model: str
    index: int  # of the load process
    num_streams: int
    num_tokens: int  # of an answer; 0: whole chat answers of one token
    keep_alive: bool = True
    timed_streams: int = 0  # how many of them have each event's time taken


class Stream:
    """One connection and its answers, one after the other."""

    __slots__ = ("asked", "body_left", "fd", "is_timed", "num_tokens", "sock", "tail")

    def __init__(self, sock: socket.socket, *, is_timed: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.is_timed = is_timed
        self.tail = b""  # before the body: the head so far; in it: what may be the beginning of a mark
        self.body_left: int | None = -1  # -1: the head is awaited; None: chunks follow
        self.num_tokens = 0
        self.asked = 0


class Client:
    """Runs its streams until the page says stop, and then to the end of their answers."""

    def __init__(self, page: Page, workload: Workload) -> None:
        self._page = page
        self._load = workload
        self._requests = _requests(workload)
        self._streams: dict[int, Stream] = {}
        self._epoll = select.epoll()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._words = read_words(page.path.with_suffix(".words")) if workload.timed_streams else {}
        self.latencies_us: list[int] = []

    def run(self) -> list[int]:
        """The latencies that were taken, in microseconds."""
        for number in range(self._load.num_streams):
            self._connect(is_timed=number < self._load.timed_streams)
        until = None
        while self._streams and (until is None or time.monotonic() < until):
            for fd, _ in self._epoll.poll(0.05):
                self._on_readable(self._streams[fd])
            self._report()
            if until is None and self._page.stopped:
                until = time.monotonic() + _END_DEADLINE_S
        self._counts["wrong"] += len(self._streams)  # did not end in time
        self._report()
        return self.latencies_us

    def _connect(self, *, is_timed: bool) -> None:
        sock = socket.create_connection((self._load.host, self._load.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = Stream(sock, is_timed=is_timed)
        self._streams[stream.fd] = stream
        self._epoll.register(stream.fd, select.EPOLLIN)
        self._ask(stream)

    def _disconnect(self, stream: Stream) -> None:
        self._epoll.unregister(stream.fd)
        del self._streams[stream.fd]
        stream.sock.close()

    def _ask(self, stream: Stream) -> None:
        stream.asked, request = next(self._requests)
        stream.tail, stream.body_left, stream.num_tokens = b"", -1, 0
        stream.sock.sendall(request)

    def _on_readable(self, stream: Stream) -> None:
        try:
            data = stream.sock.recv(262_144)
        except ConnectionError:
            data = b""
        if not data:
            self._closed(stream)
        elif stream.body_left == -1:
            self._read_head(stream, data)
        else:
            self._read_body(stream, data)

    def _closed(self, stream: Stream) -> None:
        """Between two answers a server may; within one it is an error."""
        if stream.body_left != -1 or stream.tail:
            self._counts["wrong"] += 1
        self._disconnect(stream)
        if not self._page.stopped:
            self._connect(is_timed=stream.is_timed)

    def _read_head(self, stream: Stream, data: bytes) -> None:
        stream.tail += data
        head, found, body = stream.tail.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the server refused: {stream.tail[:600]!r}")
        _, has_length, rest = head.partition(b"content-length: ")
        stream.body_left = int(rest.partition(b"\r\n")[0]) if has_length else None
        stream.tail = b""
        if body:
            self._read_body(stream, body)

    def _read_body(self, stream: Stream, data: bytes) -> None:
        if stream.body_left is not None:
            stream.body_left -= len(data)
            if stream.body_left <= 0:
                self._counts["events"] += 1
                self._counts["tokens"] += 1
                self._end(stream, is_right=stream.body_left == 0)
            return
        if stream.is_timed:
            self._take_times(data)
        whole = stream.tail + data
        marks = whole.count(_MARK)
        self._counts["events"] += marks
        num_tokens = data.count(b" ") - marks
        stream.num_tokens += num_tokens
        self._counts["tokens"] += num_tokens
        stream.tail = whole[-5:]
        if whole.endswith(_LAST_CHUNK):
            self._counts["events"] -= 1  # [DONE]
            self._end(stream, is_right=stream.num_tokens == stream.asked)

    def _end(self, stream: Stream, *, is_right: bool) -> None:
        self._counts["ended"] += 1
        self._counts["wrong"] += not is_right
        if self._page.stopped:
            self._disconnect(stream)
        elif self._load.keep_alive:
            self._ask(stream)
        else:
            self._disconnect(stream)
            self._connect(is_timed=stream.is_timed)

    def _take_times(self, data: bytes) -> None:
        """From the engine's send of the step to now; the word tells which step it was."""
        now = time.monotonic_ns()
        for part in data.split(_TEXT)[1:]:
            word = self._words.get(part.partition(b'"')[0])
            if word is not None and len(self.latencies_us) < _MAX_SAMPLES:
                step = self._last_step_of(word)
                self.latencies_us.append((now - int(self._page.sent_ns[step % NUM_STEP_TIMES])) // 1000)

    def _last_step_of(self, word: int) -> int:
        now = self._page.num_steps
        return now - (now - word) % NUM_WORDS

    def _report(self) -> None:
        self._counts["cpu_us"] = time.process_time_ns() // 1000
        self._page.counts[self._load.index] = list(self._counts.values())


def _requests(load: Workload) -> Iterator[tuple[int, bytes]]:
    """(tokens asked for, bytes). The first answer of each stream is shorter, so that they do not all end at once."""
    number = 0
    chance = random.Random(load.index)
    while True:
        number += 1
        if load.num_tokens == 0:
            yield 1, _post(load, "/v1/chat/completions", _chat(load, f"{load.index}-{number}"))
            continue
        count = chance.randint(1, load.num_tokens) if number <= load.num_streams else load.num_tokens
        prompt = [chance.randrange(1000, 40000) for _ in range(16)]
        fields = {"prompt": prompt, "max_tokens": count, "stream": True, "temperature": 0, "ignore_eos": True}
        yield count, _post(load, "/v1/completions", fields)


def _chat(load: Workload, label: str) -> dict[str, object]:
    question = {"role": "user", "content": f"This is question {label}: what would you like to say?"}
    return {"messages": [question], "max_tokens": 1, "temperature": 0}


def _post(load: Workload, path: str, fields: dict[str, object]) -> bytes:
    body = json.dumps({"model": load.model, **fields}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    if not load.keep_alive:
        head += "connection: close\r\n"
    return head.encode() + b"\r\n" + body
