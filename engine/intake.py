"""From a `Submit` to rows, and every reason to refuse one. Ids and lengths are checked here although API servers did.

A request can only hurt itself: whatever is wrong with it becomes its own `Refusal`, never an exception of the engine.
"""

import os
import time

from engine.batch import Int32s
from engine.config import EnginePlan
from engine.request import Row, known_tokens
from engine.waiting_queue import WaitingQueue
from protocol.block_hash import HASH_BYTES, chain_root
from protocol.errors import InvalidField
from protocol.launch import EngineConfig
from protocol.messages import FailureCode, Submit
from protocol.sampling import check_sampling

_RETRY_AFTER_S = 1.0


class Refusal(Exception):
    """Why a `Submit` is not admitted, as `RequestFailed` says it."""

    def __init__(
        self, code: FailureCode, message: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class Intake:
    """Makes rows, and alone decides the limits on what may wait."""

    def __init__(self, config: EngineConfig, plan: EnginePlan, waiting: WaitingQueue) -> None:
        self._config = config
        self._plan = plan
        self._waiting = waiting
        self._next_uid = 0
        self._arrivals = 0

    def rows_of(self, owner: int, submit: Submit) -> list[Row]:
        """The rows of a submit, NEW. Raises `Refusal`."""
        tokens = known_tokens(submit)
        prompt_len = len(submit.prompt) // 4
        self._check_request(submit, tokens, prompt_len)
        self._check_room(submit, len(tokens))
        root, hashes = self._chain(submit, prompt_len)
        self._arrivals += 1
        priority = submit.priority if self._config.scheduling_policy == "priority" else 0
        rows = [
            Row(
                uid=self._next_uid + choice,
                owner=owner,
                number=submit.number + choice,
                choice=choice,
                submit=submit,
                prompt_len=prompt_len,
                max_total=min(prompt_len + submit.sampling.max_tokens, self._plan.max_model_len),
                tokens=tokens,
                hashes=list(hashes),
                root=root,
                order=(priority, self._arrivals),
                arrived_at=time.monotonic(),
            )
            for choice in range(submit.num_choices)
        ]
        self._next_uid += len(rows)
        return rows

    def _check_request(self, submit: Submit, tokens: Int32s, prompt_len: int) -> None:
        limit = self._plan.max_model_len
        try:
            check_sampling(submit.sampling, vocab_size=self._plan.vocab_size, max_logprobs=self._config.max_logprobs)
        except InvalidField as error:
            raise Refusal("invalid", error.message, field=error.field) from None
        if len(tokens) >= limit:
            _refuse("prompt", f"the prompt has {len(tokens)} tokens; with one output token the limit is {limit}")
        if tokens.min() < 0 or tokens.max() >= self._plan.vocab_size:
            _refuse("prompt", f"a token id of the prompt is not between 0 and {self._plan.vocab_size - 1}")
        if len(tokens) - prompt_len >= submit.sampling.max_tokens:
            _refuse("max_tokens", "the replayed outputs have reached max_tokens already")
        most = min(self._plan.max_num_seqs, self._config.max_num_queued_reqs)
        if submit.num_choices > most:
            _refuse("n", f"n is {submit.num_choices}; this engine takes at most {most} choices of one request")
        if submit.adapter_id != 0:
            _refuse("model", f"adapter {submit.adapter_id} is not loaded")
        most = min(self._config.max_logprobs, self._plan.vocab_size)
        if submit.prompt_logprobs is not None and submit.prompt_logprobs > most:
            _refuse("prompt_logprobs", f"prompt_logprobs must be at most {most}, not {submit.prompt_logprobs}")

    def _check_room(self, submit: Submit, num_tokens: int) -> None:
        waiting, config = self._waiting, self._config
        if waiting.num_rows + submit.num_choices > config.max_num_queued_reqs:
            _overloaded(f"{waiting.num_rows} requests wait already; the limit is {config.max_num_queued_reqs}")
        num_tokens *= submit.num_choices  # as the queue counts them
        if waiting.num_rows and waiting.num_tokens + num_tokens > config.max_num_queued_tokens:
            _overloaded(f"{waiting.num_tokens} tokens wait already; the limit is {config.max_num_queued_tokens}")

    def _chain(self, submit: Submit, prompt_len: int) -> tuple[bytes, list[bytes]]:
        """Root and hashes; where nothing is to be shared between requests, a root that nobody else has."""
        shares = prompt_len < self._plan.block_size or submit.block_hashes
        if not (shares and self._config.enable_prefix_caching):
            return os.urandom(HASH_BYTES), []
        root = chain_root(self._config.hash_key, salt=submit.salt, adapter_load=submit.adapter_load)
        return root, _split_hashes(submit.block_hashes, prompt_len // self._plan.block_size)


def _split_hashes(data: bytes, num_blocks: int) -> list[bytes]:
    """API servers are trusted with what a hash names, as they are with prompts, but not with the block tables."""
    hashes = [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]
    if data and len(data) != HASH_BYTES * num_blocks:
        _refuse("prompt", f"{len(data)} bytes of block hashes came with it, not {HASH_BYTES * num_blocks}")
    if len(set(hashes)) != len(hashes):
        _refuse("prompt", "two blocks of the prompt came with the same hash")
    return hashes


def _refuse(field: str, message: str) -> None:
    raise Refusal("invalid", message, field=field)


def _overloaded(message: str) -> None:
    raise Refusal("overloaded", message, retry_after_s=_RETRY_AFTER_S)
