"""What the fixed places of a mixed graph say of a step: the same rows and tokens as the step itself, and padding."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.batch import Int32s, ScheduledBatch
from engine.execution.gpu.step_inputs import (
    MAX_GRAPH_CHUNKS,
    MixedSize,
    cut_up,
    fill_decode,
    fill_mixed,
    num_fixed,
)

MOST = 64
SIZE = MixedSize(rows=32, tokens=256, tiles=256 // 16 + MAX_GRAPH_CHUNKS, tile_tokens=16)
NOTHING = np.zeros(0, np.int32)


def ints(numbers: Sequence[int]) -> Int32s:
    return np.array(numbers, np.int32)


def a_batch(decodes: list[tuple[int, int]], chunks: list[tuple[int, int, int, bool]]) -> ScheduledBatch:
    """Decode rows as (slot, position), chunks as (slot, start, length, samples)."""
    return ScheduledBatch(
        step=0,
        setups=[],
        block_slots=NOTHING,
        block_columns=NOTHING,
        block_ids=NOTHING,
        decode_slots=ints([slot for slot, _ in decodes]),
        decode_positions=ints([position for _, position in decodes]),
        chunk_slots=ints([chunk[0] for chunk in chunks]),
        chunk_starts=ints([chunk[1] for chunk in chunks]),
        chunk_lengths=ints([chunk[2] for chunk in chunks]),
        chunk_samples=np.array([chunk[3] for chunk in chunks], np.bool_),
        chunk_prompt_logprobs=ints([-1] * len(chunks)),
    )


def test_a_decode_step_is_filled_up_with_rows_of_no_slot() -> None:
    buffer = np.full(num_fixed(MOST), 77, np.int32)
    fixed = cut_up(buffer, MOST)
    fill_decode(fixed, a_batch([(5, 100), (3, 7)], []), 4)
    assert fixed.slots[:5].tolist() == [5, 3, -1, -1, 77]
    assert fixed.positions[:5].tolist() == [100, 7, 0, 0, 77]


@given(
    decodes=st.lists(st.integers(0, 1000), max_size=32),
    chunks=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 16), st.booleans()), min_size=1, max_size=16),
    data=st.data(),
)
def test_a_mixed_step_is_the_step_itself(
    decodes: list[int], chunks: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    slots = data.draw(st.permutations(range(MOST)))
    rows = list(zip(slots, decodes, strict=False))
    parts = [(slot, *chunk) for slot, chunk in zip(slots[len(rows) :], chunks, strict=False)]
    buffer = np.full(num_fixed(MOST), 77, np.int32)
    fixed = cut_up(buffer, MOST)
    places = fill_mixed(fixed, a_batch(rows, parts), SIZE, drawn=MOST)

    tokens = list(zip(fixed.token_slots.tolist(), fixed.token_positions.tolist(), strict=True))
    of_chunks = [(slot, start + i) for slot, start, length, _ in parts for i in range(length)]
    assert tokens[: len(rows)] == rows
    assert tokens[32 : 32 + len(of_chunks)] == of_chunks
    used = {*range(len(rows)), *range(32, 32 + len(of_chunks))}
    assert {tokens[i] for i in range(32 + 256) if i not in used} <= {(-1, 0)}

    drawn_after = rows + [(slot, start + length - 1) for slot, start, length, samples in parts if samples]
    assert list(zip(fixed.slots[places].tolist(), fixed.positions[places].tolist(), strict=True)) == drawn_after
    assert [tokens[i] for i in fixed.wanted[places].tolist()] == drawn_after
    assert set(np.delete(fixed.slots, places).tolist()) <= {-1}

    ends = np.cumsum([0, *(part[2] for part in parts)]).tolist()
    assert fixed.chunk_starts.tolist() == ends + ends[-1:] * (MAX_GRAPH_CHUNKS - len(parts))
    assert fixed.chunk_slots[: len(parts)].tolist() == [part[0] for part in parts]
    assert fixed.chunk_ends.tolist() == [part[1] + part[2] for part in parts] + [0] * (MAX_GRAPH_CHUNKS - len(parts))
    tiles = fixed.tiles[: 2 * SIZE.tiles].reshape(2, -1).T.tolist()
    wanted = [[i, first] for i, part in enumerate(parts) for first in range(0, part[2], 16)]
    assert sorted(tile for tile in tiles if tile[0] >= 0) == wanted
