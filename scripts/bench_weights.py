"""How fast weights come from a safetensors file to where the model multiplies with them.

usage: python scripts/bench_weights.py MODEL_FOLDER [--device cuda] [--layers 16] [--reps 3]

MODEL_FOLDER holds a config.json; random numbers for that many of its layers are written to a temporary folder and read
from the page cache, as a second start finds them.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from engine.execution.precision import choose_precision
from engine.models.shape import ModelShape, read_shape
from engine.models.tensors import expected_tensors
from engine.weights.dummy import DummyWeights
from engine.weights.load import Placement, load_weights
from engine.weights.safetensors_folder import SINGLE, SafetensorsFolder


def write(shape: ModelShape, folder: Path) -> float:
    """Random bfloat16 numbers under the model's names; GB."""
    source, tensors = DummyWeights(shape, seed=0), {}
    for name, dims in expected_tensors(shape).items():
        tensors[name] = torch.empty(dims, dtype=torch.bfloat16)
        source.read(name, tensors[name])
    save_file(tensors, folder / SINGLE)
    return (folder / SINGLE).stat().st_size / 1e9


def main() -> None:
    """One model, one device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--reps", type=int, default=3)
    args = parser.parse_args()
    shape = dataclasses.replace(read_shape(args.model), num_layers=args.layers)
    types = choose_precision("bfloat16", "bfloat16", args.device)
    place = Placement(device=args.device, rounded=types.rounded, compute=types.compute, packed=types.packed)
    with tempfile.TemporaryDirectory() as name:
        gigabytes = write(shape, Path(name))
        for _ in range(args.reps):
            started = time.perf_counter()
            load_weights(SafetensorsFolder(Path(name)), shape, place)
            if args.device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            print(f"{gigabytes:.2f} GB in {seconds:.2f} s: {gigabytes / seconds:.1f} GB/s", flush=True)


if __name__ == "__main__":
    main()
