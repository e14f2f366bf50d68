"""One request end to end: check, submit, deltas to the sink, and one way to stop. Read first.

Everything is pushed synchronously from the engine's message to the sink: no task and no queue per token.
"""

import time
from array import array
from dataclasses import dataclass
from typing import Literal

from frontend.admission import check_request, refuse_if_full
from frontend.detokenizer import make_detokenizer
from frontend.errors import ApiError, unavailable
from frontend.journal import Journal, Prompt
from frontend.request import Delta, GenerationRequest, Sink, TokenLogprob
from frontend.services import Services
from frontend.step_logprobs import by_position
from frontend.stop_strings import StopChecker
from frontend.token_stream import TokenStream
from protocol.block_hash import chain_root, extend_chain
from protocol.errors import PeerError
from protocol.lifecycle import Row
from protocol.messages import EngineReady, PromptLogprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request is billed: of n choices the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt's, those that the prefix cache spared


def start_generation(services: Services, request: GenerationRequest, sink: Sink) -> "Generation":
    """Check, admit and submit. Raises `ApiError` or `InvalidField` when it is refused here: the sink hears nothing.

    The sink hears nothing before this returns; only for its lanes it is asked.
    """
    engine = services.engine
    ready, welcome = engine.ready, engine.welcome
    if services.state != "ready" or ready is None or welcome is None:
        raise unavailable(services.state)
    check_request(request, settings=services.settings, ready=ready, vocab_size=welcome.model.vocab_size)
    refuse_if_full(ready, engine.heartbeat)
    return Generation(services, request, sink, ready)


class Generation:
    """A request under way. It ends once: by `Sink.on_end`, by `Sink.on_error` or by `cancel()`."""

    def __init__(self, services: Services, request: GenerationRequest, sink: Sink, ready: EngineReady) -> None:
        self.request = request
        # by position; None at the first, which has none; complete before the first delta. None where not asked for
        self.prompt_logprobs: list[TokenLogprob | None] | None = None if request.prompt_logprobs is None else [None]
        self._services = services
        self._sink = sink
        self._tally = services.tally
        self._started_at = time.monotonic()
        self._num_cached = 0
        self._has_started = False
        self._ended = False
        self._num_running = request.num_choices
        self._rows = self._make_rows(ready)
        services.engine.submit(self._rows)
        services.open_requests.add(self)
        self._tally.request_started(request.num_choices)

    @property
    def usage(self) -> Usage:
        """As of now; final once the generation has ended."""
        return Usage(
            prompt_tokens=len(self.request.prompt_ids),
            completion_tokens=sum(len(row.journal.outputs) for row in self._rows),
            cached_tokens=self._num_cached,
        )

    def cancel(self) -> None:
        """The client is gone: stop the engine's work. The sink hears nothing more. Idempotent, also after the end."""
        if not self._ended:
            self._stop(reason="abort")

    def fail(self, error: ApiError) -> None:
        """End with an error, unless it has ended already."""
        if not self._ended:
            self.release()
            self._stop(reason=None)
            self._sink.on_error(error)

    def release(self) -> None:
        """The sink wants to hear now what it let the rows hold back."""
        for row in self._rows:
            row.release()

    # --- what its rows tell ------------------------------------------------------------------------------------------

    def on_token(self, now: float, last: float | None) -> None:
        """The hot path: a choice got a token, and the one before it at `last`."""
        if last is None:
            self._tally.first_token(now - self._started_at)
        else:
            self._tally.next_token(now - last)

    def on_delta(self, delta: Delta) -> None:
        """A choice has something to tell that is not text alone, or whose sink wants to hear all of it."""
        self._sink.on_delta(delta)
        if delta.finish_reason is not None and not self._ended:  # the sink may have cancelled
            self._tally.choice_ended(delta.finish_reason)
            self._num_running -= 1
            if self._num_running == 0:
                self._end()
                self._sink.on_end()

    def on_started(self, num_cached: int) -> None:
        """The engine has computed the prompt; its choices share it."""
        if not self._has_started:
            self._has_started = True
            self._num_cached = num_cached
            self._tally.prompt_computed(num_tokens=len(self.request.prompt_ids), num_cached=num_cached)

    def on_prompt_logprobs(self, message: PromptLogprobs) -> None:
        """One chunk's; a replay begins again at the first position."""
        if self.prompt_logprobs is None or message.first == 1:
            self.prompt_logprobs = [None]
        first, count = message.first, len(message.logprobs) // 4
        if first != len(self.prompt_logprobs) or first + count > len(self.request.prompt_ids):
            raise PeerError(f"prompt log-probabilities of positions {first} to {first + count - 1} make no sense")
        self.prompt_logprobs += by_position(message, self.request.prompt_ids[first : first + count])

    def on_row_failed(self, error: ApiError) -> None:
        """One choice cannot be served: then none is."""
        self.fail(error)

    # --- how it begins and ends --------------------------------------------------------------------------------------

    def _make_rows(self, ready: EngineReady) -> list[TokenStream]:
        number = self._services.engine.reserve_numbers(self.request.num_choices)
        prompt = _prompt_of(self.request, ready)
        return [
            self._make_row(Journal(prompt, number=number + choice, choice=choice))
            for choice in range(self.request.num_choices)
        ]

    def _make_row(self, journal: Journal) -> TokenStream:
        request = self.request
        tokenizer = self._services.text.tokenizer
        return TokenStream(
            journal,
            # the answer goes on after a prompt: no space is dropped at its beginning
            decoder=make_detokenizer(tokenizer, skip_special_tokens=request.skip_special_tokens, starts_text=False),
            stops=StopChecker(request.stop, include_stop_str_in_output=request.include_stop_str_in_output)
            if request.stop
            else None,
            min_tokens=request.sampling.min_tokens,
            include_stop=request.include_stop_str_in_output,
            listener=self,
            lane=self._sink.lane(journal.choice),
        )

    def _stop(self, *, reason: Literal["abort"] | None) -> None:
        """The one way to end early."""
        self._end()
        for _ in range(self._num_running):
            self._tally.choice_ended(reason)
        self._services.engine.abort([row.journal.number for row in self._rows if row.state is Row.OPEN])

    def _end(self) -> None:
        self._ended = True
        self._services.open_requests.discard(self)
        self._tally.request_ended(time.monotonic() - self._started_at)


def _prompt_of(request: GenerationRequest, ready: EngineReady) -> Prompt:
    ids = array("i", request.prompt_ids).tobytes()
    hashes = []
    # what prompt log-probabilities are read from must be computed, so that such a request shares no blocks
    if ready.prefix_caching and request.prompt_logprobs is None:
        root = chain_root(ready.hash_key, salt=request.salt)
        hashes = extend_chain(ready.hash_key, root, ids, ready.block_size)
    return Prompt(
        ids=ids,
        block_hashes=b"".join(hashes),
        sampling=request.sampling,
        salt=request.salt,
        priority=request.priority,
        prompt_logprobs=request.prompt_logprobs,
    )
