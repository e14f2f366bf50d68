"""The three programs that a server is made of, and how each is started. Knows nothing of when."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from frontend.launch import ApiServerLaunch, PrepareModelLaunch
from frontend.settings import Settings
from frontend.supervisor.child import Child, spawn
from frontend.supervisor.listener import Listener
from frontend.user_cache import user_cache_dir
from protocol.address import engine_address
from protocol.launch import EngineConfig, ModelFiles
from protocol.process import EngineStarted
from protocol.scoreboard import Scoreboard

# -P: a folder named engine, frontend or protocol where the user stands is not taken for ours.
_MODULE = (sys.executable, "-P", "-m")
ENGINE_COMMAND = (*_MODULE, "engine")
_API_SERVER_COMMAND = (*_MODULE, "frontend.api_server")
_PREPARE_COMMAND = (*_MODULE, "frontend.prepare_model")
_HASH_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePremises:
    """What an engine core is started from, with a server around it or without."""

    settings: Settings
    run_dir: Path
    scoreboard: Scoreboard
    engine_command: Sequence[str] = ENGINE_COMMAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Premises(EnginePremises):
    """What every child of this server is started from."""

    listener: Listener


def new_life() -> int:
    """64 random bits that name one life of a process; 0 means nobody."""
    return int.from_bytes(os.urandom(8), "little") or 1


def num_cores() -> int:
    """Those that this server may run on."""
    return len(os.sched_getaffinity(0))


def engine_threads() -> int:
    """Threads of the engine core on the CPU: one core is left to the API servers."""
    return max(1, num_cores() - 1)


def spawn_api_server(premises: Premises, *, place: int, life: int) -> Child:
    """An API server; it accepts as soon as it lives."""
    listener_fd, scoreboard_fd = premises.listener.socket.fileno(), premises.scoreboard.fd

    def launch(control_fd: int) -> bytes:
        record = ApiServerLaunch(
            settings=premises.settings,
            place=place,
            life=life,
            listener_fd=listener_fd,
            control_fd=control_fd,
            scoreboard_fd=scoreboard_fd,
            supervisor_pid=os.getpid(),
        )
        return msgspec.json.encode(record)

    return spawn(
        _API_SERVER_COMMAND,
        name=f"API server {place}",
        launch=launch,
        environment=_environment(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1"),
        pass_fds=(listener_fd, scoreboard_fd),
    )


def spawn_prepare_model(premises: Premises, *, answer_fd: int) -> Child:
    """The program that finds or fetches the model's files; it writes to `answer_fd` what it found.

    A process of its own can be ended at any time, and what it imports and builds leaves with it.
    """

    def launch(control_fd: int) -> bytes:
        record = PrepareModelLaunch(
            settings=premises.settings,
            run_dir=str(premises.run_dir),
            control_fd=control_fd,
            supervisor_pid=os.getpid(),
        )
        return msgspec.json.encode(record)

    return spawn(_PREPARE_COMMAND, name="model", launch=launch, environment=_environment(), stdout=answer_fd)


def spawn_engine_core(premises: EnginePremises, model: ModelFiles) -> tuple[Child, EngineStarted]:
    """The engine core, and what API servers must know of it."""
    epoch = new_life()
    started = EngineStarted(rank=0, epoch=epoch, address=engine_address(premises.run_dir, 0, epoch))
    child = spawn(
        premises.engine_command,
        name="engine core 0",
        launch=lambda control_fd: msgspec.json.encode(_engine_config(premises, model, started, control_fd)),
        environment=_engine_environment(premises.run_dir),
        pass_fds=(premises.scoreboard.fd,),
    )
    return child, started


def _engine_config(
    premises: EnginePremises, model: ModelFiles, started: EngineStarted, control_fd: int
) -> EngineConfig:
    settings = premises.settings
    return EngineConfig(
        rank=started.rank,
        epoch=started.epoch,
        address=started.address,
        hash_key=os.urandom(_HASH_KEY_BYTES),
        model=model,
        device=settings.device,
        dtype=settings.dtype,
        load_format=settings.load_format,
        seed=settings.seed,
        max_model_len=settings.max_model_len,
        block_size=settings.block_size,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_num_queued_reqs=settings.max_num_queued_reqs,
        max_num_queued_tokens=settings.max_num_queued_tokens,
        max_logprobs=settings.max_logprobs,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
        enable_prefix_caching=settings.enable_prefix_caching,
        enable_chunked_prefill=settings.enable_chunked_prefill,
        scheduling_policy=settings.scheduling_policy,
        num_threads=engine_threads(),
        log_level=settings.log_level,
        supervisor_pid=os.getpid(),
        control_fd=control_fd,
        scoreboard_fd=premises.scoreboard.fd,
    )


def _engine_environment(run_dir: Path) -> Mapping[str, str]:
    """What libraries read when they are loaded."""
    chosen = {
        "TRITON_CACHE_DIR": str(_triton_cache(run_dir)),
        "TRITON_BACKENDS_IN_TREE": "1",  # else Triton reads the metadata of every installed package
    }
    # With active waiting, any other busy process makes a step of 46 ms one of 948 ms (tried).
    needed = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(engine_threads()), "TOKENIZERS_PARALLELISM": "false"}
    return {**chosen, **_environment(**needed)}  # what we chose gives way to what the user set


def _triton_cache(run_dir: Path) -> Path:
    """Where compiled kernels are kept from one start to the next, or at least for this one.

    Triton names what it keeps by a hash of sources, versions and device, so nothing in it grows stale.
    """
    kept = user_cache_dir() / "triton"
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    return kept if os.access(kept, os.W_OK | os.X_OK) else run_dir / "triton"


def _environment(**ours: str) -> Mapping[str, str]:
    """The one place where a child's environment is made: the user's, with what we must have."""
    return {**os.environ, **ours}  # noqa: TID251
