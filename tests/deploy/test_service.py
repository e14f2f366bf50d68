"""The systemd unit against what it relies on: the command line, exit statuses, deadlines, the limit of open files."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from frontend.settings import Settings, check_settings
from frontend.settings.parser import parse_settings
from frontend.supervisor import ending
from protocol.address import engine_address
from protocol.process import ExitStatus

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "headrace.service"


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None, delimiters="=", strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    unit.read(UNIT)
    return unit["Service"]


def settings_of(service: configparser.SectionProxy) -> Settings:
    program, command, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("headrace", "serve")
    shipped = [str(DEPLOY / Path(word).name) if word.startswith("/etc/headrace/") else word for word in arguments]
    return parse_settings(shipped, environment={})


def test_its_command_and_its_settings_can_be_served(service: configparser.SectionProxy) -> None:
    settings = settings_of(service)
    check_settings(settings)
    assert settings.host == "127.0.0.1", "open to other machines only when somebody decides so"


def test_a_stop_is_a_drain_and_has_the_time_for_it(service: configparser.SectionProxy) -> None:
    graces_s = ending._DRAIN_GRACE_S + ending._STOP_GRACE_S + ending._KILL_GRACE_S
    assert service["KillMode"] == "mixed", "API servers would drain at SIGTERM by themselves, and be replaced"
    assert float(service["TimeoutStopSec"]) > settings_of(service).shutdown_timeout + graces_s


def test_what_cannot_succeed_is_not_tried_again(service: configparser.SectionProxy) -> None:
    assert service["Restart"] == "on-failure"
    assert [int(status) for status in service["RestartPreventExitStatus"].split()] == [ExitStatus.WRONG_SETTINGS]


def test_it_may_open_as_many_files_as_it_wants(service: configparser.SectionProxy) -> None:
    assert int(service["LimitNOFILE"]) >= 4 * settings_of(service).max_num_seqs + 1024


def test_its_run_directory_is_private_and_has_a_short_path(service: configparser.SectionProxy) -> None:
    assert service["RuntimeDirectoryMode"] == "0700"
    environment = dict(word.split("=", 1) for word in service["Environment"].split())
    assert environment["XDG_RUNTIME_DIR"] == f"%t/{service['RuntimeDirectory']}"
    engine_address(Path(f"/run/{service['RuntimeDirectory']}/headrace-12345678"), 0, 0)  # raises where it is too long


def test_the_gpu_and_its_compiler_are_not_locked_out(service: configparser.SectionProxy) -> None:
    assert not {"PrivateDevices", "DeviceAllow", "DevicePolicy", "ProtectClock", "MemoryDenyWriteExecute"} & set(
        service
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd")
def test_systemd_understands_it(tmp_path: Path) -> None:
    program = shlex.split(UNIT.read_text().partition("ExecStart=")[2].splitlines()[0])[0]
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(program, shutil.which("true") or "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert not re.search(rf"{copy.name}:\d+: ", done.stderr), done.stderr
