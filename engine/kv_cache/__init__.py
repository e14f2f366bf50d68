"""Which KV-cache block belongs to whom. Bookkeeping only: no torch, no tensors (those are `engine.execution`'s)."""
