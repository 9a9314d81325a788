"""``python -m gently_bluesky`` is ``gently-bluesky``."""

from gently_bluesky.cli import main

main()
