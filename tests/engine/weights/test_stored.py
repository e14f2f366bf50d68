"""Numbers in a file, in pieces, into tensors of any type."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.models.shape import ModelError
from engine.weights.page_in import page_in
from engine.weights.stored import Stored, StoredReader

NUMBERS = torch.arange(-50.0, 51.0)
BEFORE = b"a header"


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    path = tmp_path / "numbers"
    path.write_bytes(BEFORE + NUMBERS.bfloat16().view(torch.uint8).numpy().tobytes() + b"what follows")
    return Stored(path=path, offset=len(BEFORE), dtype=torch.bfloat16)


@pytest.mark.parametrize("piece_bytes", [2, 6, 202, 1024])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_pieces_are_put_together(stored: Stored, piece_bytes: int, dtype: torch.dtype) -> None:
    out = torch.full((101, 1), torch.nan, dtype=dtype)
    StoredReader(piece_bytes).read(stored, out)
    assert torch.equal(out.view(-1), NUMBERS.to(dtype))


def test_threads_do_not_share_their_buffers(stored: Stored) -> None:
    reader = StoredReader(6)
    outs = torch.zeros(8, 101)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda out: reader.read(stored, out), outs))
    assert torch.equal(outs, NUMBERS.expand(8, -1))


def test_a_file_that_became_shorter_is_named(stored: Stored) -> None:
    stored.path.write_bytes(stored.path.read_bytes()[:100])
    with pytest.raises(ModelError, match="numbers became shorter while it was read"):
        StoredReader(16).read(stored, torch.empty(101))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pieces_reach_a_gpu_while_the_next_are_read(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).standard_normal(1_000_003).astype(np.float32)
    path = tmp_path / "many"
    path.write_bytes(numbers.tobytes())
    out = torch.zeros(len(numbers), dtype=torch.bfloat16, device="cuda")
    StoredReader(4096).read(Stored(path=path, offset=0, dtype=torch.float32), out)
    assert torch.equal(out.cpu(), torch.from_numpy(numbers).bfloat16())


def test_paging_in_leaves_what_is_missing_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.weights.page_in.PIECE_BYTES", 4096)
    (tmp_path / "a.safetensors").write_bytes(bytes(10_000))
    (tmp_path / "b.safetensors").symlink_to("nowhere")
    page_in(tmp_path)
    page_in(tmp_path / "a.safetensors")
    page_in(tmp_path / "nowhere")
