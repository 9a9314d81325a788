"""Which stored forms a policy takes: every remove rule in turn, and what stands against it.

Works on what a root holds, in memory. A keep goes before every remove; a path that several volumes share goes only
if all of them may go; of two forms of one volume, the one that a rule relies on stays.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gently_bluesky.keep.holdings import Holding, StoredForm, StoredVolume, VolumeId, oldest_first
from gently_bluesky.keep.policy import KeepRule, Policy, RemoveRule
from gently_bluesky.store.index import VolumeRow
from gently_bluesky.store.manifest import ManifestEntry

DAY_S = 86_400.0
GB = 10**9

Key = tuple[str, str]
"""A stored form: folder of the run, path in it."""


@dataclass(slots=True)
class Choice:
    """What goes, by which rule, and what stays although a rule names it: by which rule, and why."""

    taken: dict[Key, RemoveRule] = field(default_factory=dict)
    kept: dict[Key, tuple[RemoveRule, str]] = field(default_factory=dict)


def choose(policy: Policy, holdings: Sequence[Holding], *, now: float, free_bytes: int) -> Choice:
    """Give what a policy takes of what a root holds.

    Parameters
    ----------
    policy, holdings
        The rules, and all runs.
    now
        Seconds since the epoch.
    free_bytes
        What will be free on the disk once the trash is empty.
    """
    choosing = _Choosing(policy, holdings, now, free_bytes)
    # one of two forms costs nothing to give away: those rules first, so that the others need to take less
    for rule in sorted(policy.remove, key=lambda rule: rule.once_in is None):
        choosing.apply(rule)
    return choosing.settled()


class _Choosing:
    def __init__(self, policy: Policy, holdings: Sequence[Holding], now: float, free_bytes: int) -> None:
        self._forms = list(oldest_first(holdings))
        self._kept_volumes = protected_volumes(policy.keep, holdings)
        self._now = now
        self._stored_bytes = sum(form.bytes for _, form in self._forms)
        self._free_bytes = free_bytes
        self._choice = Choice()
        self._by_volume: defaultdict[tuple[str, VolumeId], list[tuple[StoredForm, ManifestEntry]]] = defaultdict(
            list
        )
        for holding, form in self._forms:
            for volume in form.volumes:
                self._by_volume[holding.folder, volume.id].append((form, volume.entry))

    def apply(self, rule: RemoveRule) -> None:
        taken, kept = self._choice.taken, self._choice.kept
        for holding, form in self._forms:
            key = holding.folder, form.path
            if key in taken and taken[key].once_in is None:
                continue
            if not self._names(rule, holding, form):
                continue
            if self._enough(rule):
                return
            why = self._why_not(rule, holding, form)
            if why:
                kept.setdefault(key, (rule, why))
                continue
            if key not in taken:
                self._stored_bytes -= form.bytes
                self._free_bytes += form.bytes
            if key not in taken or rule.once_in is None:
                taken[key] = rule

    def _names(self, rule: RemoveRule, holding: Holding, form: StoredForm) -> bool:
        if rule.representation not in {None, form.format} or not rule.fits_run(holding.start):
            return False
        if rule.older_than_days is not None and age_s(holding, self._now) < rule.older_than_days * DAY_S:
            return False
        return any(_fits(rule, volume) for volume in form.volumes)

    def _enough(self, rule: RemoveRule) -> bool:
        if rule.total_above_gb is not None:
            return self._stored_bytes <= rule.total_above_gb * GB
        return rule.free_below_gb is not None and self._free_bytes >= rule.free_below_gb * GB

    def _why_not(self, rule: RemoveRule, holding: Holding, form: StoredForm) -> str:
        if holding.must_stay:
            return holding.must_stay
        for volume in form.volumes:
            keeping = self._kept_volumes.get((holding.folder, volume.id))
            if keeping is not None:
                return f"rule {keeping.name!r} keeps it"
        fitting = sum(_fits(rule, volume) for volume in form.volumes)
        if fitting < len(form.volumes):
            return f"the rule names {fitting} of the {len(form.volumes)} volumes in it"
        if rule.once_in is not None and not all(
            self._stands_elsewhere(holding, volume, rule.once_in) for volume in form.volumes
        ):
            return f"not every volume in it is stored as {rule.once_in}, too"
        if any(volume.entry.state == "aborted" for volume in form.volumes):
            return "it was given up while it was taken: by hand only"
        unverifiable = any(volume.entry.xxh3_128 is None for volume in form.volumes)
        return "it has no hash to be verified with" if unverifiable else ""

    def _stands_elsewhere(self, holding: Holding, volume: StoredVolume, other: str) -> bool:
        return any(
            is_same_volume(volume.entry, entry, other) and (holding.folder, form.path) not in self._choice.taken
            for form, entry in self._by_volume[holding.folder, volume.id]
        )

    def settled(self) -> Choice:
        """Give the choice, without forms whose other form was taken by a later rule."""
        choice = self._choice
        for holding, form in self._forms:
            key = holding.folder, form.path
            rule = choice.taken.get(key)
            if rule is None or rule.once_in is None:
                continue
            if not all(self._stands_elsewhere(holding, volume, rule.once_in) for volume in form.volumes):
                del choice.taken[key]
                choice.kept[key] = rule, f"its form as {rule.once_in} goes by another rule"
        for key in choice.kept.keys() & choice.taken.keys():
            del choice.kept[key]
        return choice


def age_s(holding: Holding, now: float) -> float:
    """Give how long ago a run ended, or, if it has not, began."""
    return now - (float(holding.start["time"]) if holding.ended is None else holding.ended)


def is_same_volume(entry: ManifestEntry, other: ManifestEntry, other_format: str) -> bool:
    """Whether `other` stores the pixels of `entry`, whole and in another format."""
    return (
        other.format == other_format
        and other.state == "sealed"
        and other.xxh3_128 == entry.xxh3_128 is not None
        and (other.resource, other.index) == (entry.resource, entry.index)
        and other.path != entry.path
    )


def _fits(rule: RemoveRule, volume: StoredVolume) -> bool:
    return all(rule.fits_volume(row) for row in volume.rows)


# --- what must stay -----------------------------------------------------------------------------------------


def protected_volumes(
    rules: Sequence[KeepRule], holdings: Sequence[Holding]
) -> dict[tuple[str, VolumeId], KeepRule]:
    """Give the volumes that must stay, by folder and id, each with the first rule that says so."""
    kept: dict[tuple[str, VolumeId], KeepRule] = {}
    for rule in rules:
        named = list(_named_volumes(rule, holdings))
        if rule.newest is not None:
            named = list(_newest(rule, named))
        for holding, volume, _ in named:
            kept.setdefault((holding.folder, volume.id), rule)
    return kept


_Row = tuple[Holding, StoredVolume, VolumeRow]


def _named_volumes(rule: KeepRule, holdings: Sequence[Holding]) -> Iterator[_Row]:
    for holding in holdings:
        if not rule.fits_run(holding.start) or not _is_run_meant(rule, holding):
            continue
        for form in holding.forms:
            for volume in form.volumes:
                for row in volume.rows:
                    if rule.fits_volume(row) and _is_timepoint_meant(rule, row):
                        yield holding, volume, row


def _is_run_meant(rule: KeepRule, holding: Holding) -> bool:
    if rule.with_children and not holding.children:
        return False
    return rule.tagged is None or any(rule.fits_tag(tag) for tag in holding.tags or ())


def _is_timepoint_meant(rule: KeepRule, row: VolumeRow) -> bool:
    every = rule.every_timepoint
    return every is None or (isinstance(row.timepoint, int | float) and row.timepoint % every == 0)


def _newest(rule: KeepRule, named: Sequence[_Row]) -> Iterator[_Row]:
    runs: defaultdict[object, dict[str, float]] = defaultdict(dict)
    for holding, _, row in named:
        runs[_group(rule, holding, row)][holding.folder] = float(holding.start["time"])
    newest = {
        group: set(sorted(folders, key=lambda folder: (folders[folder], folder))[-(rule.newest or 0) :])
        for group, folders in runs.items()
    }
    return (each for each in named if each[0].folder in newest[_group(rule, each[0], each[2])])


def _group(rule: KeepRule, holding: Holding, row: VolumeRow) -> object:
    session = str(holding.start.get("session"))
    groups = {
        "session": session,
        "plan": str(holding.start.get("plan_name")),
        "embryo": (session, str(row.embryo)),
    }
    return groups[str(rule.per)]
