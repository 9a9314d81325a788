"""What a policy takes, against what its words say, for whatever a root may hold."""

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gently_bluesky.keep.choice import Choice, choose
from gently_bluesky.keep.holdings import Holding, StoredForm, StoredVolume
from gently_bluesky.keep.policy import KeepRule, Policy, RemoveRule
from gently_bluesky.store.index import VolumeRow
from gently_bluesky.store.manifest import ManifestEntry

NOW = 100 * 86_400.0

# --- roots and policies, whatever they may be ---------------------------------------------------------------

EMBRYOS = st.sampled_from(["e1", "e2", None])
SESSIONS = st.sampled_from(["s1", "s2", None])
FORMS = ("npy", "ome-tiff", "ome-zarr")


@st.composite
def rows(draw: st.DrawFn, index: int) -> tuple[VolumeRow, ...]:
    """One row, or two where a step was read without a new trigger."""
    return tuple(
        VolumeRow("primary", 1, "cam", embryo=draw(EMBRYOS), timepoint=draw(st.sampled_from([None, 0, 1, 2, 3])))
        for _ in range(draw(st.sampled_from([1, 1, 1, 2])))
    )


@st.composite
def run_forms(draw: st.DrawFn) -> tuple[StoredForm, ...]:
    """Up to three volumes, each as .npy, as TIFF or both, and some of them together in one Zarr."""
    forms, shared = [], []
    for index in range(draw(st.integers(0, 3))):
        said = draw(rows(index))
        for kind in draw(st.lists(st.sampled_from(FORMS), min_size=1, max_size=3, unique=True)):
            hash_ = draw(st.sampled_from([f"h{index}"] * 6 + ["other", None]))
            path = "cam.zarr" if kind == "ome-zarr" else f"cam/{index}.{kind}"
            entry = ManifestEntry(resource="r", index=index, path=path, format=kind, xxh3_128=hash_)
            volume = StoredVolume(entry, said)
            if kind == "ome-zarr":
                shared.append(volume)
            else:
                forms.append(StoredForm(path, kind, draw(st.integers(1, 5)) * 10**9, (volume,)))
    if shared:
        forms.append(StoredForm("cam.zarr", "ome-zarr", 3 * 10**9, tuple(shared)))
    return tuple(forms)


@st.composite
def holdings(draw: st.DrawFn) -> list[Holding]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        start: dict[str, Any] = {"uid": f"run {number}", "time": number * 86_400.0, "session": draw(SESSIONS)}
        start |= {"plan_name": draw(st.sampled_from(["a", "b"]))}
        ended = draw(st.sampled_from([start["time"] + 3600, start["time"] + 9 * 86_400, None]))
        tags = draw(st.sampled_from([frozenset(), frozenset(), frozenset({"figure"}), frozenset({"keep"}), None]))
        children = draw(st.sampled_from([(), (), ("child",)]))
        found.append(Holding(f"runs/{number}", start, ended, draw(run_forms()), (), tags, children))
    return found


selectors = st.fixed_dictionaries(
    {}, optional={"session": st.sampled_from(["s*", "s1"]), "embryo": st.just("e1"), "plan_name": st.just("a")}
)


@st.composite
def keep_rules(draw: st.DrawFn, name: str) -> KeepRule:
    said: dict[str, Any] = draw(selectors)
    said |= draw(
        st.sampled_from(
            [{}, {"tagged": "fig*"}, {"with_children": True}, {"every_timepoint": 2}]
            + [{"newest": n, "per": per} for n in (1, 2) for per in ("session", "embryo", "plan")]
        )
    )
    return KeepRule(name=name, **said)


@st.composite
def remove_rules(draw: st.DrawFn, name: str) -> RemoveRule:
    said: dict[str, Any] = draw(selectors)
    said |= draw(
        st.sampled_from(
            [
                {"older_than_days": 0},
                {"older_than_days": 97},
                {"total_above_gb": 6},
                {"free_below_gb": 10, "older_than_days": 90},
                {"representation": "ome-tiff", "once_in": "npy"},
                {"representation": "npy", "once_in": "ome-tiff"},
                {"representation": "ome-tiff", "once_in": "ome-zarr", "older_than_days": 90},
                {"representation": "ome-zarr", "once_in": "npy"},
            ]
        )
    )
    return RemoveRule(name=name, **said)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    keep = tuple(draw(keep_rules(f"k{n}")) for n in range(draw(st.integers(0, 2))))
    return Policy(keep=keep, remove=tuple(draw(remove_rules(f"r{n}")) for n in range(draw(st.integers(1, 3)))))


