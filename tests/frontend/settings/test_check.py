"""Settings that are right alone and wrong together are refused with one sentence that names them."""

from pathlib import Path
from typing import Any

import pytest

from frontend.settings import Settings, SettingsError, check_settings


def test_the_defaults_can_be_served() -> None:
    for model in ("demo", "some/model", "weights.gguf"):
        check_settings(Settings(model=model))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "demo", "load_format": "safetensors"}, ["--load-format safetensors", "demo", "auto"]),
        ({"load_format": "gguf"}, ["--load-format gguf", ".gguf file", "auto"]),
        ({"model": "w.gguf", "revision": "main"}, ["--revision", "w.gguf", "Hugging Face id"]),
        ({"model": "/", "revision": "main"}, ["--revision", "Hugging Face id"]),
        ({"block_size": 24}, ["--block-size", "power of two", "24"]),
        ({"chat_template": "/no/such.jinja"}, ["--chat-template", "/no/such.jinja"]),
        ({"generation_config": "/no/such"}, ["--generation-config", "auto, none or a folder", "/no/such"]),
        ({"tool_call_parser": "hermes"}, ["--tool-call-parser", "--enable-auto-tool-choice"]),
        ({"enable_auto_tool_choice": True}, ["--enable-auto-tool-choice", "--tool-call-parser"]),
        ({"enable_auto_tool_choice": True, "tool_call_parser": "herms"}, ["herms", "hermes"]),
        ({"tool_parser_plugin": "/no/such.py"}, ["--tool-parser-plugin", "--tool-call-parser"]),
        (
            {"enable_auto_tool_choice": True, "tool_call_parser": "x", "tool_parser_plugin": "/no/such.py"},
            ["--tool-parser-plugin", "/no/such.py"],
        ),
        ({"reasoning_parser": "deepseek"}, ["--reasoning-parser", "deepseek_r1"]),
        ({"uds": "/tmp/s", "host": "::1"}, ["--uds", "--host"]),
        ({"uds": "/tmp/" + "ü" * 60}, ["--uds", "125 bytes", "107"]),
        ({"max_num_batched_tokens": 100}, ["--max-num-batched-tokens 100", "--max-num-seqs 256"]),
        (
            {"enable_chunked_prefill": False, "max_model_len": 4096, "max_num_batched_tokens": 2048},
            ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096", "2048"],
        ),
        ({"enable_request_priority": True}, ["--enable-request-priority", "--scheduling-policy priority"]),
        ({"max_n": 20, "max_num_queued_reqs": 10}, ["--max-n 20", "--max-num-queued-reqs 10"]),
        (
            {"max_model_len": 2000, "max_num_queued_tokens": 1000},
            ["--max-num-queued-tokens 1000", "--max-model-len 2000"],
        ),
    ],
)
def test_a_wrong_combination_is_refused(changes: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        check_settings(Settings(**{"model": "some/model"} | changes))
    for words in named:
        assert words in str(caught.value)


def test_right_combinations_pass(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("x")
    for changes in (
        {"chat_template": str(template)},
        {"chat_template": "{{ messages }}"},
        {"generation_config": str(tmp_path)},
        {"enable_request_priority": True, "scheduling_policy": "priority"},
        {"enable_chunked_prefill": False, "max_model_len": 100_000},
        {"uds": "/run/headrace.sock"},
        {"model": "demo", "load_format": "gguf"},
    ):
        check_settings(Settings(**{"model": "some/model"} | changes))
