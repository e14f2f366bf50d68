"""What the supervisor hands to the child programs of the front end: one frozen record each, JSON on standard input."""

import msgspec

from frontend.settings import Settings
from protocol.sampling import UInt64


class ApiServerLaunch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To `python -m frontend.api_server`."""

    settings: Settings
    place: int  # which of the API servers: its row on the scoreboard
    life: UInt64  # this process: 64 random bits
    listener_fd: int
    control_fd: int
    scoreboard_fd: int
    supervisor_pid: int  # the API server ends with it


class PrepareModelLaunch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To `python -m frontend.prepare_model`, which answers with `protocol.launch.ModelFiles` on standard output."""

    settings: Settings
    run_dir: str
    control_fd: int
    supervisor_pid: int