# --- what the words say -------------------------------------------------------------------------------------


def everything(roots: Sequence[Holding]) -> Iterator[tuple[Holding, StoredForm]]:
    return ((run, form) for run in roots for form in run.forms)


def fits(rule: KeepRule | RemoveRule, run: Holding, row: VolumeRow) -> bool:
    session, plan = run.start["session"], run.start["plan_name"]
    return (
        (rule.session is None or (session is not None and (rule.session == "s*" or session == rule.session)))
        and (rule.plan_name is None or plan == rule.plan_name)
        and (rule.embryo is None or row.embryo == rule.embryo)
    )


def meant(rule: KeepRule, run: Holding, row: VolumeRow) -> bool:
    """Whether a keep rule means a row, but for what it says of the newest."""
    return (
        fits(rule, run, row)
        and (rule.tagged is None or "figure" in (run.tags or ()))
        and (rule.with_children is None or bool(run.children))
        and (rule.every_timepoint is None or row.timepoint in {0, 2})
    )


def is_kept(rule: KeepRule, run: Holding, row: VolumeRow, roots: Sequence[Holding]) -> bool:
    if not meant(rule, run, row):
        return False
    if rule.newest is None:
        return True

    def group(run: Holding, row: VolumeRow) -> tuple[Any, ...]:
        said = {"session": (), "plan": (run.start["plan_name"],), "embryo": (row.embryo,)}[str(rule.per)]
        return said if rule.per == "plan" else (*said, run.start["session"])

    newer = {
        other.uid
        for other, form in everything(roots)
        for volume in form.volumes
        for each in volume.rows
        if meant(rule, other, each) and group(other, each) == group(run, row) and other.uid > run.uid
    }
    return len(newer) < rule.newest


def may_go(
    policy: Policy, run: Holding, form: StoredForm, roots: Sequence[Holding], *, once_in: str | None = None
) -> bool:
    """Whether nothing protects a form from a rule."""
    ids = {volume.id for volume in form.volumes}
    same = [volume for other in run.forms for volume in other.volumes if volume.id in ids]
    return (
        run.ended is not None
        and run.tags is not None
        and "keep" not in run.tags
        and (not run.children or once_in is not None)
        and all(volume.entry.xxh3_128 for volume in form.volumes)
        and not any(
            is_kept(rule, run, row, roots) for rule in policy.keep for volume in same for row in volume.rows
        )
    )


def old_enough(rule: RemoveRule, run: Holding) -> bool:
    since = run.start["time"] if run.ended is None else run.ended
    return rule.older_than_days is None or NOW - since >= rule.older_than_days * 86_400


def names(rule: RemoveRule, run: Holding, form: StoredForm) -> bool:
    """Whether a rule names all of a form."""
    return (
        all(fits(rule, run, row) for volume in form.volumes for row in volume.rows)
        and old_enough(rule, run)
        and rule.representation in {None, form.format}
    )


def is_taken(choice: Choice, run: Holding, form: StoredForm) -> bool:
    return (run.folder, form.path) in choice.taken


@settings(max_examples=300)
@given(policies(), holdings(), st.integers(0, 12))
def test_what_goes_is_named_and_unprotected_and_what_relies_on_another_form_has_it(
    policy: Policy, roots: list[Holding], free_gb: int
) -> None:
    choice = choose(policy, roots, now=NOW, free_bytes=free_gb * 10**9)
    for run, form in everything(roots):
        rule = choice.taken.get((run.folder, form.path))
        if rule is None:
            continue
        assert names(rule, run, form)
        assert may_go(policy, run, form, roots, once_in=rule.once_in)
        if rule.once_in is not None:
            for volume in form.volumes:
                assert any(
                    other.format == rule.once_in
                    and other.path != form.path
                    and not is_taken(choice, run, other)
                    and any(v.id == volume.id and v.entry.xxh3_128 == volume.entry.xxh3_128 for v in other.volumes)
                    for other in run.forms
                )


