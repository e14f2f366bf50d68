"""What must hold of several settings together. Looks at no file but those that a setting names, and at no device."""

import os
from pathlib import Path

from frontend.parser_names import REASONING_PARSERS, TOOL_PARSERS
from frontend.settings.fields import unknown
from frontend.settings.record import Settings
from frontend.settings.values import SettingsError

_MAX_SOCKET_PATH_BYTES = 107  # sun_path of unix(7) holds 108 with its closing zero


def check_settings(settings: Settings) -> None:
    """Raise `SettingsError` at the first combination that cannot be served."""
    _check_model(settings)
    _check_text(settings)
    _check_parsers(settings)
    _check_address(settings)
    _check_steps(settings)
    _check_admission(settings)


def _check_model(s: Settings) -> None:
    is_gguf = s.model == "demo" or s.model.endswith(".gguf")
    if s.load_format == "safetensors" and is_gguf:
        raise SettingsError(f"--load-format safetensors cannot read {s.model}, which is GGUF; leave it at auto")
    if s.load_format == "gguf" and not is_gguf:
        raise SettingsError(f"--load-format gguf needs a .gguf file as MODEL, not {s.model}; leave it at auto")
    if s.revision is not None and (is_gguf or os.path.isdir(s.model)):
        raise SettingsError(f"--revision is for a Hugging Face id, and {s.model} is none; leave it out")
    if s.block_size & (s.block_size - 1):
        raise SettingsError(f"--block-size must be a power of two, not {s.block_size}")


def _check_text(s: Settings) -> None:
    template = s.chat_template
    if template is not None and "{" not in template and not os.path.isfile(template):
        raise SettingsError(f"--chat-template: {template} is neither a file nor a template (it holds no brace)")
    folder = s.generation_config
    if folder not in ("auto", "none") and not os.path.isdir(folder):
        raise SettingsError(f"--generation-config must be auto, none or a folder, and {folder} is no folder")


def _check_parsers(s: Settings) -> None:
    if s.enable_auto_tool_choice != (s.tool_call_parser is not None):
        given, missing = "--tool-call-parser", "--enable-auto-tool-choice"
        if s.enable_auto_tool_choice:
            given, missing = missing, given
        raise SettingsError(f"{given} has no effect without {missing}; add it")
    if s.tool_parser_plugin is not None:
        _check_plugin(s.tool_parser_plugin, s.tool_call_parser)
    elif s.tool_call_parser is not None and s.tool_call_parser not in TOOL_PARSERS:
        raise SettingsError(unknown("--tool-call-parser", s.tool_call_parser, list(TOOL_PARSERS)))
    if s.reasoning_parser is not None and s.reasoning_parser not in REASONING_PARSERS:
        raise SettingsError(unknown("--reasoning-parser", s.reasoning_parser, list(REASONING_PARSERS)))


def _check_plugin(path: str, parser: str | None) -> None:
    """Only that it can be imported at all: to import it is the API servers' work."""
    if parser is None:
        raise SettingsError("--tool-parser-plugin has no effect without --tool-call-parser; add it")
    try:
        compile(Path(path).read_bytes(), path, "exec")
    except (OSError, SyntaxError, ValueError) as error:
        raise SettingsError(f"--tool-parser-plugin: {path} cannot be used: {error}") from error


def _check_address(s: Settings) -> None:
    if s.uds is None:
        return
    if s.host is not None:
        raise SettingsError("--uds and --host exclude each other; leave one of them out")
    length = len(os.fsencode(s.uds))
    if length > _MAX_SOCKET_PATH_BYTES:
        raise SettingsError(f"--uds has {length} bytes; a Unix socket's path has at most {_MAX_SOCKET_PATH_BYTES}")


def _check_steps(s: Settings) -> None:
    budget = s.max_num_batched_tokens
    if budget is not None and budget < s.max_num_seqs:
        raise SettingsError(
            f"--max-num-batched-tokens {budget} is less than --max-num-seqs {s.max_num_seqs}: "
            "a step takes at least one token of each running row; raise the first or lower the second"
        )
    if budget is not None and not s.enable_chunked_prefill and budget < (s.max_model_len or 0):
        raise SettingsError(
            f"--no-enable-chunked-prefill computes a prompt in one step, so --max-num-batched-tokens must be at least "
            f"--max-model-len ({s.max_model_len}), not {budget}"
        )
    if s.enable_request_priority and s.scheduling_policy != "priority":
        raise SettingsError("--enable-request-priority has no effect without --scheduling-policy priority; add it")


def _check_admission(s: Settings) -> None:
    if s.max_n > s.max_num_queued_reqs:
        raise SettingsError(
            f"--max-n {s.max_n} choices could never wait together under --max-num-queued-reqs "
            f"{s.max_num_queued_reqs}; lower the first or raise the second"
        )
    if s.max_model_len is not None and s.max_num_queued_tokens < s.max_model_len:
        raise SettingsError(
            f"--max-num-queued-tokens {s.max_num_queued_tokens} would refuse every prompt of --max-model-len "
            f"{s.max_model_len}; raise it to at least that"
        )
