"""The whole vocabulary between API servers and engine cores: one union per direction, plain data only.

Every message is a map with its tag under "type". Schemas only grow: a new field has a default, a new ability is a new
message type. Arrays travel as raw little-endian bytes; the comment beside each says of what.

Rows are numbered by the API server that submits them (a counter of its own; a client's request id never gets here).
`seq` counts the messages of one direction of one connection from 0; a gap ends the peer. `epoch` is one life of an
engine core: 64 random bits, compared for equality only.
"""

from enum import IntEnum
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from protocol.sampling import Sampling, UInt64

PROTOCOL_VERSION = 1

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
FailureCode = Literal["invalid", "overloaded", "draining", "internal"]


class Finish(IntEnum):
    """Why a row ended, as the bytes of `StepOutput.finishes`. RUNNING is no end."""

    RUNNING = 0
    EOS = 1
    STOP_TOKEN = 2  # the row's last token is one of its stop_token_ids
    LENGTH = 3
    ABORT = 4  # asked for by an `Abort`; its token means nothing


class _Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    seq: Count


# --- to the engine ---------------------------------------------------------------------------------------------------


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """The first message of a connection; nothing else is sent before `Welcome`."""

    version: int
    place: Count  # which API server (its row on the scoreboard)
    life: UInt64  # one life of that API server's process


class Submit(_Message, frozen=True, kw_only=True, tag="submit"):
    """Compute `num_choices` rows, numbered `number`, `number` + 1, ...: all are admitted or none.

    With `outputs` it is a replay: prompt and outputs are computed as one prefill, while counts, penalties, stop rules
    and log-probabilities begin at the border between them; no old output is sent again. A replay has one choice.
    """

    epoch: UInt64
    number: Count
    attempt: Count = 0
    num_choices: Annotated[int, Meta(ge=1, le=1024)] = 1
    prompt: bytes  # int32 [n]
    outputs: bytes = b""  # int32 [m]
    # `protocol.block_hash` of each full block of the prompt; b"" = share this prompt's blocks with no other request
    block_hashes: bytes = b""
    sampling: Sampling
    adapter_id: Count = 0  # 0 = the base model
    adapter_load: Count = 0  # which load of that adapter
    salt: str = ""
    priority: int = 0  # lower is sooner
    key_index: Count = 0  # which API key, for shares; 0 = none
    prompt_logprobs: Annotated[int, Meta(ge=0, le=1024)] | None = None


class Abort(_Message, frozen=True, kw_only=True, tag="abort"):
    """End these rows. Each is answered by its terminal message, or by nothing if it had ended already."""

    epoch: UInt64
    numbers: list[Count]


# --- from the engine -------------------------------------------------------------------------------------------------


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What config.json says that an API server needs."""

    architecture: str
    vocab_size: int  # width of the logits: every token id is below it
    eos_token_ids: tuple[int, ...]
    max_position: int


class Welcome(_Message, frozen=True, kw_only=True, tag="welcome"):
    """The first answer to `Hello`, sent as soon as config.json is read, before the weights."""

    epoch: UInt64
    version: int
    model: ModelFacts
    tokenizer_dir: str  # the folder of tokenizer.json and chat template on this host


class EngineReady(_Message, frozen=True, kw_only=True, tag="engine_ready"):
    """The second answer to `Hello`: the engine can run a step. From here on `Submit` is legal."""

    epoch: UInt64
    num_blocks: Count
    block_size: Count
    max_model_len: Count
    max_num_seqs: Count
    max_num_queued_reqs: Count
    max_num_queued_tokens: Count
    max_logprobs: Count
    prefix_caching: bool
    hash_key: bytes  # for `protocol.block_hash`
    dtype: str
    device: str


class StepOutput(_Message, frozen=True, kw_only=True, tag="step_output"):
    """What one step gave the rows of one API server: r tokens in parallel arrays.

    Rows that asked for log-probabilities have them in a second frame, a `StepLogprobs`.
    """

    epoch: UInt64
    step: Count
    rows: bytes  # int64 [r] row numbers
    tokens: bytes  # int32 [r]
    finishes: bytes  # uint8 [r] `Finish`
    started_rows: bytes = b""  # int64 [s] rows that got their first token of this attempt
    started_cached: bytes = b""  # int32 [s] prompt tokens that the prefix cache spared each of them
    started_queue_us: bytes = b""  # int32 [s] microseconds each of them waited for its first step


class StepLogprobs(Struct, frozen=True, kw_only=True):
    """Second frame of a `StepOutput`: log-probabilities (natural, of the raw logits) of q of its r tokens."""

    index: bytes  # int32 [q] which of the r
    logprobs: bytes  # float32 [q] of the drawn token
    ranks: bytes  # int32 [q] 1 = the most likely
    widths: bytes  # int32 [q] how many alternatives follow for each
    top_ids: bytes  # int32 [sum(widths)] most likely first
    top_logprobs: bytes  # float32 [sum(widths)]


class PromptLogprobs(_Message, frozen=True, kw_only=True, tag="prompt_logprobs"):
    """Log-probabilities of the prompt tokens at positions first .. first + n - 1, in order.

    A prefill chunk has one or more of them. A preempted row computes its prompt again, and begins again at position 1.
    """

    epoch: UInt64
    number: Count
    first: Count  # >= 1: the first token of a prompt has none
    logprobs: bytes  # float32 [n]
    ranks: bytes  # int32 [n]
    width: Count  # k
    top_ids: bytes  # int32 [n * k]
    top_logprobs: bytes  # float32 [n * k]


class RequestFailed(_Message, frozen=True, kw_only=True, tag="request_failed"):
    """The terminal message of rows that could not be served. `overloaded` costs nothing and may be tried again."""

    epoch: UInt64
    number: Count
    num_rows: Count = 1
    code: FailureCode
    message: str
    field: str | None = None  # with `invalid`: the request's field
    retry_after_s: float | None = None


class Heartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """At least every 250 ms to every peer, and the engine's facts for admission."""

    epoch: UInt64
    step: Count
    num_running: Count
    num_waiting: Count
    num_waiting_tokens: Count
    num_blocks_used: Count


ToEngine: TypeAlias = Hello | Submit | Abort
FromEngine: TypeAlias = Welcome | EngineReady | StepOutput | PromptLogprobs | RequestFailed | Heartbeat
