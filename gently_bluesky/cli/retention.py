"""``gently-bluesky retain | discard | restore | tag``: what goes, what comes back, and what is said of a run."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from gently_bluesky.cli.app import DEFAULT_ROOT, AsJson, Root, app, out
from gently_bluesky.cli.runs import find
from gently_bluesky.cli.shown import print_json
from gently_bluesky.errors import ConfigError
from gently_bluesky.keep.policy import POLICY, Policy, load_policy
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.run import Run
from gently_bluesky.read.words import clock, counted
from gently_bluesky.store.removed import day
from gently_bluesky.store.tags import KEEP

_NAMED = 3  # embryos that are named
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
    yield from ({"act": "rule", **asdict(each)} for each in plan.effects)
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
    _print_rules(plan)
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
    _print_rules(plan)
    moved = f"{counted(len(applied.removed), 'file')}, {_size(sum(each.bytes for each in applied.removed))}"
    if plan.grace_days > 0:
        _say(f"In the trash for {_days(plan.grace_days)}: {moved}. Back with: gently-bluesky restore RUN")
    if applied.deleted:
        gone = f"{counted(len(applied.deleted), 'file')}, {_size(sum(each.bytes for each in applied.deleted))}"
        _say(f"Deleted for good, past their grace: {gone}.")


def _print_removals(title: str, removals: Iterable[Any]) -> None:
    groups = _groups(removals, lambda each: (each.folder, each.rule))
    rows = [(group, (f"{group[0].age_days:,.0f} d", rule)) for (_, rule), group in groups]
    _print_table(title, ("age", "rule"), rows)


def _print_kept(title: str, kept: Iterable[Any]) -> None:
    groups = _groups(kept, lambda each: (each.folder, each.rule, each.why))
    _print_table(title, ("rule", "why it stays"), [(group, key[1:]) for key, group in groups])


def _print_trash(plan: Any) -> None:
    groups = _groups(plan.trash, lambda each: (each.folder, each.held or day(each.until), each.rule))
    _print_table("In the trash", ("until", "rule"), [(group, key[1:]) for key, group in groups])
    for each in plan.unreadable:
        _say(f"Left alone: {each.why}")


def _print_rules(plan: Any) -> None:
    for each in plan.effects:
        files = counted(each.named, "file")
        text = (
            f"keeps {files}"
            if each.kind == "keep"
            else f"names {files}: {each.taken} to go by it, {each.kept} to stay"
        )
        if not each.named:
            text = "names nothing"
        if each.lacking_bytes:
            text += f"; it wants {_size(each.lacking_bytes)} more, and nothing else may go"
        _say(f"Rule {each.rule!r} {text}.")


_DATA = ("plan", "session", "purpose", "embryo")  # what data it is, as far as it is said


def _print_table(title: str, more: Sequence[str], rows: Sequence[tuple[list[Any], Sequence[str]]]) -> None:
    """Print a line a group of files of one run; columns of `_DATA` in which nothing stands are left out."""
    if not rows:
        return
    data = [_data(group) for group, _ in rows]
    shown = [place for place, cells in enumerate(zip(*data, strict=True)) if any(cells)]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, highlight=False)
    table.add_column("scan", no_wrap=True)
    table.add_column("uid", no_wrap=True, min_width=8)
    for place in shown:
        table.add_column(_DATA[place], overflow="fold")
    table.add_column("files", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True, min_width=8)
    for name in more:
        table.add_column(name, overflow="fold")
    for (group, cells), what in zip(rows, data, strict=True):
        first = group[0]
        whose = "" if first.scan_id is None else str(first.scan_id), first.run[:8]
        size = _size(sum(each.bytes for each in group))
        line = (*whose, *(what[place] for place in shown), str(len(group)), size, *cells)
        table.add_row(*map(escape, line))
    out.print(f"[bold]{title}[/bold]")
    out.print(table)
    out.print()


def _data(group: Sequence[Any]) -> tuple[str, ...]:
    embryos = sorted({embryo for each in group for embryo in each.embryos})
    named = ", ".join(embryos) if len(embryos) <= _NAMED else counted(len(embryos), "embryo")
    return group[0].plan_name, group[0].session, group[0].purpose, named


def _groups(several: Iterable[T], key: Callable[[T], Hashable]) -> list[tuple[Any, list[T]]]:
    found: dict[Any, list[T]] = {}
    for each in several:
        found.setdefault(key(each), []).append(each)
    return list(found.items())


def _days(count: float) -> str:
    return "1 day" if count == 1 else f"{count:g} days"


def _size(count: int) -> str:
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1000:,.1f} kB"


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


# --- one run ------------------------------------------------------------------------------------------------


@app.command("discard", context_settings=_WITH_MINUS)
def discard_command(
    run: OneRun,
    paths: Annotated[list[str] | None, typer.Argument(help="Only these, relative to the run's folder.")] = None,
    root: Root = DEFAULT_ROOT,
    by: By = None,
    even_with_children: Annotated[
        bool, typer.Option("--even-with-children", help="Also if other runs were derived from it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Move all files of a run into the trash, or those that are named; its documents stay."""
    from gently_bluesky.keep.discard import discard  # noqa: PLC0415

    catalog = Catalog(root)
    own = catalog.root / POLICY
    grace_days = (load_policy(own) if own.exists() else Policy()).grace_days
    uid = find(catalog, run).uid
    moved = discard(
        catalog.root, uid, paths or None, by=by, grace_days=grace_days, even_with_children=even_with_children
    )
    _print_moved(moved, f"in the trash for {_days(grace_days)}", as_json=as_json)


@app.command("restore", context_settings=_WITH_MINUS)
def restore_command(
    run: OneRun,
    paths: Annotated[list[str] | None, typer.Argument(help="Only these, relative to the run's folder.")] = None,
    root: Root = DEFAULT_ROOT,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Move files of a run from the trash back to where they were; a policy that took them names them still."""
    from gently_bluesky.keep.discard import restore  # noqa: PLC0415
    from gently_bluesky.keep.holdings import tags_of  # noqa: PLC0415

    catalog = Catalog(root)
    moved = restore(catalog.root, find(catalog, run).uid, paths or None, by=by)
    _print_moved(moved, f"back in {moved.folder}", as_json=as_json)
    if moved.rules and not as_json and KEEP not in (tags_of(moved.folder) or ()):
        rules = ", ".join(map(repr, moved.rules))
        keep = f"gently-bluesky tag {moved.run[:8]} keep"
        _say(f"The policy took them by {rules}, and would again. To keep them: {keep}")


def _print_moved(moved: Any, where: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(moved) | {"folder": str(moved.folder)})
    else:
        what = moved.why_none or f"{counted(len(moved.paths), 'file')} {where}"
        _say(f"Run {moved.run}: {what}.")
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
