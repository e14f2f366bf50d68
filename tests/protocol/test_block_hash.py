"""Equal beginnings have equal hashes, and nothing else has: not another salt, load, key or token."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from protocol.block_hash import HASH_BYTES, chain_root, extend_chain

KEY = b"one server start"
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=40)


def chain(ids: list[int], *, root: bytes | None = None, key: bytes = KEY, block_size: int = 4) -> list[bytes]:
    return extend_chain(key, chain_root(key) if root is None else root, array("i", ids).tobytes(), block_size)


@given(tokens, tokens, tokens)
def test_two_chains_are_equal_as_far_as_their_tokens_are(common: list[int], left: list[int], right: list[int]) -> None:
    one, other = common + left, common + right
    for index, (a, b) in enumerate(zip(chain(one), chain(other), strict=False)):
        assert (a == b) == (one[: 4 * index + 4] == other[: 4 * index + 4])


@given(tokens)
def test_only_full_blocks_have_a_hash(ids: list[int]) -> None:
    hashes = chain(ids)
    assert len(hashes) == len(ids) // 4
    assert all(len(hash_) == HASH_BYTES for hash_ in hashes)


@given(tokens, st.integers(0, 10))
def test_a_chain_can_be_extended_where_it_ended(ids: list[int], num_blocks: int) -> None:
    head = chain(ids)[:num_blocks]
    tail = chain(ids[4 * len(head) :], root=head[-1] if head else None)
    assert head + tail == chain(ids)


def test_salt_load_and_key_each_make_another_chain() -> None:
    ids = [1, 2, 3, 4]
    roots = [chain_root(KEY), chain_root(KEY, salt="tenant"), chain_root(KEY, adapter_load=1), chain_root(b"other")]
    hashes = {chain(ids, root=root)[0] for root in roots}
    hashes.add(chain(ids, key=b"other")[0])
    assert len(hashes) == 5
