from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from frontend.model_files import hub
from frontend.model_files.errors import ModelFilesError

NOT_FOUND = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))


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
        (errors.RevisionNotFoundError("x", response=NOT_FOUND), "has no revision 'v1'"),
        (errors.RepositoryNotFoundError("x", response=NOT_FOUND), "does not exist or is private"),
        (errors.GatedRepoError("x", response=NOT_FOUND), "does not exist or is private"),
        (errors.LocalEntryNotFoundError("x"), "the hub cannot be reached"),
        (errors.HFValidationError("bad name\nmore"), "bad name"),
        (httpx.ConnectError("refused"), "could not be downloaded: refused"),
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
