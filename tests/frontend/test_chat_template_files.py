import json
import logging
from pathlib import Path

import pytest

from frontend.chat_template import ChatTemplate, ChatTemplateError
from frontend.chat_template_files import load_chat_template

MESSAGE = {"role": "user", "content": "x"}


def rendered(template: ChatTemplate | None) -> str:
    assert template is not None
    return template.render([MESSAGE])


def configure(folder: Path, **config: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_no_template_is_no_error(tmp_path: Path) -> None:
    assert load_chat_template(tmp_path) is None


def test_the_file_goes_before_the_configuration(tmp_path: Path) -> None:
    configure(tmp_path, chat_template="configured")
    assert rendered(load_chat_template(tmp_path)) == "configured"
    (tmp_path / "chat_template.jinja").write_text("own file")
    assert rendered(load_chat_template(tmp_path)) == "own file"


def test_named_templates_are_told_apart(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    configure(tmp_path, chat_template=named)
    template = load_chat_template(tmp_path)
    assert template is not None
    assert template.render([MESSAGE]) == "plain"
    assert template.render([MESSAGE], tools=[{}]) == "tools"


def test_special_tokens_are_known_by_name(tmp_path: Path) -> None:
    configure(tmp_path, chat_template="{{ bos_token }}{{ eos_token }}", bos_token={"content": "<s>"}, eos_token="</s>")
    assert rendered(load_chat_template(tmp_path)) == "<s></s>"


def test_a_given_template_takes_the_place_of_the_own_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configure(tmp_path, chat_template="own", bos_token="<s>")
    given = tmp_path / "given.jinja"
    given.write_text("given {{ bos_token }}")
    with caplog.at_level(logging.WARNING):
        assert rendered(load_chat_template(tmp_path, override=str(given))) == "given <s>"
    assert "differs from the model's own" in caplog.text


def test_the_same_template_gives_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configure(tmp_path, chat_template="{{ 'own' }}\n")
    assert rendered(load_chat_template(tmp_path, override="{{ 'own' }}")) == "own"
    assert caplog.text == ""


def test_a_template_in_one_line_may_hold_newlines(tmp_path: Path) -> None:
    assert rendered(load_chat_template(tmp_path, override=r"a\n{{ 'b\n' }}c")) == "a\nb\nc"


def test_the_content_format_may_be_forced(tmp_path: Path) -> None:
    template = load_chat_template(tmp_path, override="{{ messages[0].content[0].text }}", content_format="openai")
    assert rendered(template) == "x"


@pytest.mark.parametrize(
    ("override", "reason"), [("gone.jinja", r"gone\.jinja cannot be read"), ("{{", "syntax error in line 1")]
)
def test_a_template_that_cannot_be_used_is_refused(override: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ChatTemplateError, match=reason):
        load_chat_template(tmp_path, override=override)


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(ChatTemplateError, match=r"tokenizer_config\.json is not a tokenizer's configuration"):
        load_chat_template(tmp_path)
