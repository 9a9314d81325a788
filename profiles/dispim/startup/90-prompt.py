"""What only a person at the prompt needs: %wa and its kin, progress of moves, a word of welcome."""

import logging
import sys

from bluesky.magics import BlueskyMagics
from bluesky.utils import FailedStatus, ProgressBarManager
from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from ophyd.utils import LimitError, ReadOnlyError

from gently_bluesky.errors import GentlyError


def _in_one_line(shell, kind, error, trace, tb_offset=None):  # noqa: ARG001 - as IPython calls it
    """Say what was refused, without the way there; %tb shows it all the same."""
    print(f"{kind.__name__}: {error}", file=sys.stderr)


_shell = get_ipython()
if isinstance(_shell, InteractiveShell):  # a queue has a dummy there
    _shell.register_magics(BlueskyMagics)
    RE.waiting_hook = ProgressBarManager()
    _shell.set_custom_exc((GentlyError, LimitError, ReadOnlyError, FailedStatus), _in_one_line)
    logging.getLogger("bluesky").setLevel(logging.CRITICAL)  # its tracebacks; the message comes below
    print(
        f"{configuration.name} on the {configuration.core} core; runs go to {writer.root}.\n"
        "RE(volume('test', 'embryo_1')), RE(timelapse(demo_embryos(), 'test', 2)), RE(overview()), %wa, catalog."
    )
