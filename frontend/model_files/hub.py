"""Downloads a model from the Hugging Face hub into its usual cache. The library is imported only when one is needed."""

from pathlib import Path

from frontend.model_files.errors import ModelFilesError
from frontend.model_files.folder import CONFIG_FILES, TOKENIZER_FILES, WEIGHT_INDEX


def download(repository: str, *, revision: str | None, weights: bool) -> Path:
    """The folder of the snapshot; files that are there already are not fetched again. Shows its own progress bars."""
    import huggingface_hub
    from huggingface_hub import errors

    patterns = [*CONFIG_FILES, *TOKENIZER_FILES]
    if weights:
        patterns += [WEIGHT_INDEX, "*.safetensors"]
    place = f"Hugging Face model {repository!r}"
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except errors.RevisionNotFoundError:
        raise ModelFilesError(f"{place} has no revision {revision!r}; see --revision") from None
    except errors.RepositoryNotFoundError:
        raise ModelFilesError(f"{place} does not exist or is private; for a private one set HF_TOKEN") from None
    except errors.HFValidationError as error:
        raise ModelFilesError(f"{place}: {_first_line(error)}") from None
    except errors.LocalEntryNotFoundError:
        raise ModelFilesError(
            f"{place} is not in the cache and the hub cannot be reached; is there a network?"
        ) from None
    except Exception as error:  # noqa: BLE001 - its HTTP client's own errors come through, and that client changes
        raise ModelFilesError(f"{place} could not be downloaded: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
