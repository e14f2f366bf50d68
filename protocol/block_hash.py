"""The prefix-cache hash chain: names a block of KV cache by all tokens up to its end. Computed on both sides.

A block's hash is BLAKE2b (RFC 7693), keyed per server start, of the hash before it and its own token ids; the chain's
root holds the salt and the adapter's load. Without the key nobody can construct a collision or probe a neighbour's
prompt; 128 bits make an accidental one out of reach.
"""

from hashlib import blake2b

HASH_BYTES = 16
_TOKEN_BYTES = 4


def chain_root(key: bytes, *, salt: str = "", adapter_load: int = 0) -> bytes:
    """Where a chain begins: rows share blocks only under the same root."""
    return blake2b(adapter_load.to_bytes(8, "little") + salt.encode(), digest_size=HASH_BYTES, key=key).digest()


def extend_chain(key: bytes, parent: bytes, tokens: bytes, block_size: int) -> list[bytes]:
    """Hashes of the full blocks of `tokens` (int32 bytes) that follow `parent`; a partial last block has none."""
    hashes = []
    width = block_size * _TOKEN_BYTES
    for start in range(0, len(tokens) - width + 1, width):
        parent = blake2b(parent + tokens[start : start + width], digest_size=HASH_BYTES, key=key).digest()
        hashes.append(parent)
    return hashes
