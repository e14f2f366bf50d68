"""Runs scheduled steps on a device: inputs, forward pass, sampling. It knows of slots and blocks, not of requests."""
