"""The program that commands are added to, and the options that they share."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gently_bluesky import __version__

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
out = Console()


def a_folder(root: Path | None) -> Path | None:
    """Hold that what is to be a folder of this machine is no address."""
    if root is not None and root.parts[:1] in {("http:",), ("https:",)}:
        raise typer.BadParameter(
            f"{root.as_posix().replace(':/', '://', 1)} is an address; this needs a folder here."
        )
    return root


Root = Annotated[
    Path, typer.Option(envvar="GENTLY_ROOT", callback=a_folder, help="The root under which the runs lie.")
]
AnyRoot = Annotated[
    str, typer.Option(envvar="GENTLY_ROOT", help="The root, or the address of its server: http://host:8000.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
DEFAULT_ROOT = Path("gently-data")
ANY_ROOT = str(DEFAULT_ROOT)


def _tell_version(asked: bool) -> None:
    if asked:
        out.print(f"gently-bluesky {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def before_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Data layer of a dual-view light-sheet microscope: runs in, files out, and back."""
