"""``gently-bluesky recover | verify | reindex``: what keeps a root whole."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from gently_bluesky.cli.app import DEFAULT_ROOT, AsJson, Root, app, out
from gently_bluesky.cli.shown import print_json
from gently_bluesky.keep.finding import Finding, Report
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.words import counted

_SHOWN = 50
_COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


@app.command()
def recover(
    root: Root = DEFAULT_ROOT,
    salvage: Annotated[
        str,
        typer.Option(help="Frames of an unfinished volume: left 'beside', or as an 'event' that is not good."),
    ] = "beside",
    host: Annotated[
        list[str] | None, typer.Option(help="Another machine that is off for good: its runs, too. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Close the runs whose writer is gone, and finish what retention had begun; what is alive is left alone.

    A run that is closed stays as it is: frames that were left beside its events get no event afterwards.
    """
    from gently_bluesky.keep.acts import finish_interrupted  # noqa: PLC0415
    from gently_bluesky.write.recovery import LeftAlone  # noqa: PLC0415 - event_model and more, which runs do not need
    from gently_bluesky.write.recovery import recover as recover_root  # noqa: PLC0415

    done = recover_root(root, salvage=salvage, hosts=host or ())  # type: ignore[arg-type]
    finished = finish_interrupted(root)
    for each in (*done, *finished):
        if as_json:
            print_json({"recovered": not isinstance(each, LeftAlone), **asdict(each)})
        else:
            out.print(str(each), highlight=False, markup=False, soft_wrap=True)
    if any(isinstance(each, LeftAlone) and not each.running for each in done):
        raise typer.Exit(1)
    if not (done or finished or as_json):
        out.print(f"Every run in {Catalog(root).root} has its stop document.", highlight=False, soft_wrap=True)


@app.command()
def reindex(root: Root = DEFAULT_ROOT) -> None:
    """Write the index anew, from the run folders alone."""
    from gently_bluesky.store.index import reindex as reindex_root  # noqa: PLC0415

    path = Catalog(root).root
    out.print(f"{counted(reindex_root(path), 'run')} in the index of {path}.", highlight=False, soft_wrap=True)


@app.command()
def verify(
    root: Root = DEFAULT_ROOT,
    run: Annotated[list[str] | None, typer.Option(help="Only this run; repeatable.")] = None,
    afresh: Annotated[bool, typer.Option(help="Read everything again, not only what is new.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check journals, manifests and files against each other; exit status 1 if there are errors."""
    from gently_bluesky.cli.runs import find  # noqa: PLC0415
    from gently_bluesky.keep.verify import verify as verify_root  # noqa: PLC0415

    catalog = Catalog(root)
    uids = None if run is None else [find(catalog, key).uid for key in run]
    with _reading() as bar:
        task = bar.add_task("reading", total=None)
        report = verify_root(
            catalog.root,
            uids=uids,
            afresh=afresh,
            workers=workers,
            progress=lambda done, known: bar.update(task, completed=done, total=known),
        )
    if as_json:
        for line in report.lines():
            print_json(line)
    else:
        _print_report(report)
    if report.errors:
        raise typer.Exit(1)


def _reading() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), transient=True, disable=not sys.stderr.isatty())


def _print_report(report: Report) -> None:
    by_folder: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_folder.setdefault(finding.folder, []).append(finding)
    for folder, findings in by_folder.items():
        out.print(f"[bold]{folder or report.root}[/bold]", highlight=False, soft_wrap=True)
        lines = Table.grid(padding=(0, 1))
        for finding in findings[:_SHOWN]:
            where = f"{finding.where}: " if finding.where else ""
            lines.add_row(
                "", f"[{_COLORS[finding.severity]}]{finding.severity}[/]", Text(f"{where}{finding.text}")
            )
        out.print(lines)
        if len(findings) > _SHOWN:
            out.print(f"  and {len(findings) - _SHOWN} more; --json gives all.", highlight=False)
    looked = f"{counted(report.runs, 'run')}, {counted(report.files, 'file')}, {report.bytes / 1e6:,.0f} MB"
    if report.bytes:
        read = f"{report.bytes_read / 1e6:,.0f} MB of them read now" if report.bytes_read else "compared before"
        looked = f"{looked}, {read}"
    said = ", ".join(counted(report.counts.get(kind, 0), kind) for kind in _COLORS)
    out.print(f"{looked}, in {report.seconds:.1f} s.", highlight=False, soft_wrap=True)
    out.print(f"[bold]{said}.[/bold]", highlight=False)
