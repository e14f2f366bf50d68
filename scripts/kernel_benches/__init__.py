"""The parts of scripts/bench_kernels.py: one module a kernel, and what they share."""
