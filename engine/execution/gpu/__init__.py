"""Runs steps on a CUDA GPU: one copy of changes in, CUDA graphs for decode steps, one copy of tokens out."""
