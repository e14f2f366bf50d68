"""The runner over whole steps: rows do not disturb each other, and what a row leaves behind disturbs nobody."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from protocol.sampling import Sampling
from tests.helpers.drive_runner import GREEDY, engine_config, start
from tests.helpers.small_models import save_model

POISON = 5  # a token whose embedding is not a number


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model("llama", folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][POISON] = torch.nan
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_row_that_is_not_finite_fails_alone_and_leaves_nothing_behind(folder: Path) -> None:
    config = engine_config(folder, kv_cache_memory_bytes=2**18)
    driver = start(config)
    expected = driver.generate([driver.add(0, [1, 2, 3])], 20)
    driver = start(config)
    good, bad = driver.add(0, [1, 2, 3]), driver.add(1, [POISON] * 40)
    driver.step([good, bad])
    assert (good.failed, bad.failed) == (False, True)
    assert driver.generate([good], 20) == expected
    # The blocks of the failed row come back first, and a row of one token reads them behind its mask.
    driver.take_back(bad)
    again = driver.add(1, [1, 2, 3])
    assert driver.generate([again], 20) == expected
    assert not again.failed


def test_sampled_rows_do_not_depend_on_their_company_or_on_replays(folder: Path) -> None:
    def sampling(seed: int) -> Sampling:
        return Sampling(seed=seed, max_tokens=99, temperature=1.2, top_p=0.95, frequency_penalty=0.3)

    prompts = {slot: [slot + 10] * (slot + 1) for slot in range(4)}
    config = engine_config(folder)
    alone = []
    for slot, prompt in prompts.items():
        driver = start(config)
        alone += driver.generate([driver.add(slot, prompt, sampling(slot))], 16)
    driver = start(config)
    rows = [driver.add(7 - slot, prompt, sampling(slot)) for slot, prompt in prompts.items()]
    assert driver.generate(rows, 16, chunk=2) == alone

    driver = start(config)
    rows = [driver.add(slot, prompt, sampling(slot), outputs=alone[slot][:9]) for slot, prompt in prompts.items()]
    assert driver.generate(rows, 7) == [outputs[9:] for outputs in alone]


def test_a_step_of_chunks_that_end_no_prompt_draws_nothing(folder: Path) -> None:
    driver = start(engine_config(folder))
    row = driver.add(3, list(range(10, 40)), GREEDY)
    assert [len(driver.step([row], chunk=16).tokens) for _ in range(2)] == [0, 1]
