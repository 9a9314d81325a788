"""What a policy would remove from a root, said before anything is done; and doing it.

`plan_retention` reads and changes nothing. `apply` does what a plan says, as far as it still holds when its turn
comes: each file is verified right before, and what cannot be removed stays and is named. The acts themselves are
in `trash`.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from gently_bluesky.errors import JournalError, RunLockedError, RunNotFoundError
from gently_bluesky.keep.acts import finish_interrupted
from gently_bluesky.keep.choice import DAY_S, Effect, Key, age_s, choose, is_run_meant
from gently_bluesky.keep.holdings import Holding, StoredForm, Unreadable, children_of, held_by_tags, read_holdings
from gently_bluesky.keep.policy import KeepRule, Policy
from gently_bluesky.keep.stored import StoredFiles
from gently_bluesky.keep.trash import Deleted, Named, delete_expired, into_trash
from gently_bluesky.store.disk import free_bytes
from gently_bluesky.store.index import RootIndex
from gently_bluesky.store.layout import open_root
from gently_bluesky.store.tags import login_name


@dataclass(frozen=True, slots=True)
class Stored:
    """One path in a run folder.

    Attributes
    ----------
    run, scan_id, plan_name, session, purpose, folder
        Whose; "" where its start does not say, folder relative to the root.
    embryos
        What it shows, as far as that is known.
    path, format, bytes
        Where in the folder, what, and how much it takes.
    volumes
        Data key and index of each volume in it.
    age_days
        Since the run ended, or, if it has not, began.
    """

    run: str
    scan_id: object
    plan_name: str
    session: str
    purpose: str
    folder: str
    embryos: tuple[str, ...]
    path: str
    format: str
    bytes: int
    volumes: tuple[tuple[str, int | None], ...]
    age_days: float


@dataclass(frozen=True, slots=True)
class Removal(Stored):
    """What goes, by the name of the rule that says so; `once_in`: because it is stored in this form, too."""

    rule: str
    once_in: str | None = None


@dataclass(frozen=True, slots=True)
class Kept(Stored):
    """What stays although a rule names it, and why."""

    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class InTrash:
    """What is in the trash already: whose it is, by which rule, and until when (seconds since the epoch).

    `held` says why it is not deleted then; "" if it is.
    """

    run: str
    scan_id: object
    plan_name: str
    session: str
    purpose: str
    folder: str
    embryos: tuple[str, ...]
    path: str
    bytes: int
    rule: str
    by: str
    time: float
    until: float
    held: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy does to a root, if it is applied.

    Attributes
    ----------
    root, now, grace_days
        Of what, when, and how long it will stay in the trash.
    removals, kept, trash, unreadable
        What goes; what stays although a rule names it; what went before; runs whose manifests are damaged.
    bytes_before, bytes_after
        What the runs' files take, the trash not counted.
    effects
        What each rule came to.
    """

    root: Path
    now: float
    grace_days: float
    removals: tuple[Removal, ...]
    kept: tuple[Kept, ...]
    trash: tuple[InTrash, ...]
    unreadable: tuple[Unreadable, ...]
    bytes_before: int
    bytes_after: int
    effects: tuple[Effect, ...] = ()

    @property
    def expired(self) -> tuple[InTrash, ...]:
        """What will be deleted from the trash."""
        return tuple(each for each in self.trash if each.until <= self.now and not each.held)


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done: into the trash, not removed after all and why, deleted from the trash."""

    removed: tuple[Removal, ...]
    kept: tuple[Kept, ...]
    deleted: tuple[Deleted, ...]


def plan_retention(
    root: Path | str,
    policy: Policy,
    *,
    now: float | None = None,
    free: Callable[[Path], int] = free_bytes,
) -> Plan:
    """Give what a policy would do to a root; nothing is changed, no pixel is read.

    Parameters
    ----------
    root
        A root.
    policy
        What may go and what must stay.
    now
        Seconds since the epoch; None: now.
    free
        Gives how many bytes are free where a path lies.

    Raises
    ------
    RootError
        It is no root.
    """
    root, _ = open_root(Path(root))
    moment = time.time() if now is None else now
    holdings, unreadable = read_holdings(root, partial(_is_measured, policy))
    trash = tuple(_in_trash(holdings, policy.keep))
    choice = choose(policy, holdings, now=moment, free_bytes=free(root) + sum(each.bytes for each in trash))
    stored = {(holding.folder, form.path): (holding, form) for holding in holdings for form in holding.forms}
    removals = tuple(
        Removal(**_facts(*stored[key], moment), rule=rule.name, once_in=rule.once_in)
        for key, rule in choice.taken.items()
    )
    kept = tuple(
        Kept(**_facts(*stored[key], moment), rule=rule.name, why=why) for key, (rule, why) in choice.kept.items()
    )
    before = sum(form.bytes for _, form in stored.values())
    return Plan(
        root=root,
        now=moment,
        grace_days=policy.grace_days,
        removals=tuple(sorted(removals, key=_place)),
        kept=tuple(sorted(kept, key=_place)),
        trash=trash,
        unreadable=tuple(unreadable),
        bytes_before=before,
        bytes_after=before - sum(each.bytes for each in removals),
        effects=choice.effects,
    )


def _is_measured(policy: Policy, start: Mapping[str, Any]) -> bool:
    return any(rule.total_above_gb is not None or rule.fits_run(start) for rule in policy.remove)


def _place(each: Stored) -> Key:
    return each.folder, each.path


def _facts(holding: Holding, form: StoredForm, now: float) -> dict[str, Any]:
    return {
        **_whose(holding),
        "embryos": form.embryos,
        "path": form.path,
        "format": form.format,
        "bytes": form.bytes,
        "volumes": form.volume_ids,
        "age_days": age_s(holding, now) / DAY_S,
    }


def _whose(holding: Holding) -> dict[str, Any]:
    said = {key: str(holding.start.get(key) or "") for key in ("plan_name", "session", "purpose")}
    return {"run": holding.uid, "scan_id": holding.start.get("scan_id"), "folder": holding.folder, **said}


def _in_trash(holdings: Sequence[Holding], keep: Sequence[KeepRule]) -> list[InTrash]:
    return [
        InTrash(
            **_whose(holding),
            embryos=each.embryos,
            path=each.path,
            bytes=each.bytes,
            rule=each.how.rule,
            by=each.how.by,
            time=each.how.time,
            until=each.how.until,
            held=held_by_tags(holding.tags) or _held_by_rule(holding, keep),
        )
        for holding in holdings
        for each in holding.trashed
    ]


def _held_by_rule(holding: Holding, keep: Sequence[KeepRule]) -> str:
    """Give the rule that keeps a run by its tags: one that was tagged while it was in the trash is not deleted."""
    rules = (rule for rule in keep if rule.tagged is not None and rule.fits_run(holding.start))
    return next((f"rule {rule.name!r} keeps it" for rule in rules if is_run_meant(rule, holding)), "")


def apply(plan: Plan, *, by: str | None = None, now: float | None = None) -> Applied:
    """Do what a plan says.

    Each file is compared with its hash right before it goes into the trash; what is not good, whose run is locked,
    or which came to be kept meanwhile, stays and is named. What is in the trash for longer than its grace is
    deleted. An act that was interrupted before is brought to its end first. Doing it twice changes nothing.

    Parameters
    ----------
    plan
        From `plan_retention`.
    by
        Who says so; None: the login name.
    now
        Seconds since the epoch; None: now.

    Raises
    ------
    JournalError
        The audit is damaged: what was begun before is not known.
    DiskFullError
        There is no room for a line that says what is done; nothing was lost.
    """
    moment, who = time.time() if now is None else now, by or login_name()
    finish_interrupted(plan.root)
    children = children_of(RootIndex(plan.root).entries())
    files = StoredFiles(plan.root, afresh=True)
    until = moment + plan.grace_days * DAY_S
    removed: list[Removal] = []
    kept: list[Kept] = []
    for folder, group in groupby(plan.removals, key=lambda each: each.folder):
        removals = list(group)
        refused = {
            each.path: "a run was derived from it meanwhile"
            for each in removals
            if each.run in children and each.once_in is None
        }
        may_go = [each for each in removals if each.path not in refused]
        named = [Named(each.path, each.rule, each.volumes, each.once_in) for each in may_go]
        try:
            if named:
                refused |= into_trash(
                    plan.root, folder, named, files, by=who, now=moment, until=until, planned=plan.now
                )
        except (RunLockedError, RunNotFoundError, JournalError) as error:
            refused |= dict.fromkeys((each.path for each in may_go), str(error))
        removed += [each for each in removals if each.path not in refused]
        kept += [_not_removed(each, refused[each.path]) for each in removals if each.path in refused]
    folders = dict.fromkeys([*(each.folder for each in plan.trash), *(each.folder for each in removed)])
    spared = {each.folder for each in plan.trash if each.held}
    deleted = _deleted(plan.root, [folder for folder in folders if folder not in spared], moment, plan.now)
    return Applied(tuple(removed), tuple(kept), tuple(deleted))


def _not_removed(removal: Removal, why: str) -> Kept:
    said = asdict(removal)
    del said["once_in"]
    return Kept(**said, why=why)


def _deleted(root: Path, folders: Iterable[str], now: float, planned: float) -> Iterator[Deleted]:
    for folder in folders:
        with contextlib.suppress(RunLockedError, RunNotFoundError, JournalError):  # another time
            yield from delete_expired(root, folder, now=now, planned=planned)
