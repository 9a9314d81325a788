"""``gently-bluesky lineage | diff``: what a run came from and what came of it; in what it differs from another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from gently_bluesky.cli.app import ANY_ROOT, AnyRoot, AsJson, app, out
from gently_bluesky.cli.runs import find
from gently_bluesky.cli.shown import print_json
from gently_bluesky.errors import ExportError, RunNotFoundError, TargetExistsError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.read.diff import Diff
from gently_bluesky.read.diff import diff as diff_of
from gently_bluesky.read.lineage import Lineage
from gently_bluesky.read.lineage_tree import Branch, branches

_WITH_MINUS = {"ignore_unknown_options": True}  # -1 is a run, not an option
OneRun = Annotated[str, typer.Argument(help="-1 for the newest, a scan_id, or a uid or its beginning.")]


@app.command(context_settings=_WITH_MINUS)
def lineage(
    run: OneRun = "-1",
    root: AnyRoot = ANY_ROOT,
    depth: Annotated[
        int | None, typer.Option(min=0, help="How many generations each way; all, if not given.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw it into this file, which must not be there yet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run was made from, and what was made of it."""
    if svg is not None:
        _hold_drawable(svg)
    found = _lineage(Catalog(root), run, depth)
    if svg is not None:
        with svg.open("x", encoding="utf-8") as file:
            file.write(found.svg())
    if as_json:
        print_json(found.as_dict())
    elif svg is not None:
        out.print(f"{len(found.nodes)} runs are drawn in {svg}.", highlight=False, markup=False, soft_wrap=True)
    elif out.is_terminal and not out.options.ascii_only:
        out.print(_tree(found))
        for warning in found.warnings:
            out.print(Text(warning, style="red"))
    else:
        out.print(found.text(ascii_only=True), highlight=False, markup=False, soft_wrap=True)


def _hold_drawable(svg: Path) -> None:
    if svg.suffix.lower() != ".svg":
        raise typer.BadParameter(f"{svg} does not end in .svg, and SVG is what is drawn.")
    if not svg.parent.is_dir():
        raise ExportError(f"{svg.parent} is no folder. Make it, or choose another for {svg.name}.")
    if svg.exists():
        raise TargetExistsError(f"{svg} is there already, and nothing is overwritten. Choose another name.")


def _lineage(catalog: Catalog, key: str, depth: int | None) -> Lineage:
    try:
        return catalog.lineage(find(catalog, key), depth)
    except RunNotFoundError:
        return catalog.lineage(key, depth)  # it may be gone, and others name it


def _tree(found: Lineage) -> Tree:
    path: list[Tree] = []
    for branch in branches(found):
        del path[branch.level :]
        path.append(path[-1].add(_line(branch)) if path else Tree(_line(branch), guide_style="dim"))
    return path[0]


def _line(branch: Branch) -> Text:
    line = Text(str(branch))
    line.highlight_words([branch.node.title], "bold")
    line.highlight_words([branch.node.uid[:8]], "cyan")
    line.stylize("red" if branch.node.missing or branch.remark.startswith("a cycle") else "")
    return line


@app.command("diff", context_settings=_WITH_MINUS)
def diff_command(run: OneRun, other: OneRun, root: AnyRoot = ANY_ROOT, as_json: AsJson = False) -> None:
    """Show in which settings two runs differ: what was asked, how devices were configured, what events say."""
    catalog = Catalog(root)
    found = diff_of(find(catalog, run), find(catalog, other))
    if as_json:
        print_json(found.as_dict())
    else:
        _print_diff(found)


def _first_line(value: object) -> str:
    first, *more = str(value).splitlines() or [""]
    return f"{first} ... ({len(more)} more lines: --json)" if more else first


def _print_diff(found: Diff) -> None:
    if not len(found):
        out.print(str(found), highlight=False, markup=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("", "setting"):
        table.add_column(heading, no_wrap=True)
    for heading in (found.a[:8], found.b[:8]):
        table.add_column(heading, overflow="fold")
    before = ""
    for each in found:
        table.add_row(
            each.part if each.part != before else "",
            Text(each.where),
            Text(_first_line(each.a)),
            Text(_first_line(each.b)),
        )
        before = each.part
    out.print(table, highlight=False)
