"""Session folders of gently's file store: what is in one, and what is wrong with it. Nothing in it is changed.

A pure function of a folder and of what the user says. Where a sidecar says something else than is, that is told.
Knows no documents and no root.
"""

import contextlib
import datetime
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gently_bluesky.errors import ImportRefusedError
from gently_bluesky.exchange.found import Image, Remark, Scalar, Source, Table
from gently_bluesky.exchange.said import Said
from gently_bluesky.exchange.session_folder import SessionFolder
from gently_bluesky.exchange.session_images import TAKEN, VOLUME, images_of
from gently_bluesky.exchange.sidecar import read_yaml, scalars
from gently_bluesky.store.layout import file_uri

PLAN_NAME = "import_session"

_SESSION, _INDEX, _LOCK, _TEMPERATURE = "session.yaml", "_index.yaml", "session.lock", "temperature.jsonl"
_FOLDER_NAME = re.compile(r"(\d{8}_\d{4})_.+")
_EMBRYO = re.compile(r"embryos/(?P<embryo>[^/]+)/embryo\.yaml")
_CALIBRATION = re.compile(r"embryos/(?P<embryo>[^/]+)/calibration/[^/]+/calibration\.yaml")

_Row = tuple[float, Mapping[str, Scalar]]


def find_sessions(folder: Path) -> tuple[list[Path], list[Remark]]:
    """Give the session folders that a person means by a folder: itself, those in it, or those of the whole store.

    Raises
    ------
    ImportRefusedError
        There is none.
    """
    if not folder.is_dir():
        raise ImportRefusedError(f"There is no folder or file {folder}.")
    if _is_session(folder):
        return [folder], []
    home = folder / "sessions" if (folder / "sessions").is_dir() else folder
    inside = sorted(home.iterdir())
    found = [path for path in inside if path.is_dir() and _is_session(path)]
    if not found:
        raise ImportRefusedError(
            f"{folder} holds no session folder. Give one (with {_SESSION}, embryos/ or snapshots/), the folder "
            "'sessions' of the store, or a single TIFF or Zarr store."
        )
    remarks = [
        Remark("unknown", path.name, "it is no session folder, and was left out")
        for path in inside
        if path not in found and path.name != _INDEX
    ]
    remarks += _against_index(home, {path.name for path in found})
    if waiting := sorted((home.parent / "incoming").glob("*")) if home != folder else []:
        text = f"{len(waiting)} files that no session has taken; import them one by one"
        remarks.append(Remark("unknown", "incoming", text))
    return found, remarks


def _is_session(folder: Path) -> bool:
    return (folder / _SESSION).is_file() or (folder / "embryos").is_dir() or (folder / "snapshots").is_dir()


def _against_index(home: Path, names: set[str]) -> Iterator[Remark]:
    if not (home / _INDEX).exists():
        return
    try:
        index = read_yaml(home / _INDEX)
    except ValueError as error:
        yield Remark("torn", _INDEX, str(error))
        return
    for session, name in index.items():
        if name not in names:
            yield Remark("missing", _INDEX, f"it names the folder {name} of session {session}, which is not there")


def read_session(path: Path, said: Said) -> Source:
    """Read one session folder.

    Parameters
    ----------
    path
        With session.yaml, embryos/ and snapshots/, as far as they are there.
    said
        What the user says.

    Raises
    ------
    ConfigError
        The views that the user names are not as many as there are.
    """
    folder = SessionFolder(path.absolute())
    session = folder.yaml(_SESSION) if _SESSION in folder.files else {}
    if _SESSION not in folder.files:
        folder.remark("missing", _SESSION, "the session is known by the name of its folder alone")
    if _LOCK in folder.files:
        folder.remark("unknown", _LOCK, "the session is open in gently, or was not closed: it may grow")
    known = session.get("session_id") or _in_index(folder.path)
    name = str(known or folder.path.name)
    images = images_of(folder, name, said)
    tables = [Table("temperature", tuple(_temperature(folder, said)))]
    tables.append(Table("calibrations", tuple(sorted(_calibrations(folder, said), key=lambda row: row[0]))))
    start = {
        "time": _began(folder, session, images, said),
        "plan_name": PLAN_NAME,
        "session": name,
        **({"session_name": session["name"]} if session.get("name") else {}),
        "old_session": session,
        "embryos": _embryos(folder, name),
    }
    remarked = {remark.file for remark in folder.remarks}
    for file in folder.beside:
        if file.endswith((".tif", ".tiff")) and file not in remarked:
            folder.remark("unknown", file, "an image that lies where the store put none; it was left out")
    return Source(
        folder.path,
        f"gently session {name if known else file_uri(folder.path.resolve())}",
        start,
        tuple(images),
        tuple(table for table in tables if table.rows),
        folder.beside,
        tuple(sorted(folder.remarks)),
    )


def _in_index(path: Path) -> str | None:
    """Give the session of a folder by the store's index: session.yaml does not say it."""
    try:
        index = read_yaml(path.parent / _INDEX)
    except (ValueError, OSError):
        return None
    return next((session for session, name in index.items() if name == path.name), None)


def _began(folder: SessionFolder, session: Mapping[str, Any], images: list[Image], said: Said) -> float:
    if (created := session.get("created_at")) is not None:
        try:
            return said.moment(created)
        except ValueError:
            folder.remark("contradiction", _SESSION, f"created_at is no time: {created!r:.60}")
    named = _FOLDER_NAME.fullmatch(folder.path.name)
    if named is not None:
        with contextlib.suppress(ValueError):
            return said.moment(datetime.datetime.strptime(named[1], "%Y%m%d_%H%M"))
    return min((image.time for image in images), default=folder.path.stat().st_mtime)


def _embryos(folder: SessionFolder, session: str) -> dict[str, Any]:
    embryos = {}
    for match in folder.matching(_EMBRYO):
        embryos[match["embryo"]] = content = folder.yaml(match[0])
        folder.compare(match[0], content, {"embryo_id": match["embryo"], "session_id": session})
    for name in sorted({match["embryo"] for match in folder.matching(VOLUME)} - embryos.keys()):
        folder.remark("missing", f"embryos/{name}/embryo.yaml", "role and position of the embryo are not known")
    return embryos


def _temperature(folder: SessionFolder, said: Said) -> Iterator[_Row]:
    for number, record in folder.lines(_TEMPERATURE):
        try:
            time = said.moment(record.get("t"))
        except ValueError:
            folder.remark("torn", _TEMPERATURE, f"line {number} has no time")
        else:
            yield time, {**scalars(record, taken=TAKEN), "file": _TEMPERATURE, "line": number}


def _calibrations(folder: SessionFolder, said: Said) -> Iterator[_Row]:
    for match in folder.matching(_CALIBRATION):
        content = folder.yaml(match[0])
        try:
            time = said.moment(content.get("started_at"))
        except ValueError:
            time = folder.files[match[0]].st_mtime
        yield time, {"embryo": match["embryo"], **scalars(content, taken=TAKEN), "file": match[0]}
