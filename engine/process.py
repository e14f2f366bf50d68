"""The life of an engine-core process: start, welcome, load, ready, loop, end. What it was asked comes on its stdin.

The sockets are served from the first moment: while a loader thread imports torch and reads the weights, this thread
answers hellos and lets the heart beat. Once the model is loaded there is one Python thread only.
"""

import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import zmq

from engine import head_start
from engine.batch import Runner
from engine.config import EnginePlan
from engine.core import EngineCore
from engine.mailbox import Mailbox, Peer
from engine.models.shape import ModelError, ModelShape, read_shape
from engine.pulse import Pulse
from protocol.launch import EngineConfig
from protocol.logs import configure_logging
from protocol.messages import PROTOCOL_VERSION, Abort, EngineReady, Heartbeat, ModelFacts, Submit, Welcome
from protocol.process import (
    CannotStart,
    ExitStatus,
    FromChild,
    PhaseDone,
    Ready,
    Stop,
    die_with,
    receive_to_child,
    send_control,
)
from protocol.scoreboard import Row as ScoreboardRow
from protocol.scoreboard import Scoreboard, State
from protocol.sockets import HEARTBEAT_INTERVAL_S, MAX_MESSAGE_BYTES, bind_router

log = logging.getLogger("headrace.engine")

_POLL_MS = 50
_IDLE_POLL_MS = int(HEARTBEAT_INTERVAL_S * 1000)
_MAX_SENTENCE_CHARS = 4096

Report = Callable[[str, float], None]
BuildRunner = Callable[[EngineConfig, ModelShape, Report], tuple[Runner, EnginePlan]]


def _build_torch_runner(config: EngineConfig, shape: ModelShape, report: Report) -> tuple[Runner, EnginePlan]:
    """Import torch only here, in the loader thread: it takes seconds."""
    head_start.begin(config, report)
    started = time.monotonic()
    from engine.execution.runner import build_runner

    gc.freeze()  # nothing of it will be garbage: looking for some would take a tenth of a second
    report("import torch", time.monotonic() - started)
    return build_runner(config, shape, report)


class _Control:
    """This process's end of the control channel."""

    def __init__(self, fd: int) -> None:
        self.channel = socket.socket(fileno=fd)
        self.channel.settimeout(0)
        self.stopping = False

    def read(self) -> None:
        """Take what the supervisor has said. If it is gone there is nobody to run for."""
        try:
            message = receive_to_child(self.channel)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it is gone, and left what we had said unread
            message = None
        if message is None or isinstance(message, Stop):
            self.stopping = True

    def say(self, message: FromChild) -> None:
        """Tell the supervisor; if it is gone, PR_SET_PDEATHSIG has the last word."""
        try:
            send_control(self.channel, message)
        except OSError as error:
            log.warning("the supervisor cannot be told: %s", error)

    def report(self, phase: str, seconds: float) -> None:
        """A phase of loading is over."""
        self.say(PhaseDone(phase=phase, seconds=seconds))


@dataclass(slots=True)
class _Load:
    """What the loader thread leaves behind."""

    loaded: tuple[Runner, EnginePlan] | None = None
    error: BaseException | None = None


def main(build: BuildRunner = _build_torch_runner) -> NoReturn:
    """The whole life of the process, its end included.

    Python's own way out would abort where the loader thread is still inside `import torch`: told to stop, we do not
    wait for it.
    """
    status = run(build)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)


