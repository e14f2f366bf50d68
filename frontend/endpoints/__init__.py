"""One file per URL family: read a body, call generation, write an answer."""
