"""OpenAI's HTTP bodies as typed records, ours beyond OpenAI's included. Knows no tokenizer, engine or web framework."""
