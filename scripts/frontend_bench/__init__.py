"""The parts of scripts/bench_frontend.py: engine without a model, load client, null server, and their page."""