def run(build: BuildRunner) -> int:
    """From the first message to the last; returns the exit status."""
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineConfig)
    die_with(config.supervisor_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the supervisor decides, over the control channel
    faulthandler.enable()
    configure_logging(f"engine core {config.rank}", level=config.log_level)
    control = _Control(config.control_fd)
    board = Scoreboard(config.scoreboard_fd).engine_row(config.rank)
    board.begin(config.epoch)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        core = _start(config, control, board, context, build)
        if core is not None:
            board.set("state", State.READY)
            control.say(Ready())
            _loop(core, control)
    except _CannotStartError as error:
        control.say(CannotStart(status=ExitStatus.CANNOT_START, sentence=str(error)[:_MAX_SENTENCE_CHARS]))
        return ExitStatus.CANNOT_START
    finally:
        board.set("state", State.ENDED)
        context.destroy(linger=0)
    return ExitStatus.OK


class _CannotStartError(Exception):
    """One sentence that says why the engine core does not come up."""


def _start(
    config: EngineConfig,
    control: _Control,
    board: ScoreboardRow,
    context: zmq.Context[zmq.Socket[bytes]],
    build: BuildRunner,
) -> EngineCore | None:
    """From the first look at config.json to a core that can run a step; None: told to stop meanwhile."""
    _check_sizes(config)
    gc.disable()  # importing torch makes objects that all stay: collecting between costs a tenth of its time
    try:
        shape = read_shape(config.model.config_dir)
        router = bind_router(context, config.address)
        mailbox = Mailbox(router, epoch=config.epoch, welcome=_welcome(config, shape), on_peer_end=_no_rows_yet)
        loaded = _load(lambda: build(config, shape, control.report), control, mailbox, Pulse(mailbox, board))
    except (ModelError, OSError, zmq.ZMQError) as error:
        raise _CannotStartError(str(error)) from error
    except Exception as error:
        log.exception("the engine core cannot start")
        raise _CannotStartError(f"{type(error).__name__}: {error}") from error
    if loaded is None:
        return None
    runner, plan = loaded
    core = EngineCore(config, plan, runner, mailbox, board, eos_ids=shape.eos_token_ids)
    mailbox.on_peer_end = core.end_peer
    mailbox.announce_ready(_ready(config, plan))
    gc.enable()
    gc.collect()
    gc.freeze()  # what start-up has made stays: no later collection walks it
    return core


def _check_sizes(config: EngineConfig) -> None:
    """The largest message that grows with two settings at once: the log-probabilities of a step."""
    if config.max_num_seqs * (8 * config.max_logprobs + 16) > MAX_MESSAGE_BYTES:
        raise _CannotStartError(
            f"--max-num-seqs {config.max_num_seqs} and --max-logprobs {config.max_logprobs} together exceed a message's"
            f" {MAX_MESSAGE_BYTES >> 20} MiB; lower one of them"
        )


def _load(
    build: Callable[[], tuple[Runner, EnginePlan]], control: _Control, mailbox: Mailbox, pulse: Pulse
) -> tuple[Runner, EnginePlan] | None:
    """Build the runner in a thread while this one serves the sockets; None: told to stop meanwhile."""
    outcome = _Load()

    def work() -> None:
        try:
            outcome.loaded = build()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            outcome.error = error

    loader = threading.Thread(target=work, name="loader", daemon=True)
    loader.start()
    poller = _poller(mailbox, control)
    while loader.is_alive():
        poller.poll(_POLL_MS)
        mailbox.take(_out_of_order)
        if pulse.is_due:
            pulse.beat(_nothing_runs(mailbox.epoch))
        control.read()
        if control.stopping:
            return None
    if outcome.error is not None:
        raise outcome.error
    return outcome.loaded


def _loop(core: EngineCore, control: _Control) -> None:
    poller = _poller(core.mailbox, control)
    next_look = 0.0
    while not control.stopping:
        core.step()
        if core.is_idle:
            poller.poll(0 if core.prepare() else _IDLE_POLL_MS)
            core.beat_if_due()
        now = time.monotonic()
        if core.is_idle or now >= next_look:
            control.read()
            next_look = now + HEARTBEAT_INTERVAL_S


def _poller(mailbox: Mailbox, control: _Control) -> zmq.Poller:
    poller = zmq.Poller()
    poller.register(mailbox.router, zmq.POLLIN)
    poller.register(control.channel, zmq.POLLIN)
    return poller


def _welcome(config: EngineConfig, shape: ModelShape) -> Welcome:
    facts = ModelFacts(
        architecture=shape.architecture,
        vocab_size=shape.vocab_size,
        eos_token_ids=shape.eos_token_ids,
        max_position=shape.max_position_embeddings,
    )
    return Welcome(
        seq=0,
        epoch=config.epoch,
        version=PROTOCOL_VERSION,
        model=facts,
        tokenizer_dir=os.fspath(config.model.config_dir),
    )


def _ready(config: EngineConfig, plan: EnginePlan) -> EngineReady:
    return EngineReady(
        seq=0,
        epoch=config.epoch,
        num_blocks=plan.num_blocks,
        block_size=plan.block_size,
        max_model_len=plan.max_model_len,
        max_num_seqs=plan.max_num_seqs,
        max_num_queued_reqs=config.max_num_queued_reqs,
        max_num_queued_tokens=config.max_num_queued_tokens,
        max_logprobs=config.max_logprobs,
        prefix_caching=config.enable_prefix_caching,
        hash_key=config.hash_key,
        dtype=plan.dtype,
        device=plan.device,
    )


def _nothing_runs(epoch: int) -> Heartbeat:
    return Heartbeat(seq=0, epoch=epoch, step=0, num_running=0, num_waiting=0, num_waiting_tokens=0, num_blocks_used=0)


def _out_of_order(_: Peer, message: Submit | Abort) -> None:
    raise AssertionError(f"{type(message).__name__} came through before the engine was ready")


def _no_rows_yet(peer: Peer) -> None:
    """Before the core exists no peer has rows."""
