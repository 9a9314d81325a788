"""Where things are: the names of files and folders under a root, and the marks of a root.

Knows names and nothing of their content. Names are safe on Linux, macOS and Windows and never an identity:
that is the uid, in full, inside the documents.
"""

import datetime
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

from gently_bluesky.errors import RootError
from gently_bluesky.store.disk import sync_file, sync_folder

LAYOUT_VERSION = 1

ROOT_MARK = "gently.json"
JOURNAL = "journal.jsonl"
MANIFEST = "manifest.jsonl"
LOCK = "writer.lock"
WRITER = "writer.json"
TAGS = "tags.jsonl"
AUDIT = "audit.jsonl"
TRASH = "trash"

_UNSAFE = re.compile(r"[^A-Za-z0-9_+=-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


def slug(text: str, limit: int = 60) -> str:
    """Give a name for a file that every system takes.

    >>> slug("XYStage:XY:31"), slug("../../etc"), slug("nul"), slug("\N{MICRO SIGN}-scan"), slug("")
    ('XYStage_XY_31', '_etc', 'nul_', 'u-scan', '_')
    """
    letters = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    name = _UNSAFE.sub("_", letters.replace("\N{GREEK SMALL LETTER MU}", "u"))[:limit] or "_"
    return f"{name}_" if _RESERVED.fullmatch(name) else name


def run_folder_name(start: Mapping[str, Any]) -> str:
    """Give the name of a run's folder: scan_id, plan_name and the first eight characters of the uid.

    >>> run_folder_name({"uid": "3f2a9c1e-0000", "scan_id": 7, "plan_name": "timelapse"})
    '0007-timelapse-3f2a9c1e'
    """
    scan_id = start.get("scan_id")
    number = slug(f"{scan_id:04d}" if isinstance(scan_id, int) and scan_id >= 0 else str(scan_id), 12)
    return f"{number}-{slug(str(start.get('plan_name') or 'run'), 40)}-{slug(str(start['uid']), 8)}"


def day_folder(time: float) -> Path:
    """Give the folder of a day, relative to the root.

    >>> day_folder(1795433400.0).as_posix()
    'runs/2026/11/23'
    """
    day = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return Path("runs", f"{day:%Y}", f"{day:%m}", f"{day:%d}")


def without_links(root: Path, relative: Path) -> Path:
    """Give a folder under a root that is there or will be.

    Raises
    ------
    RootError
        A link on the way leads elsewhere: what is written to a root stays in it.
    """
    for folder in (relative, *relative.parents):
        if (root / folder).is_symlink() and folder != Path():
            raise RootError(
                f"{root / folder} is a link. A root is one tree: nothing is written through links in it. "
                "Let the root itself lie where there is room."
            )
    return root / relative


_FIELD = re.compile(r"\{0?(?::[<>^=+ ]?\d{0,2}[dn]?)?\}|%[-+ 0]{0,2}\d{0,2}(?:\.\d{1,2})?[di]")


def name_from_template(template: str, number: int) -> str:
    """Give the name of a file of others, relative to its folder: one of a series or, without a number, always one.

    Raises
    ------
    ValueError
        The template is none of one number at most, or its names leave the folder.

    Examples
    --------
    >>> name_from_template("{:06d}.tif", 7), name_from_template("part/img_%5.5d.tif", 7)
    ('000007.tif', 'part/img_00007.tif')
    """
    fields = list(_FIELD.finditer(template))
    rest = _FIELD.sub("", template)
    if len(fields) > 1 or set("{}%") & set(rest) or not template:
        raise ValueError(f"the template {template!r:.80} is none with one number, like '{{:06d}}.tif'")
    name = template
    for field in (match[0] for match in fields):
        name = template.replace(field, field.format(number) if field.startswith("{") else field % number)
    pure = PurePath(name)
    if pure.is_absolute() or pure.drive or ".." in pure.parts or "\0" in name:
        raise ValueError(f"the template {template!r:.80} leads out of its folder")
    return name


def file_uri(path: Path) -> str:
    """Give the uri that Bluesky's and Tiled's consumers understand: not percent-encoded, host localhost."""
    posix = path.as_posix()
    return f"file://localhost{'' if posix.startswith('/') else '/'}{posix}"


def uri_path(uri: str) -> Path | None:
    """Give the local path of a file uri, whether it is percent-encoded or not; None for any other scheme."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        return None
    text = uri[len("file:") :].removeprefix("//").removeprefix(parts.netloc)
    path = _local(text)
    return path if path.exists() else _local(unquote(text))


def _local(text: str) -> Path:
    return Path(text[1:] if re.match(r"/[A-Za-z]:", text) and os.name == "nt" else text)


def check_root(path: Path) -> Path:
    """Give the absolute path of a folder that is a root or can become one; nothing is changed.

    Raises
    ------
    RootError
        The folder holds something else, cannot be written, or has a newer layout.
    """
    root = path.expanduser().absolute()
    if (root / ROOT_MARK).exists():
        open_root(root)
    elif root.is_dir():
        taken = any(not item.name.startswith(f".{ROOT_MARK}") for item in root.iterdir())
        if taken and not (root / ROOT_MARK).exists():  # somebody may have made it a root meanwhile
            raise RootError(
                f"{root} is no root: it has no {ROOT_MARK}, and it is not empty. Give an empty or a new folder."
            )
    elif root.exists():
        raise RootError(f"{root} is a file, not a folder. Give another root.")
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RootError(f"{root} cannot be written: {there} is read-only here. Give another root.")
    return root


def create_root(folder: Path) -> Path:
    """Make a folder a root, durably, if it is none yet; give its absolute path, and raise as `check_root` does."""
    path = check_root(folder)
    mark = path / ROOT_MARK
    if mark.exists():
        return path
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        path.mkdir(parents=True, exist_ok=True)
        beside = path / f".{ROOT_MARK}.{os.getpid()}"
        beside.write_text(json.dumps({"layout": LAYOUT_VERSION, "uri": file_uri(path)}) + "\n", encoding="utf-8")
        sync_file(beside)  # without its mark all that it holds would be out of reach after a power cut
        beside.replace(mark)
        for above in (path, *path.parents):
            sync_folder(above)
            if above == there:
                break
    except OSError as error:
        raise RootError(f"{path} cannot be made a root: {error.strerror or error}.") from error
    return path


def open_root(path: Path) -> tuple[Path, str]:
    """Give the absolute path of a root, and its uri when it was created.

    Raises
    ------
    RootError
        There is no such folder, it is no root, or a newer version made it.
    """
    root = path.expanduser().absolute()
    mark = root / ROOT_MARK
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
        version, uri = int(content["layout"]), str(content["uri"])
    except FileNotFoundError as error:
        what = "There is no such folder" if not root.exists() else f"It has no {ROOT_MARK}"
        raise RootError(f"{root} is no root. {what}. A FileWriter makes one.") from error
    except NotADirectoryError as error:
        raise RootError(f"{root} is no root: it is a file.") from error
    except PermissionError as error:
        raise RootError(f"{root} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RootError(
            f"{mark} is damaged ({error}). It should be {{'layout': 1, 'uri': 'file://...'}}."
        ) from error
    if version > LAYOUT_VERSION:
        raise RootError(
            f"{root} has layout {version}; this gently_bluesky knows up to {LAYOUT_VERSION}. Use a newer one."
        )
    return root, uri
