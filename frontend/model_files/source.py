"""MODEL -> `ModelFiles`: a Hugging Face id, a local folder, a .gguf file, or `demo`.

It makes sure that the files are on this host and complete; what they say is judged by those who read them.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from frontend.model_files import demo, hub
from frontend.model_files.errors import ModelFilesError
from frontend.model_files.folder import CONFIG_FILES, TOKENIZER_FILES, check_config, check_tokenizer, check_weights
from frontend.model_files.gguf_folder import build_folder
from protocol.gguf_header import read_header
from protocol.launch import ModelFiles

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_model(
    name: str,
    *,
    run_dir: Path,
    progress: Callable[[str], None],
    tokenizer: str | None = None,
    revision: str | None = None,
    cache_dir: Path | None = None,
    need_weights: bool = True,
) -> ModelFiles:
    """Download, unpack and convert what `name` needs; raises `ModelFilesError` or `GGUFError`, both ValueErrors.

    `run_dir` takes what is made anew at each start, `cache_dir` (the user's cache folder by default) what is kept.
    `need_weights=False` is for --load-format dummy.
    """
    if name == "demo":
        weights = demo.fetch(cache_dir=cache_dir, progress=progress)
    elif name.endswith(".gguf"):
        weights = _existing_file(name)
    else:
        weights = _folder(name, revision=revision, weights=need_weights)
    if weights.is_file():
        config_dir = run_dir / "model"
        sampling = demo.SAMPLING if name == "demo" else {}
        build_folder(
            read_header(weights), config_dir, tokenizer=tokenizer is None, sampling=sampling, progress=progress
        )
    else:
        config_dir = weights
        check_config(config_dir)
        if need_weights:
            check_weights(weights)
    if tokenizer is not None:
        config_dir = _with_other_tokenizer(config_dir, _folder(tokenizer, revision=None, weights=False), run_dir)
    check_tokenizer(config_dir)
    return ModelFiles(name=name, config_dir=str(config_dir), weights=str(weights))


def _existing_file(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ModelFilesError(f"{name}: there is no such file")
    return path


def _folder(name: str, *, revision: str | None, weights: bool) -> Path:
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path.absolute()
    if name.startswith((".", "/", "~")) or path.exists() or not _HUB_ID.fullmatch(name):
        raise ModelFilesError(
            f"{name!r} is neither an existing folder, nor a .gguf file, nor a Hugging Face id such as owner/model"
        )
    return hub.download(name, revision=revision, weights=weights)


def _with_other_tokenizer(config_dir: Path, tokenizer_dir: Path, run_dir: Path) -> Path:
    """A folder with the configuration of one and the tokenizer of the other."""
    merged = run_dir / "model-with-tokenizer"
    merged.mkdir(parents=True)
    for source, names in ((config_dir, CONFIG_FILES), (tokenizer_dir, TOKENIZER_FILES)):
        for name in names:
            if (source / name).is_file():
                shutil.copyfile(source / name, merged / name)
    return merged
