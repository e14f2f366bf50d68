"""Where weights come from: safetensors, GGUF or random numbers. Every name and shape is accounted for."""
