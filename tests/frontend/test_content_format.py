import pytest

from frontend.content_format import detect_content_format
from frontend.template_environment import make_environment

STRING = [
    "{% for message in messages %}{{ message.content }}{% endfor %}",
    "{% for message in messages %}{{ message['content'] | trim }}{% endfor %}",
    "{% for tool in tools %}{{ tool }}{% endfor %}{{ messages[0]['content'] }}",
    "{% for message in messages %}{% for call in message.tool_calls %}{{ call }}{% endfor %}{% endfor %}",
]
OPENAI = [
    "{% for message in messages %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% for p in m.content | selectattr('text') %}{{ p }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% set parts = m.content %}{% for p in parts %}{{ p }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% for p in m.content[1:] %}{{ p }}{% endfor %}{% endfor %}",
    "{% macro show(content) %}{% for p in content %}{{ p }}{% endfor %}{% endmacro %}{{ show(messages[0].content) }}",
]


@pytest.mark.parametrize(
    ("source", "expected"), [*((source, "string") for source in STRING), *((source, "openai") for source in OPENAI)]
)
def test_a_loop_over_the_content_means_parts(source: str, expected: str) -> None:
    assert detect_content_format(make_environment(), source) == expected
