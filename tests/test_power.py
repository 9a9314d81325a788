"""A power cut at any instant, on real file systems: every journalled event has its pixels, and is there.

The file system is shut down under the acquisition, so that only what was synced survives, and mounted again.
"""

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky.store.formats import FORMATS
from tests.conftest import Campaign, SmallDisk
from tests.durability_rig import SCENARIOS, begun
from tests.zygote import Zygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="loop devices and their shutdown are Linux's")

LONG = [pytest.mark.long, pytest.mark.timeout(1800)]
MEGABYTES = {"ext4": 48, "xfs": 320}  # mkfs.xfs makes none below 300


def cut(
    zygote: Zygote, disk: SmallDisk, scenario: str, root: Path, instant_s: float, **options: Any
) -> list[list[Any]]:
    """Cut the power of a scenario some time after it has begun; give what it had acknowledged by then.

    What it says while the file system is being shut down does not count: XFS lets some syncs succeed then that did
    nothing (of bare writes with a sync after each, one in sixteen cuts). Real cuts stop the processor as well.
    """
    with begun(zygote, scenario, root, **options) as child:
        child.listen(instant_s)
        said = child.heard("acknowledged")
        disk.cut_power()
    disk.unmount()
    disk.mount()
    return said


@pytest.mark.parametrize("cuts", [4, pytest.param(160, marks=LONG)])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_after_a_power_cut_every_journalled_event_has_its_pixels_and_every_acknowledged_one_is_journalled(
    kind: str,
    cuts: int,
    make_disk: Callable[..., SmallDisk],
    tmp_path: Path,
    zygote: Zygote,
    measure: Callable[..., Any],
    campaign: Campaign,
) -> None:
    disk, seed = make_disk(kind, MEGABYTES[kind]), random.Random(f"{kind} {cuts}")
    for number, scenario in zip(range(cuts), [*SCENARIOS] * cuts, strict=False):
        options: dict[str, Any] = {"salvage": seed.choice(["beside", "event"])}
        # each scenario in one format, and the next time in the other; on the two file systems the other way round
        turn = (number + number // len(SCENARIOS) + (kind == "xfs")) % 2
        options["image_format"] = [*FORMATS][turn]
        instant = seed.uniform(0, measure(scenario, disk.path, **options).seconds)
        root = disk.path / f"root{number}"
        (tmp_path / "acknowledged").write_text(
            json.dumps(cut(zygote, disk, scenario, root, instant, **options)), "utf-8"
        )
        try:
            events, volumes, files = zygote.call(
                "tests.durability_rig:hold_after_cut", root=str(root), acknowledged=str(tmp_path / "acknowledged")
            )
        except BaseException as error:
            error.add_note(f"trial {number}: {scenario} {options} on {kind}, cut after {instant:.4f} s")
            raise
        name = f"power cuts ({kind}, {options['image_format']})"
        campaign.count(name, states=1, events=events, volumes=volumes, files=files, lost=0)
        shutil.rmtree(root)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("unsynced", ["everything", "pixels", "lines"])
@pytest.mark.parametrize("kind", ["ext4", pytest.param("xfs", marks=LONG)])
def test_without_the_syncing_a_power_cut_is_seen_to_lose_what_was_acknowledged(
    kind: str,
    unsynced: str,
    image_format: str,
    make_disk: Callable[..., SmallDisk],
    tmp_path: Path,
    zygote: Zygote,
    campaign: Campaign,
) -> None:
    """The test above can see a loss."""
    disk = make_disk(kind, MEGABYTES[kind])
    for number in range(12):
        root = disk.path / f"root{number}"
        said = cut(zygote, disk, "streamed", root, 60, unsynced=unsynced, image_format=image_format)
        (tmp_path / "acknowledged").write_text(json.dumps(said), "utf-8")
        campaign.count("power cuts without syncing", states=1)
        try:
            zygote.call(
                "tests.durability_rig:hold_after_cut", root=str(root), acknowledged=str(tmp_path / "acknowledged")
            )
        except AssertionError:
            return
    pytest.fail(f"with {unsynced} not synced, 12 power cuts lost nothing")
