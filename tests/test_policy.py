"""What a retention policy may say, and how it is told what it may not."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gently_bluesky.errors import ConfigError
from gently_bluesky.keep.policy import KeepRule, Policy, RemoveRule, check_policy, load_policy
from gently_bluesky.store.index import VolumeRow

EXAMPLE = Path(__file__).parent.parent / "profiles" / "dispim" / "retention.toml"


def policy(text: str) -> Policy:
    return check_policy(tomllib.loads(text), source="retention.toml")


def test_an_empty_policy_removes_nothing_and_has_two_weeks_of_grace() -> None:
    assert policy("") == Policy(grace_days=14.0, keep=(), remove=())


def test_the_example_of_the_profile_has_nothing_active() -> None:
    assert load_policy(EXAMPLE) == Policy()


def test_every_line_of_the_example_means_something_once_its_hash_is_taken_away() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    active = [line.removeprefix("# ") for line in lines if re.match(r"# (\[\[|\w+ = )", line)]
    said = policy("\n".join(active))
    assert said.keep
    assert said.remove
    used = {key for rule in (*said.keep, *said.remove) for key in rule.model_fields_set}
    assert {"tagged", "newest", "per", "every_timepoint", "older_than_days", "free_below_gb", "once_in"} <= used


def test_rules_are_read_in_the_order_of_the_file() -> None:
    said = policy(
        """
        grace_days = 3
        [[keep]]
        name = "thin"
        session = "2026-*"
        every_timepoint = 10
        [[remove]]
        name = "b"
        purpose = "alignment"
        older_than_days = 30
        [[remove]]
        name = "a"
        free_below_gb = 500
        """
    )
    assert said.grace_days == 3
    assert said.keep == (KeepRule(name="thin", session="2026-*", every_timepoint=10),)
    assert [rule.name for rule in said.remove] == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grace = 3", "retention.toml: grace: no such key; allowed are grace_days, keep, remove"),
        ("grace_days = -1", "retention.toml: grace_days: input should be greater than or equal to 0, not -1"),
        ('grace_days = "14"', "retention.toml: grace_days: input should be a valid number, not '14'"),
        (
            '[[remove]]\nname = "old"\nolder_than = 3',
            "retention.toml: [[remove]] 'old': older_than: no such key; allowed are name, plan_name, session",
        ),
        ('[[keep]]\nname = "k"\nolder_than_days = 3', "[[keep]] 'k': older_than_days: no such key"),
        ("[[remove]]\nolder_than_days = 3", "[[remove]] number 1: name: field required"),
        ('[[remove]]\nname = ""\nolder_than_days = 3', "[[remove]] number 1: name: string should have at least 1"),
        ('[[remove]]\nname = "x"', "[[remove]] 'x': says what may go, and not when: older_than_days (0: at once)"),
        ('[[remove]]\nname = "x"\nolder_than_days = true', "'x': older_than_days: input should be a valid number"),
        ('[[remove]]\nname = "x"\nolder_than_days = nan', "'x': older_than_days: input should be a finite number"),
        ('[[remove]]\nname = "x"\nrepresentation = "ome-tiff"', "representation and once_in go together"),
        ('[[remove]]\nname = "x"\nrepresentation = "npy"\nonce_in = "npy"', "must be two forms"),
        ('[[remove]]\nname = "x"\ntotal_above_gb = 1\nfree_below_gb = 1', "are two rules"),
        ('[[keep]]\nname = "x"\nnewest = 3', 'newest and per go together, as in newest = 3 and per = "embryo"'),
        ('[[keep]]\nname = "x"\nnewest = 0\nper = "plan"', "newest: input should be greater than or equal to 1"),
        ('[[keep]]\nname = "x"\nnewest = 1\nper = "day"', "per: input should be 'session', 'embryo' or 'plan'"),
        ('[[keep]]\nname = "x"\nevery_timepoint = 2.5', "every_timepoint: input should be a valid integer"),
        ('[[keep]]\nname = "x"\n[[remove]]\nname = "x"\nolder_than_days = 1', "several rules are called 'x'"),
        ("remove = 3", "retention.toml: remove: input should be a valid tuple, not 3"),
        ("[remove]\nname = 'x'", "retention.toml: [remove] is one table; rules are a list: write [[remove]]"),
        ("[keep]", "retention.toml: [keep] is one table; rules are a list: write [[keep]]"),
        ("remove = [3]", "retention.toml: [[remove]] number 1: input should be a valid dictionary"),
    ],
)
def test_what_a_policy_may_not_say_is_named_by_file_rule_and_key(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        policy(text)


def test_every_wrong_key_gets_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        policy('grace = 1\n[[remove]]\nname = "x"\nolder_than_days = -2\nage = 3')
    assert len(str(caught.value).splitlines()) == 3


def test_a_policy_that_is_not_there_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_policy(tmp_path / "nowhere.toml")
    (tmp_path / "p.toml").write_text("[[remove]\n")
    with pytest.raises(ConfigError, match=r"p\.toml: is not TOML"):
        load_policy(tmp_path / "p.toml")
    (tmp_path / "p.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"p\.toml: is not TOML"):
        load_policy(tmp_path / "p.toml")


@pytest.mark.parametrize(
    ("selector", "start", "fits"),
    [
        ({}, {}, True),
        ({"session": "2026-*"}, {"session": "2026-11-23"}, True),
        ({"session": "2026-*"}, {"session": "2027-11-23"}, False),
        ({"session": "*"}, {}, False),
        ({"session": "S"}, {"session": "s"}, False),
        (
            {"plan_name": "acquire_?olume", "operator": "[a-c]*"},
            {"plan_name": "acquire_volume", "operator": "b"},
            True,
        ),
        (
            {"plan_name": "acquire_?olume", "operator": "[a-c]*"},
            {"plan_name": "acquire_volume", "operator": "d"},
            False,
        ),
        ({"purpose": "7"}, {"purpose": 7}, True),
    ],
)
def test_all_selectors_of_a_run_must_match(selector: dict[str, Any], start: dict[str, Any], fits: bool) -> None:
    assert KeepRule(name="k", **selector).fits_run(start) is fits


def test_all_selectors_of_a_volume_must_match_and_what_is_not_known_matches_nothing() -> None:
    row = VolumeRow("primary", 1, "spim_a", embryo="e1", view="A", channel="488 only")
    assert RemoveRule(name="r", older_than_days=0, embryo="e*", view="A", channel="488*").fits_volume(row)
    assert not RemoveRule(name="r", older_than_days=0, embryo="e*", view="B").fits_volume(row)
    assert not KeepRule(name="r", embryo="*").fits_volume(VolumeRow("primary", 1, "spim_a"))
    assert KeepRule(name="r", data_key="spim_?").fits_volume(row)
