"""Runs the offline workloads through `LLM` and prints tokens a second, beside the limits and vLLM's figures.

usage: python scripts/bench_offline.py MODEL_FOLDER [--workloads single,decode,w1] [--reps 3] [--limits limits.json]
       [--json FILE] [--flag-for-LLM VALUE ...]

MODEL_FOLDER holds config.json and a tokenizer (scripts of shared/bench/make_models.py make them); weights are random.
Workloads are those of `headrace bench serve`. Each runs once to warm up and then --reps times with fresh prompts; the
median counts (with --reps 0 the first one). `limits.json` is what scripts/bench_limits.py wrote on the same card in
the same hour.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from headrace import LLM, SamplingParams
from protocol.logs import configure_logging

WORKLOADS = Path(__file__).parents[1] / "frontend" / "bench_serve" / "workloads.json"
TOTAL = {"prefill", "long"}  # judged by prompt and output tokens together
# vLLM 0.26.0 on one H100 80GB HBM3, 2026-11-22 (docs of the project: measured peers)
VLLM = {
    "llama-3.1-8b": {
        "single": 153,
        "prefill": 31_900,
        "decode": 17_050,
        "sampled": 16_300,
        "w1": 8_525,
        "long": 28_400,
    },
    "qwen3-0.6b": {"single": 505, "decode512": 33_500, "w1": 16_150},
}
VOCAB = 40_000


def requests(name: str, spec: list[Any], rep: int) -> tuple[list[list[int]], list[SamplingParams]]:
    """The prompts and parameters of one repetition; every one has prompts of its own."""
    count, in_low, in_high, out_low, out_high, sampling = spec
    rng = random.Random(f"{name}-{rep}")
    prompts = [[rng.randrange(VOCAB) for _ in range(rng.randint(in_low, in_high))] for _ in range(count)]
    params = [
        SamplingParams(max_tokens=rng.randint(out_low, out_high), ignore_eos=True, seed=i, **sampling)
        for i in range(count)
    ]
    return prompts, params


def measure(llm: LLM, name: str, spec: list[Any], rep: int) -> dict[str, float]:
    """One repetition: seconds, and tokens a second of outputs and of everything."""
    prompts, params = requests(name, spec, rep)
    started = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    num_out = sum(len(output.outputs[0].token_ids) for output in outputs)
    assert num_out == sum(param.max_tokens or 0 for param in params)
    return {
        "seconds": round(seconds, 3),
        "output_tok_s": round(num_out / seconds, 1),
        "total_tok_s": round((num_out + sum(map(len, prompts))) / seconds, 1),
    }


def main() -> None:
    """One engine for all workloads of one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--workloads", default="")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--limits")
    parser.add_argument("--json")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of LLM")
    args = parser.parse_args()
    configure_logging("bench", level="info")  # the phases of the start
    specs = json.loads(WORKLOADS.read_text())
    name = Path(args.model).name
    limits = {}
    if args.limits:
        limits = json.loads(Path(args.limits).read_text())["models"][name]["limits"]
    chosen = args.workloads.split(",") if args.workloads else [key for key in VLLM.get(name, specs) if key != "_"]
    settings = dict(pair.split("=", 1) for pair in args.set)
    started = time.perf_counter()
    results: dict[str, Any] = {}
    with LLM(args.model, load_format="dummy", **{key: _value(text) for key, text in settings.items()}) as llm:
        llm.generate([[1, 2, 3]], SamplingParams(max_tokens=1), use_tqdm=False)
        results["start_s"] = round(time.perf_counter() - started, 2)
        print(f"{name}: start to first token {results['start_s']} s", flush=True)
        for workload in chosen:
            first = measure(llm, workload, specs[workload], 0)
            runs = [measure(llm, workload, specs[workload], rep + 1) for rep in range(args.reps)]
            key = "total_tok_s" if workload in TOTAL else "output_tok_s"
            rate = statistics.median(run[key] for run in (runs or [first]))
            results[workload] = {"first": first, "runs": runs, "median": rate}
            vllm, limit = VLLM.get(name, {}).get(workload), limits.get(workload)
            print(
                f"{name:14} {workload:10} {rate:9,.0f} {'total' if workload in TOTAL else 'output'} tok/s"
                + (f"   first run {first['seconds'] / runs[0]['seconds']:.2f}x" if runs else "")
                + (f"   {rate / vllm:.2f}x vLLM" if vllm else "")
                + (f"   {rate / limit['tokens_per_s']:.1%} of the limit" if limit else ""),
                flush=True,
            )
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    main()
