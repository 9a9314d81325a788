"""The command line: ``gently-bluesky demo``, ``runs``, ``show`` and more; ``--help`` lists what there is.

Every expected error is one line on stderr and exit status 1.
"""

import sys

from gently_bluesky.cli import agent, convert, demo, export, importing, keep, lineage, retention, runs, serving
from gently_bluesky.cli.app import app
from gently_bluesky.errors import GentlyError

__all__ = [
    "agent",
    "app",
    "convert",
    "demo",
    "export",
    "importing",
    "keep",
    "lineage",
    "main",
    "retention",
    "runs",
    "serving",
]


def main() -> None:
    """Run the command line."""
    from bluesky.utils import FailedStatus  # noqa: PLC0415 - known to those who run plans
    from ophyd.utils import LimitError  # noqa: PLC0415

    try:
        app()
    except BrokenPipeError:  # whoever read has seen enough
        sys.stdout = sys.stderr
        raise SystemExit(141) from None
    except (GentlyError, LimitError, FailedStatus, OSError, ValueError) as error:
        print(f"gently-bluesky: {error}", file=sys.stderr)
        raise SystemExit(1) from None
