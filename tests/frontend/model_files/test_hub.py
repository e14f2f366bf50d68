from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from frontend.model_files import hub
from frontend.model_files.errors import ModelFilesError


class FailedConnection(Exception):
    """As of the library's HTTP client, whose errors share no base with ours."""


def refusal(kind: type[Exception]) -> Exception:
    """An HTTP error of the library without the response it is usually made of."""
    return kind.__new__(kind)


def test_only_files_that_are_read_are_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []

    def snapshot(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert hub.download("owner/model", revision="v1", weights=True) == tmp_path
    assert hub.download("owner/model", revision=None, weights=False) == tmp_path
    (repository, revision, all_patterns), (_, _, few_patterns) = asked
    assert (repository, revision) == ("owner/model", "v1")
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "*.safetensors"} <= set(all_patterns)
    assert not any("safetensors" in pattern for pattern in few_patterns)
    assert not any(pattern.endswith((".bin", ".py")) for pattern in all_patterns)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refusal(errors.RevisionNotFoundError), "has no revision 'v1'"),
        (refusal(errors.RepositoryNotFoundError), "does not exist or is private"),
        (refusal(errors.GatedRepoError), "does not exist or is private"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached"),
        (errors.HFValidationError("bad name\nmore"), "bad name"),
        (FailedConnection("refused"), "could not be downloaded: refused"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_every_failure_is_one_sentence(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(ModelFilesError, match=reason) as caught:
        hub.download("owner/model", revision="v1", weights=True)
    assert "'owner/model'" in str(caught.value)
    assert "\n" not in str(caught.value)
