"""A small HTTP/1.1 client for any OpenAI endpoint, for commands that talk to one. Knows nothing of our server."""
