"""`python -P -m engine`: one engine core, started by a supervisor that writes its `EngineConfig` to stdin."""

import sys

from engine.process import run

if __name__ == "__main__":
    sys.exit(run())