@given(policies(), holdings())
def test_all_that_is_old_enough_goes_or_is_told_why_not(policy: Policy, roots: list[Holding]) -> None:
    choice = choose(policy, roots, now=NOW, free_bytes=0)
    assert not choice.taken.keys() & choice.kept.keys()
    assert all(why for _, why in choice.kept.values())
    by_age = [rule for rule in policy.remove if not (rule.once_in or rule.total_above_gb or rule.free_below_gb)]
    for run, form in everything(roots):
        taken = choice.taken.get((run.folder, form.path))
        if any(names(rule, run, form) for rule in by_age) and (taken is None or taken.once_in is None):
            assert is_taken(choice, run, form) is may_go(policy, run, form, roots)
            assert is_taken(choice, run, form) or (run.folder, form.path) in choice.kept


@given(policies(), holdings(), st.integers(0, 12))
def test_every_rule_says_what_it_came_to_and_what_it_wants_more(
    policy: Policy, roots: list[Holding], free_gb: int
) -> None:
    choice = choose(policy, roots, now=NOW, free_bytes=free_gb * 10**9)
    effects = {each.rule: each for each in choice.effects}
    assert list(effects) == [rule.name for rule in (*policy.keep, *policy.remove)]
    going = [form.bytes for run, form in everything(roots) if is_taken(choice, run, form)]
    stored = sum(form.bytes for _, form in everything(roots)) - sum(going)
    for keep in policy.keep:
        kept = [
            any(is_kept(keep, run, row, roots) for volume in form.volumes for row in volume.rows)
            for run, form in everything(roots)
        ]
        assert (effects[keep.name].named, effects[keep.name].kept) == (sum(kept), sum(kept))
    for rule in policy.remove:
        effect = effects[rule.name]
        assert effect.taken == sum(each == rule for each in choice.taken.values())
        assert effect.taken + effect.kept <= effect.named
        assert effect.named or not any(names(rule, run, form) for run, form in everything(roots))
        wanted = 0.0
        if rule.total_above_gb is not None:
            wanted = stored - rule.total_above_gb * 10**9
        elif rule.free_below_gb is not None:
            wanted = rule.free_below_gb * 10**9 - (free_gb * 10**9 + sum(going))
        assert effect.lacking_bytes == max(wanted, 0)


@given(st.lists(keep_rules("k"), max_size=1), selectors, holdings(), st.integers(0, 20))
def test_a_rule_about_space_takes_the_fewest_of_the_oldest_that_suffice(
    keep: list[KeepRule], said: dict[str, Any], roots: list[Holding], limit_gb: int
) -> None:
    total = sum(form.bytes for _, form in everything(roots))
    for kind in ("total_above_gb", "free_below_gb"):
        rule = RemoveRule(name="space", **{**said, kind: limit_gb})
        policy = Policy(keep=tuple(keep), remove=(rule,))
        choice = choose(policy, roots, now=NOW, free_bytes=5 * 10**9)
        order = sorted(everything(roots), key=lambda each: (each[0].ended or 1e99, each[0].folder, each[1].path))
        free, stored = 5 * 10**9, total
        expected = set()
        for run, form in order:
            enough = stored <= limit_gb * 10**9 if kind == "total_above_gb" else free >= limit_gb * 10**9
            if not enough and names(rule, run, form) and may_go(policy, run, form, roots):
                expected.add((run.folder, form.path))
                free, stored = free + form.bytes, stored - form.bytes
        assert set(choice.taken) == expected


@given(policies(), holdings(), st.integers(0, 12))
def test_every_volume_of_a_policy_of_archiving_alone_is_still_stored(
    policy: Policy, roots: list[Holding], free_gb: int
) -> None:
    archiving = Policy(keep=policy.keep, remove=tuple(rule for rule in policy.remove if rule.once_in is not None))
    choice = choose(archiving, roots, now=NOW, free_bytes=free_gb * 10**9)
    for run in roots:
        stored = {volume.id for form in run.forms for volume in form.volumes}
        left = {v.id for form in run.forms if not is_taken(choice, run, form) for v in form.volumes}
        assert left == stored
