"""The program that turns MODEL into files on this host: looks, downloads, unpacks, converts. Started by the supervisor.

Its answer is `ModelFiles` as JSON on standard output. Why it cannot serve a model it says on the control channel.
"""

import logging
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from frontend.launch import PrepareModelLaunch
from frontend.model_files.errors import ModelFilesError
from frontend.model_files.source import resolve_model
from protocol.gguf_header import GGUFError
from protocol.launch import ModelFiles
from protocol.logs import configure_logging
from protocol.process import CannotStart, ExitStatus, PhaseDone, die_with, send_control

logger = logging.getLogger("headrace.model")


def main() -> int:
    """The process's exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launch = msgspec.json.decode(sys.stdin.buffer.read(), type=PrepareModelLaunch)
    die_with(launch.supervisor_pid)
    configure_logging("model", level=launch.settings.log_level)
    with socket.socket(fileno=launch.control_fd) as control:
        try:
            started = time.monotonic()
            files = _resolve(launch)
        except (ModelFilesError, GGUFError) as error:
            return _refuse(control, ExitStatus.WRONG_SETTINGS, str(error))
        except OSError as error:  # a full disk, a file that may not be read
            return _refuse(control, ExitStatus.CANNOT_START, f"the model's files cannot be prepared: {error}")
        sys.stdout.buffer.write(msgspec.json.encode(files))
        sys.stdout.buffer.flush()
        send_control(control, PhaseDone(phase="model files found", seconds=time.monotonic() - started))
    return ExitStatus.OK


def _refuse(control: socket.socket, status: ExitStatus, sentence: str) -> ExitStatus:
    send_control(control, CannotStart(status=status, sentence=sentence))
    return status


def _resolve(launch: PrepareModelLaunch) -> ModelFiles:
    settings = launch.settings
    return resolve_model(
        settings.model,
        run_dir=Path(launch.run_dir),
        progress=logger.info,
        tokenizer=settings.tokenizer,
        revision=settings.revision,
        need_weights=settings.load_format != "dummy",
    )


if __name__ == "__main__":
    sys.exit(main())
