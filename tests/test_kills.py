"""SIGKILL at any instant of anything that changes a root: nothing that was acknowledged is lost."""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky.store.formats import FORMATS
from tests.conftest import Campaign
from tests.durability_rig import (
    SCENARIOS,
    Measured,
    any_kill,
    hold_recovered,
    hold_root,
    kill_at,
    kill_inside,
)
from tests.zygote import Zygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc which file is written")

Measure = Callable[..., Measured]

LONG = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("kills", [2, pytest.param(43, marks=LONG)])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_is_killed_loses_nothing_that_was_acknowledged(
    scenario: str,
    kills: int,
    image_format: str,
    root: Path,
    zygote: Zygote,
    measure: Measure,
    campaign: Campaign,
) -> None:
    seed = random.Random(f"{scenario} {kills} {image_format}")
    killed = 0
    for number in range(kills):
        options: dict[str, Any] = {
            "durability": seed.choice(["event", "event", "run"]),
            "salvage": seed.choice(["beside", "event"]),
            "image_format": image_format,
        }
        whole = measure(scenario, **options)
        if number % 2:
            ending = kill_inside(zygote, scenario, root, any_kill(seed, whole), **options)
        else:
            ending = kill_at(zygote, scenario, root, seed.uniform(0, whole.seconds), **options)
        try:
            hold_root(root, ending.acknowledged)
            held = hold_recovered(root, ending.acknowledged)
        except BaseException as error:
            error.add_note(f"trial {number}: {ending.how}")
            raise
        killed += ending.killed
        campaign.count(f"kills ({image_format})", states=1, events=held.events, volumes=held.volumes, lost=0)
        shutil.rmtree(root, ignore_errors=True)
    assert killed or kills < 10, "nothing was killed"
