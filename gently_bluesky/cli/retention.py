"""``gently-bluesky retain | discard | restore | tag``: what goes, what comes back, and what is said of a run."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from gently_bluesky.cli.app import DEFAULT_ROOT, AsJson, Root, app, out
from gently_bluesky.cli.runs import find
from gently_bluesky.cli.shown import clock, print_json
from gently_bluesky.errors import ConfigError
from gently_bluesky.keep.policy import POLICY, Policy, load_policy
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.read.words import counted
from gently_bluesky.store.removed import day

_WITH_MINUS = {"ignore_unknown_options": True}  # -1 is a run, not an option

By = Annotated[str | None, typer.Option(help="Who says so; the login name, if not given.")]
OneRun = Annotated[str, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning.")]
T = TypeVar("T")


@app.command()
def retain(
    root: Root = DEFAULT_ROOT,
    policy: Annotated[Path | None, typer.Option(help=f"The policy; {POLICY} in the root, if not given.")] = None,
    do_apply: Annotated[bool, typer.Option("--apply", help="Do it; else it is only said.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Say what a policy would remove and what it keeps; with --apply, move it into the trash.

    Exit status 1 if something that was to go could not be verified, or not be moved.
    """
    from gently_bluesky.keep.retention import apply, plan_retention  # noqa: PLC0415 - pools and hashes

    path = Catalog(root).root
    plan = plan_retention(path, _policy(path, policy))
    applied = apply(plan, by=by) if do_apply else None
    if as_json:
        for line in _lines(plan, applied):
            print_json(line)
    elif applied is None:
        _print_plan(plan)
    else:
        _print_applied(plan, applied)
    if applied is not None and applied.kept:
        raise typer.Exit(1)


def _policy(root: Path, given: Path | None) -> Policy:
    path = root / POLICY if given is None else given
    if given is None and not path.exists():
        raise ConfigError(
            f"There is no policy, and without one nothing is removed: {path} is not there. Write it, or give "
            "another with --policy; profiles/dispim/retention.toml is an example with every rule, none active."
        )
    return load_policy(path)


def _lines(plan: Any, applied: Any) -> Iterator[Mapping[str, Any]]:
    done = plan if applied is None else applied
    removals = plan.removals if applied is None else applied.removed
    for act, several in (
        ("removed" if applied else "remove", removals),
        ("kept", (*plan.kept, *(() if applied is None else done.kept))),
        ("in trash", plan.trash),
        ("deleted", () if applied is None else done.deleted),
        ("unreadable", plan.unreadable),
    ):
        yield from ({"act": act, **asdict(each)} for each in several)
    yield {
        "act": "total",
        "bytes_before": plan.bytes_before,
        "bytes_removed": sum(each.bytes for each in removals),
        "bytes_in_trash": sum(each.bytes for each in plan.trash),
    }


# --- for people ---------------------------------------------------------------------------------------------


def _print_plan(plan: Any) -> None:
    _print_removals("Would go", plan.removals)
    _print_kept("Stays although a rule names it", plan.kept)
    _print_trash(plan)
    going = sum(each.bytes for each in plan.removals)
    what = f"{_size(going)} of {_size(plan.bytes_before)}" if plan.removals else "Nothing"
    _say(f"{what} would go, {_size(plan.bytes_after)} stay.")
    if plan.expired:
        expired = _size(sum(each.bytes for each in plan.expired))
        _say(f"{expired} in the trash are past their grace, and would go for good.")
    if plan.removals and not plan.grace_days:
        _say("It would be deleted at once, for good: grace_days is 0.")
    if plan.removals or plan.expired:
        _say("Nothing was done: --apply does it.")


def _print_applied(plan: Any, applied: Any) -> None:
    _print_removals("Moved into the trash", applied.removed)
    _print_kept("Was to go, and stays", applied.kept)
    moved = f"{counted(len(applied.removed), 'file')}, {_size(sum(each.bytes for each in applied.removed))}"
    if plan.grace_days > 0:
        _say(f"In the trash for {plan.grace_days:g} days: {moved}. Back with: gently-bluesky restore RUN")
    if applied.deleted:
        gone = f"{counted(len(applied.deleted), 'file')}, {_size(sum(each.bytes for each in applied.deleted))}"
        _say(f"Deleted for good, past their grace: {gone}.")


def _print_removals(title: str, removals: Iterable[Any]) -> None:
    table = _table("age", "rule")
    for (_, rule), group in _groups(removals, lambda each: (each.folder, each.rule)):
        table.add_row(*_whose(group), f"{group[0].age_days:,.0f} d", rule)
    _print_table(title, table)


