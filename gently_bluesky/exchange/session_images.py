"""Images in a session folder of gently: volumes of embryos, snapshots, frames of calibrations.

Each is addressed by where it lies, as the old store addressed it, and says what its sidecar says. Knows the
store's names for things; knows no documents.
"""

import datetime
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from typing import Any

from gently_bluesky.errors import ConfigError
from gently_bluesky.exchange.found import Image, Part, Scalar
from gently_bluesky.exchange.said import Said
from gently_bluesky.exchange.session_folder import SessionFolder
from gently_bluesky.exchange.sidecar import scalars
from gently_bluesky.read.tiff import TiffFacts

VOLUME = re.compile(r"embryos/(?P<embryo>[^/]+)/volumes/t(?P<timepoint>\d+)(?P<end>\.tif|\.meta\.yaml)")
_SNAPSHOT = re.compile(r"(?P<stem>snapshots/(?P<source>.+)_[^_/]+)(?P<end>\.tif|\.meta\.yaml)")
_FRAME = re.compile(r"(?P<run>embryos/(?P<embryo>[^/]+)/calibration/[^/]+)/(?P<file>frames/[^/]+\.tif)")
_RECORDS = re.compile(r"(?P<run>embryos/[^/]+/calibration/[^/]+)/frames\.jsonl")

FILED_AT = "filed_at"
TAKEN = frozenset(
    {"embryo", "timepoint", "position", "channel", "good", "source", "file", "line", "time_index", "channel_index"}
    | {"file_bytes", "file_modified", "contradiction", "volume", "snapshot", "frame", "calibration_of", FILED_AT}
)
"""Data keys that mean something here; metadata of such a name get another."""


def images_of(folder: SessionFolder, session: str, said: Said) -> list[Image]:
    """Give every image in a session folder, in the order in which they were filed."""
    found = _Images(folder, session, said)
    images = [*found.volumes(), *found.snapshots(), *found.calibration_frames()]
    return sorted(images, key=lambda image: (image.time, image.file))


