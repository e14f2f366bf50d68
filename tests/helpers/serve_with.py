"""`headrace serve` with another engine program: `serve_with.py ENGINE_MODULE[:MODE] [arguments of headrace serve]`."""

import os
import sys

from frontend.settings.parser import parse_settings
from frontend.supervisor import run

FAKES_OWN = "HEADRACE_FAKE_STEP_MS"  # for the engine program; to the settings it would be an unknown name

if __name__ == "__main__":
    module, _, mode = sys.argv[1].partition(":")
    step_ms = os.environ.pop(FAKES_OWN, "1")
    settings = parse_settings(sys.argv[2:])
    os.environ[FAKES_OWN] = step_ms
    command = [sys.executable, "-P", "-m", module]
    sys.exit(run(settings, engine_command=[*command, mode] if mode else command))