def _print_kept(title: str, kept: Iterable[Any]) -> None:
    table = _table("rule", "why it stays")
    for (_, rule, why), group in _groups(kept, lambda each: (each.folder, each.rule, each.why)):
        table.add_row(*_whose(group), rule, why)
    _print_table(title, table)


def _print_trash(plan: Any) -> None:
    table = _table("until", "rule")
    for (_, rule, until, held), group in _groups(
        plan.trash, lambda each: (each.folder, each.rule, day(each.until), each.held)
    ):
        table.add_row(*_whose(group), held or until, rule)
    _print_table("In the trash", table)
    for each in plan.unreadable:
        _say(f"Left alone: {each.why}")


def _table(*more: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, highlight=False)
    table.add_column("scan", no_wrap=True)
    table.add_column("uid", no_wrap=True, min_width=8)
    table.add_column("files", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True, min_width=8)
    for name in more:
        table.add_column(name, overflow="fold")
    return table


def _whose(group: list[Any]) -> tuple[str, str, str, str]:
    size = _size(sum(each.bytes for each in group))
    return "" if group[0].scan_id is None else str(group[0].scan_id), group[0].run[:8], str(len(group)), size


def _print_table(title: str, table: Table) -> None:
    if table.row_count:
        out.print(f"[bold]{title}[/bold]")
        out.print(table)
        out.print()


def _groups(several: Iterable[T], key: Callable[[T], Hashable]) -> list[tuple[Any, list[T]]]:
    found: dict[Any, list[T]] = {}
    for each in several:
        found.setdefault(key(each), []).append(each)
    return list(found.items())


def _size(count: int) -> str:
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1000:,.1f} kB"


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


# --- one run ------------------------------------------------------------------------------------------------


@app.command("discard", context_settings=_WITH_MINUS)
def discard_command(run: OneRun, root: Root = DEFAULT_ROOT, by: By = None, as_json: AsJson = False) -> None:
    """Move all files of a run into the trash; its documents stay."""
    from gently_bluesky.keep.discard import discard  # noqa: PLC0415

    catalog = Catalog(root)
    own = catalog.root / POLICY
    grace_days = (load_policy(own) if own.exists() else Policy()).grace_days
    moved = discard(catalog.root, find(catalog, run).uid, by=by, grace_days=grace_days)
    _print_moved(moved, f"in the trash for {grace_days:g} days", as_json=as_json)


@app.command("restore", context_settings=_WITH_MINUS)
def restore_command(
    run: OneRun,
    paths: Annotated[list[str] | None, typer.Argument(help="Only these, relative to the run's folder.")] = None,
    root: Root = DEFAULT_ROOT,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Move files of a run from the trash back to where they were."""
    from gently_bluesky.keep.discard import restore  # noqa: PLC0415

    catalog = Catalog(root)
    moved = restore(catalog.root, find(catalog, run).uid, paths or None, by=by)
    _print_moved(moved, f"back in {moved.folder}", as_json=as_json)


def _print_moved(moved: Any, where: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(moved) | {"folder": str(moved.folder)})
    else:
        _say(f"Run {moved.run}: {counted(len(moved.paths), 'file')} {where}.")
        for path, why in moved.left.items():
            _say(f"  {path} was left: {why}")
    if moved.left:
        raise typer.Exit(1)


@app.command(context_settings=_WITH_MINUS)
def tag(
    run: OneRun,
    tags: Annotated[
        list[str] | None, typer.Argument(help="To add; none: the run's tags and notes are shown.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away instead.")] = False,
    note: Annotated[str | None, typer.Option(help="A text.")] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Tag a run, or show its tags and notes; a run that is tagged "keep" stays, whatever a policy says."""
    found = find(Catalog(root), run)
    if tags:
        (found.untag if remove else found.tag)(*tags, by=by)
    if note:
        found.note(note, by=by)
    if as_json:
        print_json({"run": found.uid, "tags": sorted(found.tags), "notes": [asdict(each) for each in found.notes]})
    else:
        _print_notes(found)


def _print_notes(run: Run) -> None:
    _say(f"Run {run.uid}: {', '.join(sorted(run.tags)) or 'no tags'}")
    for note in run.notes:
        said = [*(f"+{name}" for name in note.added), *(f"-{name}" for name in note.removed), note.text]
        _say(f"  {clock(note.time)[:-3]} {note.by}: {' '.join(part for part in said if part)}")
