"""Finds the first stop string in a text that comes in pieces, and holds back only what could still become one.

First is the match that ends first; of those that end together, the one that begins first, which is the longest.
Aho and Corasick's automaton: one step per character, however many stop strings there are.
"""

from collections import deque
from functools import lru_cache


class _Node:
    """The longest end of the text so far that begins a stop string."""

    __slots__ = ("children", "depth", "fallback", "match")

    def __init__(self, depth: int) -> None:
        self.children: dict[str, _Node] = {}
        self.depth = depth  # characters of that end: what is to be held back
        self.fallback = self  # the next shorter such end
        self.match: str | None = None  # the longest stop string that ends here

    def after(self, char: str) -> "_Node":
        node = self
        while char not in node.children:
            if node.depth == 0:
                return node
            node = node.fallback
        return node.children[char]


class StopChecker:
    """The stop strings of one row. After a match nothing more is pushed."""

    __slots__ = ("_held", "_include", "_node", "_root")

    def __init__(self, stops: tuple[str, ...], *, include_stop_str_in_output: bool) -> None:
        self._root = _automaton(stops)
        self._node = self._root
        self._include = include_stop_str_in_output
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """The text that is safe to show, and the stop string that was found, if any."""
        node = self._node
        if node is self._root and node.children.keys().isdisjoint(text):
            return text, None
        for end, char in enumerate(text, start=1):
            node = node.after(char)
            if node.match is not None:
                return self._stop(self._held + text[:end], node.match)
        self._node = node
        whole = self._held + text
        safe = len(whole) - node.depth
        self._held = whole[safe:]
        return whole[:safe], None

    def flush(self) -> str:
        """What was held back, once no more text will come."""
        held, self._held, self._node = self._held, "", self._root
        return held

    def _stop(self, whole: str, stop: str) -> tuple[str, str]:
        self._held = ""
        return (whole if self._include else whole[: -len(stop)]), stop


@lru_cache(maxsize=16)  # clients send the same lists again and again; the largest take about 0.3 MB
def _automaton(stops: tuple[str, ...]) -> _Node:
    root = _Node(0)
    for stop in stops:
        node = root
        for char in stop:
            node = node.children.setdefault(char, _Node(node.depth + 1))
        node.match = stop
    queue = deque(root.children.values())
    for node in queue:
        node.fallback = root
    while queue:
        node = queue.popleft()
        for char, child in node.children.items():
            child.fallback = node.fallback.after(char)
            child.match = child.match or child.fallback.match
            queue.append(child)
    return root
