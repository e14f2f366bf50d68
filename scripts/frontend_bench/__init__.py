"""The parts of scripts/bench_frontend.py: an engine without a model, a light load client, a null server, and the page they share."""
