"""A local model folder: are the files there that serving it needs? Of what they hold it reads only the weight index."""

from pathlib import Path

import msgspec

from frontend.model_files.errors import ModelFilesError

CONFIG_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
WEIGHTS, WEIGHT_INDEX = "model.safetensors", "model.safetensors.index.json"


class _WeightIndex(msgspec.Struct):
    weight_map: dict[str, str]  # tensor name -> file name


def check_config(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    ggufs = sorted(folder.glob("*.gguf"))
    if ggufs:
        raise ModelFilesError(f"{folder} has no config.json; to serve a GGUF file name the file itself: {ggufs[0]}")
    raise ModelFilesError(f"{folder} has no config.json, so it is not a model folder")


def check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise ModelFilesError(
            f"{folder} has no tokenizer.json; name a folder or Hugging Face id that has one with --tokenizer"
        )


def check_weights(folder: Path) -> None:
    """Every safetensors file that the folder promises is there and lies inside it."""
    for name in sorted(_weight_names(folder)):
        if Path(name).name != name:
            raise ModelFilesError(f"{folder / WEIGHT_INDEX} names {name!r}, which is not a file of that folder")
        path = folder / name
        if not path.is_file():
            raise ModelFilesError(f"{path} is missing although {WEIGHT_INDEX} names it; download the model again")
        if not any(path.resolve().is_relative_to(home) for home in _homes(folder)):
            raise ModelFilesError(f"{path} is a link to a file outside of its folder; copy the file itself there")


def _weight_names(folder: Path) -> set[str]:
    index = folder / WEIGHT_INDEX
    if index.is_file():
        try:
            return set(msgspec.json.decode(index.read_bytes(), type=_WeightIndex).weight_map.values())
        except msgspec.DecodeError as error:
            raise ModelFilesError(f"{index} is not an index of weights: {error}") from None
    found = {path.name for path in folder.glob("*.safetensors")}
    if not found:
        raise ModelFilesError(
            f"{folder} has no .safetensors files, the only kind of weights that is read from a folder"
        )
    if len(found) > 1 and WEIGHTS not in found:
        raise ModelFilesError(
            f"{folder} has {len(found)} .safetensors files but no {WEIGHT_INDEX} to say what they hold"
        )
    return {WEIGHTS} if WEIGHTS in found else found


def _homes(folder: Path) -> list[Path]:
    """Where the folder's files may really lie; Hugging Face's cache links snapshots/<revision>/ to ../../blobs/."""
    real = folder.resolve()
    return [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]
