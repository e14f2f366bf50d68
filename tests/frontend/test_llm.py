"""The LLM with the real engine process, whose model is air: tokens are a function of seed and position."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import frontend.llm
from frontend.offline.session import Session
from headrace import LLM, SamplingParams
from protocol.launch import ModelFiles
from tests.helpers.fake_runner import token_at

FAKE = (sys.executable, "-m", "tests.helpers.fake_model_engine")
FAILING = (sys.executable, "-m", "tests.helpers.failing_engine")
VOCAB = 49_152
ROOT = Path(__file__).resolve().parents[2]


def llm_on(command: Sequence[str], model: ModelFiles, **settings: Any) -> LLM:
    """With the demo's tokenizer, on another engine program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontend.llm, "Session", partial(Session, engine_command=command))
        return LLM(model.config_dir, load_format="dummy", **settings)


@pytest.fixture(scope="module")
def llm(demo_files: ModelFiles) -> Iterator[LLM]:
    """One that no test ends."""
    with llm_on(FAKE, demo_files, max_model_len=64) as llm:
        yield llm


def num_loop_threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("headrace-llm")


def youngest_engine() -> psutil.Process:
    engines = [child for child in psutil.Process().children() if FAKE[-1] in child.cmdline()]
    return max(engines, key=lambda child: child.create_time())


def test_prompts_as_text_texts_or_ids(llm: LLM) -> None:
    params = SamplingParams(max_tokens=4, seed=1, ignore_eos=True)
    [of_text] = llm.generate("Hello there", params)
    [of_list, second] = llm.generate(["Hello there", "You"], params)
    [of_ids] = llm.generate([of_text.prompt_token_ids], params, use_tqdm=False)
    assert of_text.prompt == "Hello there"
    assert of_ids.prompt is None
    assert of_text.outputs == of_list.outputs == of_ids.outputs
    [choice] = of_text.outputs
    start = len(of_text.prompt_token_ids)
    assert choice.token_ids == [token_at(1, start + i, VOCAB) for i in range(4)]
    assert choice.text
    assert choice.finish_reason == "length"
    assert len(second.prompt_token_ids) < start


def test_each_prompt_may_have_parameters_of_its_own(llm: LLM) -> None:
    each = [SamplingParams(max_tokens=n, n=n, seed=n, ignore_eos=True) for n in (1, 3)]
    short, long = llm.generate(["a", "b"], each)
    assert [len(choice.token_ids) for choice in short.outputs] == [1]
    assert [len(choice.token_ids) for choice in long.outputs] == [3, 3, 3]
    assert [choice.index for choice in long.outputs] == [0, 1, 2]
    with pytest.raises(ValueError, match="holds 2 for 1 prompts"):
        llm.generate("a", each)


def test_a_chat_is_rendered_by_the_template(llm: LLM) -> None:
    conversation = [{"role": "user", "content": "Hi"}]
    [one] = llm.chat(conversation, SamplingParams(max_tokens=1))
    assert one.prompt is not None
    assert one.prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert len(llm.chat([conversation, conversation], SamplingParams(max_tokens=1))) == 2
    [open_end] = llm.chat(conversation, SamplingParams(max_tokens=1), add_generation_prompt=False)
    assert open_end.prompt is not None
    assert open_end.prompt.endswith("<|im_end|>\n")


def test_stop_strings_end_an_answer(llm: LLM) -> None:
    params = SamplingParams(max_tokens=30, seed=5, ignore_eos=True)
    text = llm.generate("x", params)[0].outputs[0].text
    params.stop = text[10:14]
    [choice] = llm.generate("x", params)[0].outputs
    assert choice.text == text[: text.index(text[10:14])]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", text[10:14])


