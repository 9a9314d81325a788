"""Which stored forms a policy takes: every remove rule in turn, and what stands against it.

Works on what a root holds, in memory. A keep goes before every remove; a path that several volumes share goes only
if all of them may go; of two forms of one volume, the one that a rule relies on stays.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gently_bluesky.keep.holdings import Holding, StoredForm, StoredVolume, VolumeId, oldest_first
from gently_bluesky.keep.policy import KeepRule, Policy, RemoveRule
from gently_bluesky.store.index import VolumeRow
from gently_bluesky.store.manifest import ManifestEntry

DAY_S = 86_400.0
GB = 10**9

Key = tuple[str, str]
"""A stored form: folder of the run, path in it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one rule came to, in stored forms.

    Attributes
    ----------
    rule, kind
        Its name, and whether it is a "keep" or a "remove".
    named
        How many it names; of a keep: how many it protects.
    taken
        How many of them go by it; 0 for a keep.
    kept
        How many of them stay, whatever for.
    lacking_bytes
        How much more was to go, or to be free, though nothing else may go; 0 where enough goes.
    """

    rule: str
    kind: Literal["keep", "remove"]
    named: int
    taken: int
    kept: int
    lacking_bytes: int = 0


@dataclass(slots=True)
class Choice:
    """What goes, by which rule; what stays although a rule names it: by which rule, and why.

    `effects` says what every rule came to, in the order of the policy, keeps first.
    """

    taken: dict[Key, RemoveRule] = field(default_factory=dict)
    kept: dict[Key, tuple[RemoveRule, str]] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()


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
    choice = choosing.settled()
    rules: tuple[KeepRule | RemoveRule, ...] = (*policy.keep, *policy.remove)
    choice.effects = tuple(map(choosing.effect, rules))
    return choice


class _Choosing:
    def __init__(self, policy: Policy, holdings: Sequence[Holding], now: float, free_bytes: int) -> None:
        self._forms = list(oldest_first(holdings))
        self._named: defaultdict[str, set[Key]] = defaultdict(set)
        self._kept_volumes: dict[tuple[str, VolumeId], KeepRule] = {}
        for keep in policy.keep:
            for holding, volume in kept_by(keep, holdings):
                self._named[keep.name].add((holding.folder, volume.entry.path))
                self._kept_volumes.setdefault((holding.folder, volume.id), keep)  # the first rule that says so
        self._now = now
        self._stored_bytes = sum(form.bytes for _, form in self._forms)
        self._free_bytes = free_bytes
        self._choice = Choice()
        self._by_volume: defaultdict[tuple[str, VolumeId], list[tuple[StoredForm, ManifestEntry]]] = defaultdict(
            list
        )
        for holding, form in self._forms if any(rule.once_in for rule in policy.remove) else ():
            for volume in form.volumes:
                self._by_volume[holding.folder, volume.id].append((form, volume.entry))

    def apply(self, rule: RemoveRule) -> None:
        taken, kept = self._choice.taken, self._choice.kept
        for holding, form in self._forms:
            key = holding.folder, form.path
            if not self._names(rule, holding, form):
                continue
            self._named[rule.name].add(key)
            if (key in taken and taken[key].once_in is None) or self._lacking(rule) == 0:
                continue
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

    def _lacking(self, rule: RemoveRule) -> float | None:
        """Give how many bytes more a rule about space wants to go; None for any other."""
        if rule.total_above_gb is not None:
            return max(self._stored_bytes - rule.total_above_gb * GB, 0)
        return None if rule.free_below_gb is None else max(rule.free_below_gb * GB - self._free_bytes, 0)

    def _why_not(self, rule: RemoveRule, holding: Holding, form: StoredForm) -> str:
        if why := holding.must_stay or ("" if rule.once_in else holding.has_children):
            return why
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
                self._stored_bytes += form.bytes
                self._free_bytes -= form.bytes
                choice.kept[key] = rule, f"its form as {rule.once_in} goes by another rule"
        for key in choice.kept.keys() & choice.taken.keys():
            del choice.kept[key]
        return choice

    def effect(self, rule: KeepRule | RemoveRule) -> Effect:
        """Give what a rule came to, once all is settled."""
        named, gone = self._named[rule.name], self._choice.taken
        kept = len(named - gone.keys())
        if isinstance(rule, KeepRule):
            return Effect(rule.name, "keep", len(named), 0, kept)
        taken = sum(gone[key].name == rule.name for key in named & gone.keys())
        return Effect(rule.name, "remove", len(named), taken, kept, math.ceil(self._lacking(rule) or 0))


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


def kept_by(rule: KeepRule, holdings: Sequence[Holding]) -> Iterator[tuple[Holding, StoredVolume]]:
    """Give the volumes that a rule keeps, in each of their stored forms."""
    named: Iterable[_Row] = _named_volumes(rule, holdings)
    if rule.newest is not None:
        named = _newest(rule, list(named))
    return ((holding, volume) for holding, volume, _ in named)


_Row = tuple[Holding, StoredVolume, VolumeRow]


def _named_volumes(rule: KeepRule, holdings: Sequence[Holding]) -> Iterator[_Row]:
    for holding in holdings:
        if not rule.fits_run(holding.start) or not is_run_meant(rule, holding):
            continue
        for form in holding.forms:
            for volume in form.volumes:
                for row in volume.rows:
                    if rule.fits_volume(row) and _is_timepoint_meant(rule, row):
                        yield holding, volume, row


def is_run_meant(rule: KeepRule, holding: Holding) -> bool:
    """Whether a run is one that a rule keeps, by its tags and its children."""
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
