"""Cleaning up after a failure, so that every step has its turn and the failure stays what it was."""

from collections.abc import Callable


def clean_up_after(error: BaseException, *steps: Callable[[], object]) -> None:
    """Take every step, whatever the others do; what fails is noted on the error that came first.

    Parameters
    ----------
    error
        What went wrong, and will be raised by the caller.
    *steps
        What is to be done all the same.
    """
    for step in steps:
        try:
            step()
        except Exception as second:  # noqa: BLE001 - the first one is raised, and carries this one
            error.add_note(f"and cleaning up failed: {type(second).__name__}: {second}")
