"""What ran: versions, platform, the commit of a checkout, the hash of a file. Asked once, before anything runs.

Says what it knows and leaves out what it does not: without git, or outside of a checkout, there is no commit.
"""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_OURS, _ACQUIRING = "gently_bluesky", ("bluesky", "ophyd", "numpy")
_PATIENCE_S = 10.0  # a checkout on a network drive that does not answer is none


def provenance(*, profile: Path | None = None, configuration: Path | None = None) -> dict[str, Any]:
    """Give what start documents of acquisitions say of the software: ``RunEngine({**provenance(), ...})``.

    Parameters
    ----------
    profile
        Folder of the startup files.
    configuration
        The file that describes the instrument.

    Returns
    -------
    dict
        `versions` (python, gently_bluesky, bluesky, ophyd, numpy) and `platform`; `profile`: its path, with
        `commit` and `dirty` (whether tracked files differ from it), if it lies in a git checkout; `configuration`:
        path and sha256 of the file as it is now.

    Raises
    ------
    OSError
        The configuration cannot be read.
    """
    said: dict[str, Any] = {"versions": versions(_ACQUIRING), "platform": platform.platform()}
    if profile is not None:
        said["profile"] = {"path": str(profile.absolute()), **commit_of(profile)}
    if configuration is not None:
        sha256 = hashlib.sha256(configuration.read_bytes()).hexdigest()
        said["configuration"] = {"path": str(configuration.absolute()), "sha256": sha256}
    return said


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Give the versions of Python, of gently_bluesky and of packages; those that are not known are left out."""
    known = {name: version_of(name) for name in (_OURS, *packages)}
    return {"python": platform.python_version()} | {name: said for name, said in known.items() if said is not None}


def version_of(package: str) -> str | None:
    """Give the version of a top-level package: as it says itself, or as its distribution does; None if neither."""
    said = getattr(sys.modules.get(package), "__version__", None)
    if isinstance(said, str):
        return said
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


def commit_of(path: Path) -> dict[str, Any]:
    """Give the commit of the git checkout that tracks a file or folder.

    Returns
    -------
    dict
        `commit`, and `dirty`: whether tracked files of the checkout differ from it. Empty if no checkout tracks
        the path, it has no commit yet, or git is not there.
    """
    folder = path if path.is_dir() else path.parent
    if _git(folder, "ls-files", "--error-unmatch", "--", str(path.absolute())) is None:
        return {}
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {} if commit is None or changed is None else {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Ask git, which must change nothing; None if it cannot say."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