class _Images:
    def __init__(self, folder: SessionFolder, session: str, said: Said) -> None:
        self._folder = folder
        self._session = session
        self._said = said

    def _image(
        self,
        stream: str,
        name: str,
        parts: tuple[Part, ...],
        values: Mapping[str, Scalar],
        filed: object,
        contradiction: str,
        not_before: float = float("-inf"),
    ) -> Image:
        status = self._folder.files[name]
        time, more = status.st_mtime, dict[str, Scalar]()
        if filed is not None:
            more[FILED_AT] = filed.isoformat() if isinstance(filed, datetime.datetime) else str(filed)
            try:
                time = self._said.moment(filed, not_before=not_before)
            except ValueError:
                self._folder.remark("contradiction", name, f"it was filed at {filed!r:.60}, which is no time")
        if contradiction:
            more["contradiction"] = contradiction
        more |= {"file": name, "file_bytes": status.st_size, "file_modified": status.st_mtime}
        return Image(stream, name, time, {**values, **more}, parts)

    def volumes(self) -> Iterator[Image]:
        ends: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for match in self._folder.matching(VOLUME):
            timepoint = int(match["timepoint"])
            if match["timepoint"] == f"{timepoint:04d}":
                ends[match["embryo"]][timepoint].add(match["end"])
        for embryo, timepoints in ends.items():
            last = float("-inf")
            for timepoint in sorted(timepoints):
                image = self._volume(embryo, timepoint, timepoints[timepoint], last)
                if image is not None:
                    yield image
                    last = image.time if FILED_AT in image.values else last

    def _volume(self, embryo: str, timepoint: int, ends: set[str], not_before: float) -> Image | None:
        stem = f"embryos/{embryo}/volumes/t{timepoint:04d}"
        if ".tif" not in ends:
            self._folder.remark("missing", f"{stem}.tif", "its sidecar is there, and the volume is not")
            return None
        facts = self._folder.image(f"{stem}.tif")
        if facts is None:
            return None
        sidecar = self._folder.sidecar(f"{stem}.meta.yaml")
        truth = {"session_id": self._session, "embryo_id": embryo, "timepoint": timepoint, **_geometry(facts)}
        return self._image(
            "primary",
            f"{stem}.tif",
            tuple(self._views(facts)),
            {"embryo": embryo, "timepoint": timepoint, **_metadata(sidecar, {"acquired_at", *truth})},
            sidecar.get("acquired_at"),
            self._folder.compare(f"{stem}.meta.yaml", sidecar, truth),
            not_before,
        )

    def _views(self, facts: TiffFacts) -> Iterator[Part]:
        """Give each view: of four axes views are the first, and they lie side by side only if the user says so."""
        shape, width, views = facts.shape, facts.shape[-1], self._said.views
        if len(shape) == 4:
            shape, cuts = shape[1:], [str(view) for view in range(shape[0])]
            names = cuts
        elif self._said.split_views and len(shape) == 3 and width >= 2 * shape[1] and width % 2 == 0:
            shape, cuts = (*shape[:2], width // 2), [f"...,:{width // 2}", f"...,{width // 2}:"]
            names = ["left", "right"]
        else:
            yield Part("volume", shape, facts.dtype, details=self._voxel_size(shape))
            return
        if views is not None and len(views) != len(cuts):
            raise ConfigError(f"views is {views!r}, and a volume in {self._folder.path} holds {len(cuts)} views.")
        for i, cut in enumerate(cuts):
            details = self._voxel_size(shape) | ({} if views is None else {"view": views[i]})
            yield Part(f"volume_{(views or names)[i].lower()}", shape, facts.dtype, cut, details)

    def _voxel_size(self, shape: tuple[int, ...]) -> dict[str, Any]:
        sizes = self._said.voxel_size_um
        return {} if sizes is None or len(shape) != 3 else {"voxel_size_um": list(sizes)}

    def snapshots(self) -> Iterator[Image]:
        found: defaultdict[str, dict[str, re.Match[str]]] = defaultdict(dict)
        for match in self._folder.matching(_SNAPSHOT):
            found[match["stem"]][match["end"]] = match
        for stem, ends in found.items():
            if ".tif" not in ends:
                self._folder.remark("missing", f"{stem}.tif", "its sidecar is there, and the snapshot is not")
            elif (facts := self._folder.image(f"{stem}.tif")) is not None:
                source = ends[".tif"]["source"]
                sidecar = self._folder.sidecar(f"{stem}.meta.yaml")
                truth: dict[str, Any] = {"session_id": self._session, "source": source}
                truth |= {"width": facts.shape[-1], "height": facts.shape[-2]}
                yield self._image(
                    f"snapshots_{source}",
                    f"{stem}.tif",
                    (Part("snapshot", facts.shape, facts.dtype),),
                    {"source": source, **_metadata(sidecar, {"captured_at", *truth})},
                    sidecar.get("captured_at"),
                    self._folder.compare(f"{stem}.meta.yaml", sidecar, truth),
                )

    def calibration_frames(self) -> Iterator[Image]:
        runs: defaultdict[str, list[re.Match[str]]] = defaultdict(list)
        for match in self._folder.matching(_FRAME):
            runs[match["run"]].append(match)
        for match in self._folder.matching(_RECORDS):
            runs.setdefault(match["run"], [])
        for run, matches in runs.items():
            records = self._records(f"{run}/frames.jsonl")
            for match in matches:
                if (facts := self._folder.image(match[0])) is not None:
                    _, record = records.pop(match["file"], (0, {}))
                    yield self._frame(match, facts, record)
            for file, (number, _) in records.items():
                text = f"line {number} is of {file}, which is not there, or cannot be read"
                self._folder.left_out("missing", f"{run}/frames.jsonl", text)

    def _records(self, name: str) -> dict[str, tuple[int, dict[str, Any]]]:
        """Give the records of calibration frames, and their lines, by the file of each."""
        records: dict[str, tuple[int, dict[str, Any]]] = {}
        for number, record in self._folder.lines(name):
            if record.get("file") is None:
                self._folder.left_out("missing", name, f"line {number} is of no file")
            elif (before := records.get(file := str(record["file"]))) is not None:
                text = f"line {number} is of {file} like line {before[0]}, which is believed"
                self._folder.left_out("contradiction", name, text)
            else:
                records[file] = number, record
        return records

    def _frame(self, match: re.Match[str], facts: TiffFacts, record: Mapping[str, Any]) -> Image:
        truth = _geometry(facts)
        of = {"calibration_of": match["embryo"]}  # it is no volume of the embryo
        return self._image(
            "calibration_frames",
            match[0],
            (Part("frame", facts.shape, facts.dtype),),
            {**of, **_metadata(record, {"at", "file", *truth})},
            record.get("at"),
            self._folder.compare(match[0], record, truth),
        )


def _geometry(facts: TiffFacts) -> dict[str, Any]:
    return {"shape": list(facts.shape), "dtype": facts.dtype}


def _metadata(sidecar: Mapping[str, Any], known: Set[str]) -> dict[str, Scalar]:
    """Give all that a sidecar says beside what is known without: its metadata, and what was added since."""
    more = {key: value for key, value in sidecar.items() if key not in known | {"metadata"}}
    metadata = sidecar.get("metadata")
    said = metadata if isinstance(metadata, Mapping) else {"metadata": metadata}
    return scalars(said, more, taken=TAKEN)
