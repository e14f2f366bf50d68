"""Which form of message content a chat template expects: one string or OpenAI's list of parts. Read from its syntax."""

from typing import Literal

from jinja2 import Environment, nodes

ContentFormat = Literal["string", "openai"]


def detect_content_format(environment: Environment, source: str) -> ContentFormat:
    """A template that loops over `message.content` wants the list."""
    tree = environment.parse(source)
    names = {"content"}  # what macros usually call it
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, names):
            names.add(assignment.target.name)
    loops = any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))
    return "openai" if loops else "string"


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            return _is_content(node.node, names)
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    if isinstance(node, nodes.Filter):
        return _is_content(node.node, names)
    return False
