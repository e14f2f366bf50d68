"""The blocks of the KV cache: who holds how many references, and which are free. Knows neither rows nor tokens.

A block is in exactly one of three places:

    held        refcount > 0: in the tables of that many rows
    cached      refcount 0, but its contents are named in the prefix index: reusable, evicted oldest first
    free        refcount 0, contents unknown: on the stack
"""

from collections import OrderedDict

import numpy as np

from engine.batch import Int32s


class BlockPool:
    """Reference counts, the free stack and the prefix index (hash -> block) over `num_blocks` blocks."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._refcounts = np.zeros(num_blocks, np.int32)
        self._stack = np.arange(num_blocks - 1, -1, -1, dtype=np.int32)
        self._num_free = num_blocks
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently released first
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self.num_published = 0  # only grows: while it stands still, `match` finds no more than before

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` could give out now, cached ones included."""
        return self._num_free + len(self._cached)

    @property
    def num_held(self) -> int:
        """Blocks in some row's table."""
        return self.num_blocks - self.num_available

    def allocate(self, count: int) -> Int32s:
        """`count` blocks with one reference each; evicts cached ones if need be. `count` <= `num_available`."""
        assert count <= self.num_available
        if count > self._num_free:
            self._evict(count - self._num_free)
        self._num_free -= count
        blocks = self._stack[self._num_free : self._num_free + count].copy()
        self._refcounts[blocks] = 1
        return blocks

    def match(self, hashes: list[bytes]) -> list[int]:
        """The blocks of the longest run of leading hashes that are in the index. Takes no reference."""
        blocks = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_cached_among(self, blocks: list[int]) -> int:
        """How many of these blocks count as available now and would not after `hold`."""
        return sum(block in self._cached for block in blocks)

    def hold(self, blocks: list[int]) -> None:
        """One more reference to each of these blocks, which `match` has just found."""
        for block in blocks:
            self._cached.pop(block, None)
        self._refcounts[blocks] += 1

    def publish(self, blocks: Int32s, hashes: list[bytes]) -> None:
        """Name the contents of held blocks. A hash that another block has already keeps that block."""
        for block, block_hash in zip(blocks.tolist(), hashes, strict=True):
            if block_hash not in self._block_of and block not in self._hash_of:
                self._block_of[block_hash] = block
                self._hash_of[block] = block_hash
                self.num_published += 1

    def release(self, blocks: Int32s) -> None:
        """Give back one reference to each of a row's blocks, in table order: its last block is evicted first."""
        self._refcounts[blocks] -= 1
        idle = blocks[self._refcounts[blocks] == 0][::-1].tolist()
        self._cached.update((block, None) for block in idle if block in self._hash_of)
        self._push([block for block in idle if block not in self._hash_of])

    def forget(self, hashes: list[bytes]) -> None:
        """What these hashes name is not to be found any more; rows that have it in their tables keep it."""
        blocks = [self._block_of.pop(block_hash) for block_hash in hashes if block_hash in self._block_of]
        for block in blocks:
            del self._hash_of[block]
        cached = [block for block in blocks if block in self._cached]
        for block in cached:
            del self._cached[block]
        self._push(cached)

    def _evict(self, count: int) -> None:
        popitem = self._cached.popitem
        blocks = [popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            del self._block_of[self._hash_of.pop(block)]
        self._push(blocks)

    def _push(self, blocks: list[int]) -> None:
        self._stack[self._num_free : self._num_free + len(blocks)] = blocks
        self._num_free += len(blocks)

    def check(self, held: Int32s) -> None:
        """Raise AssertionError unless every block is in one place and `held`, all rows' tables, explains the counts."""
        assert (np.bincount(held, minlength=self.num_blocks) == self._refcounts).all(), "refcounts differ from tables"
        free = set(self._stack[: self._num_free].tolist())
        assert len(free) == self._num_free, "a block is twice on the free stack"
        assert not free & self._cached.keys(), "a block is free and cached"
        assert not free & self._hash_of.keys(), "a free block has a hash"
        idle = set(np.flatnonzero(self._refcounts == 0).tolist())
        assert idle == free | self._cached.keys(), "an idle block is neither free nor cached"
        assert {h: b for b, h in self._hash_of.items()} == self._block_of, "the index and its inverse differ"
        assert self._cached.keys() <= self._hash_of.keys(), "a cached block has no hash"
