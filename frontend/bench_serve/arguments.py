"""The arguments of `headrace bench serve`, and what they mean together."""

import argparse
import math
from pathlib import Path
from typing import Any

from frontend.bench_serve.jobs import Load
from frontend.bench_serve.prompts import PromptSource
from frontend.bench_serve.questions import Questions, read_questions
from frontend.bench_serve.summary import parse_limit
from frontend.bench_serve.workloads import DEFAULT_VOCAB_SIZE, fixed_workload, named_workload, workload_names
from frontend.client.http_client import DEFAULT_URL

_NUM_PROMPTS = 64
_OUTPUT_LEN = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them all."""
    _add_endpoint(parser.add_argument_group("Endpoint"))
    _add_prompts(parser.add_argument_group("Prompts (one of the first three)"))
    _add_load(parser.add_argument_group("Load"))
    report = parser.add_argument_group("Report")
    report.add_argument(
        "--goodput",
        nargs="+",
        type=_limit,
        default=[],
        metavar="LIMIT",
        help="count requests within ttft:200 tpot:50",
    )
    report.add_argument("--output", type=_new_file, metavar="FILE", help="write the numbers there as JSON")


def _add_endpoint(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--url", default=DEFAULT_URL, help="where the server listens (default %(default)s)")
    group.add_argument("--api-key", metavar="KEY", help="sent as a bearer token")
    group.add_argument("--model", metavar="NAME", help="model to ask; without it the endpoint's first")
    group.add_argument("--chat", action="store_true", help="ask /v1/chat/completions (with --dataset)")
    group.add_argument("--timeout", type=_positive, default=600.0, metavar="SECONDS", help="per request (default 600)")


def _add_prompts(group: "argparse._ArgumentGroup") -> None:
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--workload", choices=workload_names(), help="a named workload of random token ids")
    source.add_argument("--dataset", type=Path, metavar="FILE", help="ShareGPT-like JSON: the first question of each")
    source.add_argument("--input-len", type=_count, metavar="N", help="random token ids, so many a prompt")
    group.add_argument("--output-len", type=_count, metavar="N", help=f"tokens an answer (default {_OUTPUT_LEN})")
    group.add_argument("--num-prompts", type=_count, metavar="N", help=f"requests (default: all, or {_NUM_PROMPTS})")
    group.add_argument("--vocab-size", type=_count, default=DEFAULT_VOCAB_SIZE, metavar="N", help="bound of random ids")
    group.add_argument("--temperature", type=float, metavar="T", help="in place of the workload's")
    group.add_argument("--top-p", type=float, metavar="P", help="in place of the workload's")


def _add_load(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--concurrency", type=_count, metavar="N", help="requests open at a time (default: all)")
    group.add_argument(
        "--request-rate", type=_positive, default=math.inf, metavar="R", help="arrivals a second, Poisson (default inf)"
    )
    group.add_argument("--procs", type=_count, default=1, metavar="N", help="load processes (default 1)")
    group.add_argument(
        "--reps", type=_count, metavar="N", help="runs, the last one counts (default 2 for --workload, else 1)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of prompts and arrivals (default 0)")


def make_source(arguments: argparse.Namespace) -> PromptSource:
    """Raises ValueError (one sentence) when arguments do not fit together, or name what is not there."""
    if arguments.chat and not arguments.dataset:
        raise ValueError("--chat sends text, which only --dataset has; token ids go to /v1/completions")
    if arguments.workload and arguments.output_len:
        raise ValueError("--output-len is the workload's own; use it with --input-len or --dataset")
    if arguments.workload:
        return named_workload(arguments.workload, num_prompts=arguments.num_prompts, vocab_size=arguments.vocab_size)
    return _file_source(arguments) if arguments.dataset else _fixed_source(arguments)


def _file_source(arguments: argparse.Namespace) -> PromptSource:
    return Questions(
        name=arguments.dataset.name,
        questions=read_questions(arguments.dataset),
        num_prompts=arguments.num_prompts or _NUM_PROMPTS,
        max_tokens=arguments.output_len or _OUTPUT_LEN,
        seed=arguments.seed,
        sampling={},
    )


def _fixed_source(arguments: argparse.Namespace) -> PromptSource:
    return fixed_workload(
        input_len=arguments.input_len,
        output_len=arguments.output_len or _OUTPUT_LEN,
        num_prompts=arguments.num_prompts or _NUM_PROMPTS,
        vocab_size=arguments.vocab_size,
        seed=arguments.seed,
    )


def sampling_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Request fields that were given on the command line."""
    given = {"temperature": arguments.temperature, "top_p": arguments.top_p}
    return {name: value for name, value in given.items() if value is not None}


def load_of(arguments: argparse.Namespace) -> Load:
    """How hard to ask."""
    return Load(
        num_procs=arguments.procs,
        concurrency=arguments.concurrency,
        rate=arguments.request_rate,
        seed=arguments.seed,
    )


def num_reps_of(arguments: argparse.Namespace) -> int:
    """A named workload is reported from its second run on: the first warms the server up."""
    return arguments.reps or (2 if arguments.workload else 1)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return number


def _new_file(text: str) -> Path:
    """Looked at before the run: what it has measured would be lost."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _limit(text: str) -> Any:
    try:
        return parse_limit(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
