"""What only a person at the prompt needs: %wa and its kin, progress of moves, a word of welcome."""

from bluesky.magics import BlueskyMagics
from bluesky.utils import ProgressBarManager
from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell

_shell = get_ipython()
if isinstance(_shell, InteractiveShell):  # a queue has a dummy there
    _shell.register_magics(BlueskyMagics)
    RE.waiting_hook = ProgressBarManager()
    print(
        f"{configuration.name} on the {configuration.core} core; runs go to {writer.root}.\n"
        "Try RE(volume('test', 'embryo_1')), RE(timelapse(demo_embryos(), 'test', 2)), RE(overview()), %wa."
    )
