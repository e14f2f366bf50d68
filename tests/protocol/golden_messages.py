"""One example of each message and the bytes it must always be; `python -m tests.protocol.golden_messages` writes them.

A changed file means that two versions no longer understand each other: give the new field a default, or raise
PROTOCOL_VERSION.
"""

from array import array
from pathlib import Path

from protocol.codec import encode
from protocol.messages import (
    Abort,
    EngineReady,
    Finish,
    FromEngine,
    Heartbeat,
    Hello,
    ModelFacts,
    PromptLogprobs,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)
from protocol.sampling import Sampling

FOLDER = Path(__file__).parent / "golden"
EPOCH = 0xFEDC_BA98_7654_3210


def int32(*values: int) -> bytes:
    return array("i", values).tobytes()


def int64(*values: int) -> bytes:
    return array("q", values).tobytes()


def float32(*values: float) -> bytes:
    return array("f", values).tobytes()


SAMPLING = Sampling(
    seed=2**64 - 1,
    max_tokens=128,
    min_tokens=2,
    temperature=0.5,
    top_k=40,
    top_p=0.75,
    min_p=0.125,
    presence_penalty=-0.5,
    frequency_penalty=0.25,
    repetition_penalty=1.5,
    stop_token_ids=(7, 8),
    ignore_eos=True,
    logprobs=3,
    logit_bias={5: -100.0, 6: 1.5},
    allowed_token_ids=(5, 6, 7),
    bad_words=((1, 2), (3,)),
)

TO_ENGINE: dict[str, ToEngine] = {
    "hello": Hello(seq=0, version=1, place=3, life=2**63 + 1),
    "submit": Submit(
        seq=1,
        epoch=EPOCH,
        number=41,
        attempt=2,
        prompt=int32(1, 2, 300_000),
        outputs=int32(9),
        block_hashes=bytes(range(16)),
        sampling=SAMPLING,
        adapter_id=4,
        adapter_load=5,
        salt="säl",
        priority=-1,
        key_index=6,
        prompt_logprobs=0,
    ),
    "submit_plain": Submit(
        seq=2, epoch=EPOCH, number=42, num_choices=4, prompt=int32(1), sampling=Sampling(seed=0, max_tokens=1)
    ),
    "abort": Abort(seq=3, epoch=EPOCH, numbers=[41, 2**40]),
}

FROM_ENGINE: dict[str, FromEngine] = {
    "welcome": Welcome(
        seq=0,
        epoch=EPOCH,
        version=1,
        model=ModelFacts(architecture="LlamaForCausalLM", vocab_size=49_152, eos_token_ids=(2, 0), max_position=8192),
        tokenizer_dir="/run/headrace/model",
    ),
    "engine_ready": EngineReady(
        seq=1,
        epoch=EPOCH,
        num_blocks=4096,
        block_size=16,
        max_model_len=8192,
        max_num_seqs=256,
        max_num_queued_reqs=4096,
        max_num_queued_tokens=4_194_304,
        max_logprobs=20,
        prefix_caching=True,
        hash_key=b"\x00\xff" * 16,
        dtype="bfloat16",
        device="cuda:0",
    ),
    "step_output": StepOutput(
        seq=2,
        epoch=EPOCH,
        step=77,
        rows=int64(41, 2**40),
        tokens=int32(5, 300_000),
        finishes=bytes([Finish.RUNNING, Finish.LENGTH]),
        started_rows=int64(41),
        started_cached=int32(16),
        started_queue_us=int32(250),
    ),
    "prompt_logprobs": PromptLogprobs(
        seq=3,
        epoch=EPOCH,
        number=41,
        first=1,
        logprobs=float32(-0.5, -1.25),
        ranks=int32(1, 7),
        width=1,
        top_ids=int32(2, 3),
        top_logprobs=float32(-0.5, -0.25),
    ),
    "request_failed": RequestFailed(
        seq=4,
        epoch=EPOCH,
        number=42,
        num_rows=4,
        code="overloaded",
        message="4096 requests are waiting.",
        field="prompt",
        retry_after_s=1.5,
    ),
    "heartbeat": Heartbeat(
        seq=5, epoch=EPOCH, step=78, num_running=2, num_waiting=1, num_waiting_tokens=900, num_blocks_used=17
    ),
}

SECOND_FRAME = {
    "step_logprobs": StepLogprobs(
        index=int32(1),
        logprobs=float32(-2.0),
        ranks=int32(3),
        widths=int32(2),
        top_ids=int32(8, 9),
        top_logprobs=float32(-0.5, -1.0),
    ),
}


def write() -> None:
    """Write every file anew."""
    FOLDER.mkdir(exist_ok=True)
    for name, message in (TO_ENGINE | FROM_ENGINE | SECOND_FRAME).items():
        (FOLDER / f"{name}.msgpack").write_bytes(encode(message))


if __name__ == "__main__":
    write()
