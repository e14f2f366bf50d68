"""The engine core: token ids in, token ids out. Never sees text or HTTP, never imports `frontend`."""
