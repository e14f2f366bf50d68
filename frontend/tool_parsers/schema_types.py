"""Which JSON types a tool's schema allows for a parameter, and bare text as one of them. Believes no schema."""

import json
from collections.abc import Mapping
from typing import Any

_NAMES: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    list: ("array",),
    dict: ("object",),
}
_ELSEWHERE = frozenset({"array", "boolean", "integer", "number", "object"})


def parameter_types(function: Mapping[str, Any], name: str) -> frozenset[str]:
    """Of the parameter `name`; empty where the schema says nothing."""
    properties = _mapping(_mapping(function.get("parameters")).get("properties"))
    return _types(_mapping(properties.get(name)))


def as_json(text: str, types: frozenset[str]) -> str:
    """The JSON of the value that `text` stands for; of a string where it stands for none of those types."""
    word = text.strip()
    lowered = word.lower()
    if lowered in ("true", "false", "null"):  # models write Python's words too
        word = lowered
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    fits = value is None or not types.isdisjoint(_NAMES[type(value)])
    return word if fits else json.dumps(text, ensure_ascii=False)


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """Its own types and those of its alternatives, but not of theirs: no schema can be too deep."""
    found = _declared(schema)
    for key in ("anyOf", "oneOf"):
        alternatives = schema.get(key)
        for alternative in alternatives if isinstance(alternatives, list) else []:
            found |= _declared(_mapping(alternative))
    return frozenset(found)


def _declared(schema: Mapping[str, Any]) -> set[str]:
    if "$ref" in schema:
        return set(_ELSEWHERE)  # a text that is no JSON is a string all the same
    declared = schema.get("type")
    declared = declared if isinstance(declared, list) else [declared]
    return {name for name in declared if isinstance(name, str)}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
