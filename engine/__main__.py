"""`python -P -m engine`: one engine core, started by a supervisor that writes its `EngineConfig` to stdin."""

from engine.process import main

if __name__ == "__main__":
    main()