def test_what_is_out_of_bounds_is_a_value_error_and_the_next_call_works(llm: LLM) -> None:
    wrong: list[tuple[Any, SamplingParams | None, str]] = [
        ([[1], [VOCAB]], None, f"token id {VOCAB}"),
        ("a", SamplingParams(temperature=-1), "temperature"),
        ([[5] * 64], None, "at most 63"),
        ("", None, "at least one token"),
        ("a", SamplingParams(n=17), "n must be"),
    ]
    for prompts, params, said in wrong:
        with pytest.raises(ValueError, match=said):
            llm.generate(prompts, params)
    with pytest.raises(ValueError, match="role|template|message"):
        llm.chat([[]])
    assert llm.generate("a")[0].outputs[0].token_ids


def test_a_dead_engine_is_an_error_that_says_how_it_ended(demo_files: ModelFiles) -> None:
    with llm_on(FAKE, demo_files) as llm:
        threading.Timer(0.3, youngest_engine().kill).start()
        with pytest.raises(frontend.llm.EngineError, match="killed by SIGKILL"):
            llm.generate(["a"] * 500, SamplingParams(max_tokens=2000, ignore_eos=True))
        with pytest.raises(frontend.llm.EngineError, match="killed by SIGKILL.*; make a new LLM"):
            llm.generate("a")


def test_an_interrupt_ends_the_call_but_not_the_llm(llm: LLM) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[5]] * 20_000, SamplingParams(max_tokens=60, ignore_eos=True))
    began = time.monotonic()
    assert llm.generate("a")
    assert time.monotonic() - began < 2  # the engine had nothing left to do


@pytest.mark.parametrize(("mode", "said"), [("refuses", "lacks the tensor"), ("exits", "exit status 7")])
def test_an_engine_that_cannot_start_says_why(demo_files: ModelFiles, mode: str, said: str) -> None:
    before = num_loop_threads()
    with pytest.raises(frontend.llm.EngineError, match=said):
        llm_on((*FAILING, mode), demo_files)
    assert num_loop_threads() == before


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("/nowhere", {}, "/nowhere"),
        ("demo", {"max_model_length": 5}, "max_model_len"),
        ("demo", {"block_size": 3}, "power of two"),
        ("demo", {"port": 8000}, "port"),
    ],
)
def test_wrong_settings_are_refused(model: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LLM(model, **settings)


def test_closing_ends_the_process_and_the_calls(demo_files: ModelFiles) -> None:
    before = num_loop_threads()
    with llm_on(FAKE, demo_files) as llm:
        engine = youngest_engine()
    assert not engine.is_running()
    llm.close()
    with pytest.raises(frontend.llm.EngineError, match="closed"):
        llm.generate("a")
    assert num_loop_threads() == before


PROGRAM = """
import sys
from functools import partial
import frontend.llm
from frontend.offline.session import Session
frontend.llm.Session = partial(Session, engine_command=[sys.executable, "-m", "tests.helpers.fake_model_engine"])
from headrace import LLM, SamplingParams
if __name__ == "__main__":
    llm = LLM(sys.argv[1], load_format="dummy")
    print("ready", flush=True)
    llm.generate(["a"] * 100, SamplingParams(max_tokens=int(sys.argv[2]), ignore_eos=True))
    print("done", flush=True)
"""


def program(demo_files: ModelFiles, max_tokens: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, demo_files.config_dir, str(max_tokens)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def engine_under(process: subprocess.Popen[str]) -> psutil.Process:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    [engine] = psutil.Process(process.pid).children()
    return engine


def gone_soon(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_program_that_forgets_to_close_ends_all_the_same(demo_files: ModelFiles) -> None:
    process = program(demo_files, 1)
    engine = engine_under(process)
    said, _ = process.communicate(timeout=20)
    assert (said, process.returncode) == ("done\n", 0)
    assert gone_soon(engine)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_engine_outlives_its_program(demo_files: ModelFiles, number: signal.Signals, status: int) -> None:
    process = program(demo_files, 2000)
    engine = engine_under(process)
    os.kill(process.pid, number)
    process.communicate(timeout=20)
    assert process.returncode == status
    assert gone_soon(engine)
