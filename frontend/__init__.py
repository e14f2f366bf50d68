"""From a client's connection to token ids and back. Never imports `engine`, torch, triton or transformers."""
