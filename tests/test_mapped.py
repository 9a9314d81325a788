"""Parts of mapped files that are asked of the disk at once: the right bytes, and nothing but them."""

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gently_bluesky.store import mapped
from gently_bluesky.store.disk import forget_pages
from tests.data_rig import DEADLINE_S

SHAPE = (4, 9, 10)


def slices(size: int) -> st.SearchStrategy[slice]:
    return st.slices(size)


@given(st.tuples(*map(slices, SHAPE)), st.integers(0, 300), st.permutations(range(3)))
def test_runs_hold_every_byte_of_a_part_and_end_with_it(index: Any, near: int, axes: list[int]) -> None:
    whole = np.zeros(SHAPE, "<u2")
    part = whole[index].transpose(axes)
    if not part.size:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "_NEAR_BYTES", near)
        length, places = mapped.runs(part)
    offsets = [
        sum(at * stride for at, stride in zip(place, part.strides, strict=True))
        for place in itertools.product(*map(range, part.shape))
    ]
    touched = {offset - min(offsets) + byte for offset in offsets for byte in range(part.itemsize)}
    told = {int(place) + byte for place in places for byte in range(length)}
    assert touched <= told
    assert max(touched) == max(told)
    assert min(told) == 0


def is_in_memory(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whether a page is in memory")
@pytest.mark.parametrize("backwards", [1, -1])
def test_a_plane_along_y_comes_into_memory_row_by_row_without_being_looked_at(
    tmp_path: Path, backwards: int
) -> None:
    planes, side = 8, 512
    path = tmp_path / "volume"
    np.zeros((planes, side, side), "<u2").tofile(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
        forget_pages(path)
        rows = [(z * side + 300) * side * 2 for z in range(planes)]
        if any(is_in_memory(descriptor, row) for row in rows):
            pytest.skip("this file system keeps its files in memory")
        mapped.fetch(np.memmap(path, "<u2", "r", 0, (planes, side, side))[::backwards, 300])
        until = time.monotonic() + DEADLINE_S
        while not all(is_in_memory(descriptor, row) for row in rows):
            assert time.monotonic() < until
    finally:
        os.close(descriptor)


def test_what_is_not_mapped_is_left_alone() -> None:
    mapped.fetch(np.zeros((4, 300, 300)))
    mapped.fetch(np.zeros((0, 3)))
