"""Whatever peers do, whenever they do it, every row ends exactly once, in the order of the protocol's tables."""

import random
from dataclasses import dataclass, field

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.block_hash import chain_root, extend_chain
from protocol.codec import decode_from_engine, encode, float32s, int32s, int64s
from protocol.lifecycle import Connection, Row, RowEvent, next_row
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    Finish,
    Heartbeat,
    Hello,
    PromptLogprobs,
    RequestFailed,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)
from protocol.sampling import Sampling
from protocol.sockets import new_identity
from tests.helpers.fake_runner import token_at
from tests.helpers.joined_core import BLOCK, EPOCH, KEY, VOCAB, JoinedCore


@dataclass
class Asked:
    """One row as its peer knows it."""

    prompt: list[int]
    seed: int
    max_tokens: int
    outputs: list[int]
    state: Row = Row.OPEN
    finish: Finish | None = None
    has_failed: bool = False
    was_started: bool = False
    wants_prompt_logprobs: bool = False
    prompt_logprobs: list[float] = field(default_factory=list)


class Peer:
    def __init__(self, joined: JoinedCore, place: int) -> None:
        self.joined = joined
        self.identity = new_identity(place)
        self.connection = Connection()
        self.rows: dict[int, Asked] = {}
        self.next_number = 0
        self.send(Hello(seq=0, version=PROTOCOL_VERSION, place=place, life=1))
        joined.step()
        self.take()

    def send(self, message: ToEngine) -> None:
        numbered = msgspec.structs.replace(message, seq=self.connection.next_sent)
        self.connection.sent(numbered)
        self.joined.router.push(self.identity, encode(numbered))

    def submit(self, rng: random.Random) -> None:
        joined, num_choices = self.joined, rng.choice([1, 1, 2, 3])
        prompt = [7] * rng.randrange(0, 14) + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 12))]
        seed, number = joined.next_seed, self.next_number
        joined.next_seed += num_choices
        self.next_number += num_choices
        data = np.array(prompt, np.int32).tobytes()
        max_tokens = rng.randrange(2, 30)
        outputs = [token_at(seed, len(prompt) + i, VOCAB) for i in range(rng.randrange(max_tokens))]
        replays = num_choices == 1 and rng.random() < 0.3
        wants_prompt_logprobs = not replays and rng.random() < 0.2
        shares = not wants_prompt_logprobs and rng.random() < 0.8
        hashes = extend_chain(KEY, chain_root(KEY, salt=rng.choice(["", "s"])), data, BLOCK) if shares else []
        if rng.random() < 0.1:
            joined.runner.bad_seeds.add(seed)
        for choice in range(num_choices):
            self.rows[number + choice] = Asked(
                prompt=prompt,
                seed=seed + choice,
                max_tokens=max_tokens,
                outputs=outputs if replays else [],
                wants_prompt_logprobs=wants_prompt_logprobs and choice == 0,
            )
        self.send(
            Submit(
                seq=0,
                epoch=EPOCH,
                number=number,
                num_choices=num_choices,
                prompt=data,
                outputs=np.array(outputs if replays else [], np.int32).tobytes(),
                block_hashes=b"".join(hashes),
                sampling=Sampling(
                    seed=seed,
                    max_tokens=max_tokens,
                    stop_token_ids=tuple(rng.sample(range(VOCAB), rng.randrange(8))),
                    logprobs=rng.choice([None, 0, 2]),
                ),
                salt="",
                priority=rng.randrange(3),
                prompt_logprobs=1 if wants_prompt_logprobs else None,
            )
        )

    def abort(self, rng: random.Random) -> None:
        if self.rows:
            numbers = rng.sample(sorted(self.rows), min(len(self.rows), rng.randrange(1, 4)))
            for number in numbers:
                self.rows[number].state = next_row(self.rows[number].state, RowEvent.ABORT)
            self.send(Abort(seq=0, epoch=EPOCH, numbers=numbers))

    def take(self) -> None:
        steps = []
        for frames in self.joined.router.take(self.identity):
            message, logprobs = decode_from_engine(frames)
            self.connection.received(message)
            if isinstance(message, StepOutput):
                steps += [message.step] if message.step else []
                self._take_step(message, [] if logprobs is None else int32s(logprobs.index).tolist())
            elif isinstance(message, RequestFailed):
                for number in range(message.number, message.number + message.num_rows):
                    self._event(number, RowEvent.FAILED)
                    self.rows[number].has_failed = True
            elif isinstance(message, PromptLogprobs):
                self._take_prompt_logprobs(message)
            else:
                assert isinstance(message, Welcome | EngineReady | Heartbeat)
        assert len(set(steps)) == len(steps), "a step has one output for each peer"

    def _take_step(self, message: StepOutput, with_logprobs: list[int]) -> None:
        numbers = int64s(message.rows).tolist()
        for number in int64s(message.started_rows):
            assert number in numbers, "a row has started without a token"
            assert not self.rows[number].was_started
            self.rows[number].was_started = True
        assert len(set(with_logprobs)) == len(with_logprobs)
        for number, token, finish in zip(numbers, int32s(message.tokens), message.finishes, strict=True):
            row = self.rows[number]
            self._event(number, RowEvent.FINISH if finish else RowEvent.OUTPUT)
            if finish:
                row.finish = Finish(finish)
            if finish != Finish.ABORT:
                assert row.was_started, "a token came before its row has started"
                row.outputs.append(token)

    def _take_prompt_logprobs(self, message: PromptLogprobs) -> None:
        row = self.rows[message.number]
        assert row.state is not Row.ENDED
        assert row.wants_prompt_logprobs
        assert not row.was_started
        assert message.first - 1 <= len(row.prompt_logprobs), "prompt log-probabilities leave a gap"
        del row.prompt_logprobs[message.first - 1 :]
        row.prompt_logprobs += float32s(message.logprobs)

    def _event(self, number: int, event: RowEvent) -> None:
        self.rows[number].state = next_row(self.rows[number].state, event)  # raises where anything follows an end

    def check_answers(self) -> None:
        for row in self.rows.values():
            assert row.state is Row.ENDED
            line = [token_at(row.seed, len(row.prompt) + i, VOCAB) for i in range(row.max_tokens)]
            assert row.outputs == line[: len(row.outputs)]
            if row.finish is Finish.LENGTH:
                assert len(row.outputs) == min(row.max_tokens, 64 - len(row.prompt))
            if row.finish is Finish.EOS:
                assert row.outputs[-1] == 3
            if row.wants_prompt_logprobs and row.finish not in (None, Finish.ABORT):
                assert row.prompt_logprobs == [-float(token) for token in row.prompt[1:]]
            if row.seed in self.joined.runner.bad_seeds:
                assert row.has_failed or row.finish is Finish.ABORT


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    depth=st.integers(0, 1),
    num_blocks=st.sampled_from([16, 24, 60]),
    budget=st.sampled_from([6, 16, 64]),
    chunked=st.booleans(),
)
def test_every_row_of_every_peer_ends_once(seed: int, depth: int, num_blocks: int, budget: int, chunked: bool) -> None:
    rng = random.Random(seed)
    joined = JoinedCore(depth=depth, num_blocks=num_blocks, budget=budget, chunked=chunked, max_num_seqs=6)
    peers = [Peer(joined, place) for place in range(2)]
    for turn in range(rng.randrange(1, 60)):
        _act(rng, peers, turn)
        joined.step()
        for peer in peers:
            peer.take()
    for _ in range(3000):
        joined.step()
        for peer in peers:
            peer.take()
        if joined.core.is_idle:
            break
    for peer in peers:
        peer.check_answers()
    _check_nothing_is_left(joined)


def _act(rng: random.Random, peers: list[Peer], turn: int) -> None:
    peer = rng.choice(peers)
    action = rng.random()
    if action < 0.35:
        peer.submit(rng)
    elif action < 0.5:
        peer.abort(rng)
    elif action < 0.53:  # its connection is lost: nothing more of it, and a new one in its place
        router = peer.joined.router
        rng.choice([router.gone, router.stuck]).add(peer.identity)
        peers.remove(peer)
        peers.append(Peer(peer.joined, turn))


def _check_nothing_is_left(joined: JoinedCore) -> None:
    assert joined.core.is_idle
    assert not any(peer.rows for peer in joined.mailbox.peers.values())
    scheduler = joined.core.scheduler
    assert scheduler.pool.num_held == scheduler.waiting.num_rows == scheduler.waiting.num_tokens == 0
    assert scheduler.slots.num_running == scheduler.num_collecting == 0
