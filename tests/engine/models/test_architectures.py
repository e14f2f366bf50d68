"""Every architecture computes what transformers computes, however its tokens are split over steps and batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.sampling import Sampling
from tests.helpers.drive_runner import GREEDY, engine_config, start
from tests.helpers.small_models import MODELS, VOCAB, continue_greedily, reference_logits, save_model

LENGTHS = (1, 5, 16, 17, 33, 70)
COUNT = 12


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model")
    return folder, save_model(request.param, folder)


def prompts() -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(0, VOCAB, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(saved: tuple[Path, Any]) -> list[list[int]]:
    return [continue_greedily(saved[1], prompt, COUNT) for prompt in prompts()]


def test_one_by_one(saved: tuple[Path, Any], expected: list[list[int]]) -> None:
    driver = start(engine_config(saved[0]))
    for prompt, continuation in zip(prompts(), expected, strict=True):
        assert driver.generate([driver.add(2, prompt)], COUNT) == [continuation]


def test_all_in_one_batch_in_chunks_of_sixteen(saved: tuple[Path, Any], expected: list[list[int]]) -> None:
    """The short prompts decode while the long ones are still computed: mixed steps."""
    driver = start(engine_config(saved[0]))
    rows = [driver.add(slot, prompt) for slot, prompt in enumerate(prompts())]
    assert driver.generate(rows, COUNT, chunk=16) == expected


def test_rows_that_join_later(saved: tuple[Path, Any], expected: list[list[int]]) -> None:
    driver = start(engine_config(saved[0]))
    rows = []
    for slot, prompt in enumerate(prompts()):
        rows.append(driver.add(slot, prompt))
        driver.step(rows)
    assert driver.generate(rows, COUNT) == [row.outputs for row in rows]
    assert [row.outputs[:COUNT] for row in rows] == expected


def test_log_probabilities_of_prompt_and_output(saved: tuple[Path, Any]) -> None:
    driver = start(engine_config(saved[0]))
    prompt = prompts()[-1]
    sampling = Sampling(seed=0, max_tokens=9, temperature=0.0, logprobs=4)
    row = driver.add(0, prompt, sampling)
    parts = [driver.step([row], chunk=32, prompt_logprobs=3) for _ in range(3)]
    wanted = reference_logits(saved[1], prompt).log_softmax(-1).numpy()

    found = [part for result in parts for part in result.prompt_logprobs]
    assert [(part.chunk, part.first, len(part.logprobs)) for part in found] == [(0, 1, 32), (0, 33, 32), (0, 65, 5)]
    chosen = wanted[np.arange(len(prompt) - 1), prompt[1:]]
    np.testing.assert_allclose(np.concatenate([part.logprobs for part in found]), chosen, atol=1e-3)
    ranks = (wanted[:-1] > chosen[:, None]).sum(1) + 1
    assert np.concatenate([part.ranks for part in found]).tolist() == ranks.tolist()
    best = np.sort(wanted[:-1], axis=1)[:, ::-1][:, :3]
    np.testing.assert_allclose(np.concatenate([part.top_logprobs for part in found]), best, atol=1e-3)

    drawn = parts[-1].logprobs
    assert drawn is not None
    assert (drawn.rows.tolist(), drawn.ranks.tolist(), drawn.top_ids.shape) == ([0], [1], (1, 4))
    assert drawn.top_ids[0, 0] == row.outputs[0] == wanted[-1].argmax()
    np.testing.assert_allclose(drawn.logprobs, wanted[-1].max(), atol=1e-3)


def test_a_slot_is_clean_when_it_is_used_again(saved: tuple[Path, Any], expected: list[list[int]]) -> None:
    driver = start(engine_config(saved[0]))
    demanding = Sampling(
        seed=1,
        max_tokens=9,
        min_tokens=9,
        temperature=1.5,
        top_k=3,
        repetition_penalty=1.7,
        presence_penalty=1.0,
        logit_bias={5: 50.0},
        allowed_token_ids=(5, 6),
        bad_words=((5,),),
        logprobs=2,
    )
    driver.generate([driver.add(2, prompts()[-1], demanding, stop_ids=(6,))], 4)
    row = driver.add(2, prompts()[1], GREEDY)
    assert driver.step([row]).logprobs is None
    assert driver.generate([row], COUNT) == [expected[1]]
