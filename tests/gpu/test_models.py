"""On the GPU in bfloat16: what each architecture computes against transformers on the same card; graphs and batches.

The measure is transformers' own rounding: how far its bfloat16 logits are from its float32 ones for the same weights.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.batch import LogprobRows
from protocol.sampling import Sampling
from tests.helpers.drive_runner import Driver, engine_config, start
from tests.helpers.small_models import MODELS, VOCAB, save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

LENGTHS = (1, 5, 16, 17, 33, 70)
COUNT = 12
NUM_TOP = 20
WITH_LOGPROBS = Sampling(seed=0, max_tokens=100, temperature=0.0, logprobs=NUM_TOP)


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model")
    return folder, save_model(request.param, folder).to("cuda", torch.bfloat16)


def new_driver(folder: Path, *, with_all_graphs: bool) -> Driver:
    driver = start(engine_config(folder, device="cuda", dtype="bfloat16", max_num_seqs=32))
    while with_all_graphs and driver.runner.prepare():
        pass
    return driver


def prompts() -> list[list[int]]:
    random = np.random.default_rng(5)
    return [random.integers(0, VOCAB, length).tolist() for length in LENGTHS]


def logprobs_of(model: Any, tokens: list[int]) -> torch.Tensor:
    """[tokens, vocab] float32."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens], device="cuda"), use_cache=False).logits[0]
        return logits.float().log_softmax(-1).cpu()


def generate(driver: Driver, prompt: list[int], *, chunk: int) -> tuple[list[int], list[LogprobRows]]:
    row = driver.add(0, prompt, WITH_LOGPROBS)
    found = []
    while len(row.outputs) < COUNT:
        result = driver.step([row], chunk=chunk)
        found += [] if result.logprobs is None or not len(result.tokens) else [result.logprobs]
    return row.outputs, found


@pytest.mark.parametrize("chunk", [10**6, 16])
def test_logits_are_as_near_to_float32_as_those_of_transformers(saved: tuple[Path, Any], chunk: int) -> None:
    folder, rounded = saved
    wide = copy.deepcopy(rounded).float()
    driver = new_driver(folder, with_all_graphs=True)
    for prompt in prompts():
        outputs, found = generate(driver, prompt, chunk=chunk)
        first = len(prompt) - 1
        exact = logprobs_of(wide, prompt + outputs)[first : first + COUNT]
        theirs = logprobs_of(rounded, prompt + outputs)[first : first + COUNT]
        rounding = float((theirs - exact).abs().max())
        for place, ours in enumerate(found):
            ids = torch.from_numpy(ours.top_ids[0].astype(np.int64))
            error = float((torch.from_numpy(ours.top_logprobs[0]) - exact[place][ids]).abs().max())
            assert error < max(3 * rounding, 0.02), (len(prompt), place, error, rounding)
            best = exact[place].topk(2).values
            if float(best[0] - best[1]) > 6 * rounding:
                assert outputs[place] == int(exact[place].argmax()), (len(prompt), place)


def test_graphs_and_eager_steps_agree(saved: tuple[Path, Any]) -> None:
    """A runner that may capture nothing more runs most of these steps eagerly or padded to another size."""
    few, all_of_them = (new_driver(saved[0], with_all_graphs=wanted) for wanted in (False, True))
    for prompt in prompts():
        (tokens, logprobs), (others, their_logprobs) = (
            generate(driver, prompt, chunk=16) for driver in (few, all_of_them)
        )
        for place, (ours, theirs) in enumerate(zip(logprobs, their_logprobs, strict=True)):
            assert np.abs(ours.top_logprobs - theirs.top_logprobs).max() < 0.1
            if tokens[place] != others[place]:
                margin = ours.top_logprobs[0, 0] - ours.top_logprobs[0, 1]
                assert margin < 0.1
                break


def test_a_row_does_not_depend_on_who_shares_its_steps(saved: tuple[Path, Any]) -> None:
    driver = new_driver(saved[0], with_all_graphs=True)
    prompt = prompts()[-1]
    alone, logprobs = generate(driver, prompt, chunk=10**6)
    rows = [driver.add(slot, other, WITH_LOGPROBS) for slot, other in enumerate([*prompts()[:-1], prompt], 1)]
    together = driver.generate(rows, COUNT, chunk=16)[-1]
    for place, (ours, other) in enumerate(zip(alone, together, strict=True)):
        if ours != other:  # only where two tokens are nearly as likely
            top = logprobs[place].top_logprobs[0]
            assert top[0] - top[1] < 0.1
            break
