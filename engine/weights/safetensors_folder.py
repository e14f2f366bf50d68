"""A folder of .safetensors files, single or sharded by index. No file outside the folder is ever opened."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from engine.models.config_json import ModelError
from engine.weights.stored import Stored, StoredReader

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class SafetensorsFolder:
    """The tensors of all files of the folder; every header is checked when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self._stored: dict[str, Stored] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._reader = StoredReader()
        listed = _listed_files(folder)
        names = sorted(set(listed.values())) if listed else _unlisted_files(folder)
        for path in [_inside(folder, name) for name in names]:
            self._open(path, listed)
        for tensor, name in listed.items():
            if tensor not in self._stored:
                raise ModelError(f"{folder / name} lacks tensor {tensor}, which {INDEX} says it holds")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes

    def read(self, name: str, out: torch.Tensor) -> None:
        self._reader.read(self._stored[name], out)

    def _open(self, path: Path, listed: dict[str, str]) -> None:
        for name, (dtype, dims, offset) in _checked_header(path).items():
            if name in self._stored:
                raise ModelError(f"{path}: tensor {name} is also in another file of the folder")
            if listed and listed.get(name) != path.name:
                raise ModelError(f"{path}: tensor {name} is not where {INDEX} says")
            if dtype not in DTYPES:
                raise ModelError(f"{path}: tensor {name} has type {dtype}; known are {', '.join(DTYPES)}")
            self._stored[name] = Stored(path=path, offset=offset, dtype=DTYPES[dtype])
            self._shapes[name] = dims


def _checked_header(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Type, shape and place of each tensor, once the library has found the file whole and its header consistent."""
    try:
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            num_bytes = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(num_bytes))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from error
    header.pop("__metadata__", None)
    start = 8 + num_bytes
    return {name: (of["dtype"], tuple(of["shape"]), start + of["data_offsets"][0]) for name, of in header.items()}


def _listed_files(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, by the index; empty where there is none."""
    path = folder / INDEX
    if not path.exists():
        return {}
    try:
        listed = json.loads(path.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} holds no weight_map from tensor names to files") from error
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ModelError(f"{path}: weight_map must map tensor names to file names")
    return listed


def _unlisted_files(folder: Path) -> list[str]:
    names = [SINGLE] if (folder / SINGLE).exists() else sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise ModelError(f"{folder} holds no .safetensors file; --load-format dummy needs none")
    return names


def _inside(folder: Path, name: str) -> Path:
    """The file, unless its name or a symlink leads out of the folder (or of the Hugging Face cache entry it is in)."""
    path = folder / name
    root = folder.resolve()
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        root = root.parent.parent  # snapshots are symlinks into the entry's own blobs
    if Path(name).name != name or not path.resolve().is_relative_to(root):
        raise ModelError(f"{folder}: weights file {name} lies outside the folder")
    if not path.exists():
        raise ModelError(f"{path} is missing")
    return path
