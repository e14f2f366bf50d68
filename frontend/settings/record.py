"""Every setting, once: name, kind, default and help. Flags, environment, config file and --help follow from this file.

The record itself does not know where a value came from.
"""

from typing import Annotated, Literal

import msgspec

from frontend.settings.values import KIB, MIB, Bytes, Count, Fraction, LogLevel, MaybeNoSeconds, Name, Seconds
from protocol.launch import Device, DType, LoadFormat, SchedulingPolicy

Port = Annotated[int, msgspec.Meta(ge=0, le=65535, extra={"unit": "PORT"})]
ProcessCount = Annotated[int, msgspec.Meta(ge=1, le=256, extra={"unit": "N"})]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1, extra={"unit": "N"})]
MaxLogprobs = Annotated[int, msgspec.Meta(ge=0, le=1024, extra={"unit": "N"})]
BlockSize = Annotated[int, msgspec.Meta(ge=1, le=256, extra={"unit": "N"})]
Depth = Annotated[int, msgspec.Meta(ge=1, le=256, extra={"unit": "N"})]
MetricsPrefix = Annotated[str, msgspec.Meta(pattern="^([a-zA-Z_][a-zA-Z0-9_]*[_:])?$", extra={"unit": "PREFIX"})]
ContentFormat = Literal["auto", "string", "openai"]
UvicornLogLevel = Literal["trace", "debug", "info", "warning", "error", "critical"]
JsonValue = bool | int | float | str | list[int] | None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of one value alone stands here; what is asked of several together, `check_settings` says."""

    model: Annotated[Name, "Hugging Face id, local folder, .gguf file, or demo"]
    served_model_name: Annotated[tuple[Name, ...], "names that clients may ask for; the first is reported"] = ()
    revision: Annotated[Name | None, "branch, tag or commit of the Hugging Face repository"] = None
    tokenizer: Annotated[Name | None, "Hugging Face id or folder of another tokenizer than the model's"] = None
    chat_template: Annotated[Name | None, "file, or the template in one line, in place of the model's own"] = None
    chat_template_content_format: Annotated[ContentFormat, "how message content is given to the template"] = "auto"
    enable_auto_tool_choice: Annotated[bool, "let the model call the tools of a request"] = False
    tool_call_parser: Annotated[Name | None, "form of the model's tool calls: hermes, llama3_json, mistral, ..."] = None
    tool_parser_plugin: Annotated[Name | None, "Python file whose TOOL_PARSERS adds tool call parsers by name"] = None
    reasoning_parser: Annotated[Name | None, "splits thinking from the answer: deepseek_r1, qwen3"] = None
    generation_config: Annotated[
        Name, "sampling defaults: auto (the model's generation_config.json), none, or a folder that holds one"
    ] = "auto"
    override_generation_config: Annotated[
        dict[str, JsonValue], "sampling defaults, a JSON object that goes over generation_config"
    ] = {}

    host: Annotated[Name | None, "address to listen on; without it all interfaces, IPv4 and IPv6"] = None
    port: Annotated[Port, "TCP port; 0 picks a free one and prints it"] = 8000
    uds: Annotated[Name | None, "Unix socket to listen on instead of host and port"] = None
    api_server_count: Annotated[ProcessCount, "API server processes that share the one socket"] = 1
    shutdown_timeout: Annotated[MaybeNoSeconds, "how long streams may go on after SIGTERM"] = 30.0
    timeout_keep_alive: Annotated[Seconds, "how long an idle connection is kept"] = 75.0
    stream_interval: Annotated[Count, "tokens of one streamed event; the first token has one of its own"] = 1
    sse_keep_alive_interval: Annotated[Seconds, "a stream that is silent for so long gets an SSE comment"] = 15.0

    max_n: Annotated[Count, "choices of one request (n)"] = 16
    max_logprobs: Annotated[MaxLogprobs, "logprobs a token"] = 20
    max_stop_strings: Annotated[Count, "stop strings of one request"] = 16
    max_stop_string_chars: Annotated[Count, "characters of one stop string"] = 64
    max_body_bytes: Annotated[Bytes, "request body"] = 16 * MIB
    max_header_bytes: Annotated[Bytes, "request line and header block together"] = 16 * KIB
    max_header_fields: Annotated[Count, "header fields"] = 100
    max_json_depth: Annotated[Depth, "nesting of a JSON body"] = 64
    header_timeout: Annotated[Seconds, "time in which the whole header must have arrived"] = 10.0
    body_timeout: Annotated[Seconds, "time in which the whole body must have arrived"] = 60.0
    allow_unknown_fields: Annotated[bool, "ignore unknown request fields instead of refusing them with 400"] = False
    enable_request_priority: Annotated[bool, "let requests set their priority (needs the policy priority)"] = False

    max_num_queued_reqs: Annotated[Count, "waiting requests, each choice of n counted"] = 4096
    max_num_queued_tokens: Annotated[Count, "prompt tokens of waiting requests"] = 4_194_304

    device: Annotated[Device, "where the model runs; auto takes a GPU if there is one"] = "auto"
    dtype: Annotated[DType, "what the model computes in; auto takes the weights' own"] = "auto"
    load_format: Annotated[LoadFormat, "kind of weights; dummy fills random ones from config.json"] = "auto"
    seed: Annotated[Seed, "seed of dummy weights"] = 0
    max_model_len: Annotated[Count | None, "tokens of prompt and answer together; without it the model's own"] = None
    max_num_seqs: Annotated[Count, "rows that run at the same time"] = 256
    max_num_batched_tokens: Annotated[
        Count | None, "tokens of one step, prefill and decode together; without it 8192 on a GPU, 2048 on the CPU"
    ] = None
    block_size: Annotated[BlockSize, "tokens of a KV block"] = 16
    gpu_memory_utilization: Annotated[Fraction, "share of the GPU's memory that the engine may take"] = 0.9
    kv_cache_memory_bytes: Annotated[Bytes | None, "size of the KV cache; without it what memory allows"] = None
    enable_prefix_caching: Annotated[bool, "reuse the KV cache of equal prompt beginnings"] = True
    enable_chunked_prefill: Annotated[bool, "compute long prompts in pieces beside running rows"] = True
    scheduling_policy: Annotated[SchedulingPolicy, "who runs first of those who wait"] = "fcfs"

    log_level: Annotated[LogLevel, "level of Headrace's own log"] = "info"
    uvicorn_log_level: Annotated[UvicornLogLevel, "level of the HTTP server's log"] = "info"
    disable_uvicorn_access_log: Annotated[bool, "no line per request"] = False
    disable_fastapi_docs: Annotated[bool, "no /docs, /redoc and /openapi.json"] = False
    metrics_prefix: Annotated[MetricsPrefix, "begins each metric's name; vllm: gives vLLM's names"] = "headrace_"


# The groups of --help, in the order of the fields: title, and the field that it begins with.
GROUPS = (
    ("Model and text", "model"),
    ("Processes and connections", "host"),
    ("What one request may ask for", "max_n"),
    ("How much may wait, beyond which clients get 429", "max_num_queued_reqs"),
    ("Engine", "device"),
    ("Logs, metrics and docs", "log_level"),
)
