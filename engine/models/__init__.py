"""The models we can run: what their config.json says, which tensors they have, and their forward pass."""
