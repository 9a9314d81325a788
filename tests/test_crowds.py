"""Many processes with one root: nobody ever reads a wrong pixel or a torn document, and everything is there."""

import contextlib
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky import Catalog
from gently_bluesky.store.formats import FORMATS
from gently_bluesky.store.index import read_index
from gently_bluesky.store.tags import read_tags
from tests.conftest import Campaign
from tests.durability_rig import hold_index, hold_root, hold_verified
from tests.zygote import Child, Zygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")

LIFETIME_S = 1200
LONG = [pytest.mark.long, pytest.mark.timeout(1800)]


def results(children: list[Child], seconds: float) -> list[Any]:
    """What each returned; all by one deadline."""
    until = time.monotonic() + seconds
    return [child.result(until - time.monotonic()) for child in children]


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("operations", [100, pytest.param(1000, marks=LONG)])
def test_readers_beside_a_writer_and_housekeeping_never_see_anything_wrong(
    operations: int, image_format: str, root: Path, zygote: Zygote, campaign: Campaign
) -> None:
    rig = "tests.durability_rig"
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"lifetime_s": LIFETIME_S, "root": str(root), "image_format": image_format}
        writing = stack.enter_context(zygote.fork(f"{rig}:keep_writing", **options))
        assert writing.listen(word="first")
        readers = [
            stack.enter_context(
                zygote.fork(
                    f"{rig}:keep_reading", lifetime_s=LIFETIME_S, root=str(root), seed=seed, operations=operations
                )
            )
            for seed in range(8)
        ]
        house = stack.enter_context(
            zygote.fork(f"{rig}:keep_house", lifetime_s=LIFETIME_S, root=str(root), seed=8)
        )
        done: Counter[str] = Counter()
        for each in results(readers, LIFETIME_S):
            done.update(each)
        house.tell()
        assert house.result(LIFETIME_S)
        writing.tell()
        events = writing.result()
    assert done["plane"] > done["StreamNotFoundError"] + done["RunNotFoundError"], done
    held = hold_root(root, ())
    hold_index(root)
    hold_verified(root)
    assert held.events == events
    campaign.count("crowds of readers", reads=done.total(), events=held.events, volumes=held.volumes, lost=0)


@pytest.mark.parametrize("many", [6, pytest.param(60, marks=LONG)])
def test_processes_that_add_runs_and_tag_those_of_others_lose_no_run_and_no_tag(
    many: int, root: Path, zygote: Zygote, campaign: Campaign
) -> None:
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                zygote.fork(
                    "tests.durability_rig:write_and_tag",
                    lifetime_s=LIFETIME_S,
                    root=str(root),
                    me=f"writer{n}",
                    many=many,
                    image_format=[*FORMATS][n % 2],
                )
            )
            for n in range(4)
        ]
        said = [pair for result in results(children, LIFETIME_S) for pair in result]
    tags = {run.uid: read_tags(run.folder) for run in Catalog(root)}
    assert len(tags) == 4 * many
    lost = [(uid, tag) for uid, tag in said if tag not in tags[uid]]
    assert not lost
    assert sum(map(len, tags.values())) == len(said)
    held = hold_root(root, ())
    hold_index(root)
    assert len(read_index(root)) == 4 * many
    hold_verified(root)
    campaign.count("crowds of writers", runs=len(tags), tags=len(said), events=held.events, lost=len(lost))
