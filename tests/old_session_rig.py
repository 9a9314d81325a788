"""Session folders as gently's file store left them, with frames that say which they are."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray

from gently_bluesky import Catalog
from gently_bluesky.exchange.importing import Imported, carry_out, plan_import
from gently_bluesky.exchange.said import Said
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.run import Run
from tests.data_rig import SHAPE, frame, volume

SESSION = "abcdef12-0000-4000-8000-000000000001"
FOLDER = "20260301_1200_overnight_abcdef12"
BERLIN = Said(timezone="Europe/Berlin")
DATE = "2026-03-01T12:"


@dataclass(slots=True)
class OldSession:
    """A session folder being made: `store` holds sessions/, incoming/ and logs/."""

    store: Path
    session: str = SESSION
    name: str = FOLDER
    volumes: dict[tuple[str, int], NDArray[Any]] = field(default_factory=dict)
    snapshots: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        write_yaml(
            self.folder / "session.yaml",
            session_id=self.session,
            name="Overnight",
            description=None,
            created_at=f"{DATE}00:00.500000",
            last_active=f"{DATE}59:00",
            metadata={"strain": "OD58"},
        )
        write_yaml(self.folder.parent / "_index.yaml", **{self.session: self.name})

    @property
    def folder(self) -> Path:
        """The session folder."""
        return self.store / "sessions" / self.name

    def embryo(self, embryo: str, **more: Any) -> Path:
        """Make the folder of an embryo, with its embryo.yaml."""
        folder = self.folder / "embryos" / embryo
        position = {"position_coarse": {"x": 10.5, "y": -3.0}, "position_fine": None}
        said: dict[str, Any] = {"embryo_id": embryo, "session_id": self.session, "role": "test", "strain": "OD58"}
        write_yaml(folder / "embryo.yaml", **(said | position | more))
        return folder

    def volume(
        self,
        embryo: str,
        timepoint: int,
        at: str,
        *,
        shape: Sequence[int] = SHAPE,
        compression: str | None = "zlib",
        dtype: str = "<u2",
        metadata: Mapping[str, Any] | None = None,
        sidecar: Mapping[str, Any] | None = None,
    ) -> Path:
        """File a volume, whose first pixels say which it is: 10 times the timepoint and the embryo's number."""
        if not (self.folder / "embryos" / embryo).exists():
            self.embryo(embryo)
        number = int(embryo[-1]) if embryo[-1].isascii() and embryo[-1].isdigit() else 0
        pixels = volume(10 * timepoint + number, shape, dtype)
        path = self.folder / "embryos" / embryo / "volumes" / f"t{timepoint:04d}.tif"
        write_tiff(path, pixels, compression)
        self.volumes[embryo, timepoint] = pixels
        said: dict[str, Any] = {
            "num_slices": 4,
            "exposure_ms": 5.0,
            "interval_seconds": 30,
            "acquisition_mode": "1hz",
            "laser_power_488_pct": 2.5,
            "role": "test",
            "calibration": {"galvo_amplitude": 0.5, "galvo_center": 0.0, "piezo_center": 50.0 + timepoint},
        }
        meta: dict[str, Any] = {
            "session_id": self.session,
            "embryo_id": embryo,
            "timepoint": timepoint,
            "shape": list(shape),
            "dtype": np.dtype(dtype).name,
            "acquired_at": f"{DATE}{at}",
            "metadata": said if metadata is None else dict(metadata),
        }
        write_yaml(path.with_suffix(".meta.yaml"), **(meta | dict(sidecar or {})))
        return path

    def snapshot(self, source: str, number: int, at: str) -> Path:
        """File a snapshot."""
        pixels = frame(number, 0, (20, 30))
        path = self.folder / "snapshots" / f"{source}_{number:012x}.tif"
        write_tiff(path, pixels, None)
        self.snapshots[path.relative_to(self.folder).as_posix()] = pixels
        meta: dict[str, Any] = {
            "session_id": self.session,
            "source": source,
            "file_path": f"D:/Gently3/{path.name}",
        }
        meta |= {"metadata": {"exposure_ms": 20.0}, "captured_at": f"{DATE}{at}", "width": 30, "height": 20}
        write_yaml(path.with_suffix(".meta.yaml"), **meta)
        return path

    def calibration(self, embryo: str, at: str, frames: int = 2) -> Path:
        """File a calibration of an embryo with its frames."""
        folder = self.folder / "embryos" / embryo / "calibration" / f"20260301_12{at.replace(':', '')}"
        lines = []
        for number in range(frames):
            name = f"frames/{number:03d}_sweep_g+0.{number}00.tif"
            write_tiff(folder / name, frame(number, 7, (20, 30)), "zlib")
            lines.append(
                {"n": number, "at": f"{DATE}{at}.{number}", "kind": "sweep", "file": name, "galvo": number / 10}
            )
            lines[-1] |= {"shape": [20, 30], "dtype": "uint16"}
        (folder / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        head = {"embryo_id": embryo, "started_at": f"{DATE}{at}", "outcome": "success"}
        write_yaml(folder / "calibration.yaml", **head, calibration={"slope": 100.5, "r2": [0.99, 0.98]})
        return folder

    def temperatures(self, count: int) -> None:
        """Write a log of the temperature, in UTC as the store did."""
        lines = [
            {"t": f"2026-03-01T11:00:{i:02d}+00:00", "water_c": 20.0 + i, "state": "heating"} for i in range(count)
        ]
        (self.folder / "temperature.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def a_session(store: Path, name: str = SESSION, **options: Any) -> OldSession:
    """Two embryos, taken in turns over three timepoints, two snapshots, a calibration, temperatures, a log."""
    session = OldSession(store, name)
    for timepoint in range(3):
        for number, embryo in enumerate(("embryo_2", "embryo_1")):
            session.volume(embryo, timepoint, f"{10 + timepoint}:0{number}", **options)
    session.snapshot("bottom_camera", 1, "05:00")
    session.snapshot("bf", 2, "11:30")
    session.calibration("embryo_1", "08:00")
    session.temperatures(4)
    (session.folder / "timeline.jsonl").write_text('{"event": "hatched"}\n')
    (session.folder / "embryos/embryo_1/projections").mkdir()
    (session.folder / "embryos/embryo_1/projections/t0000.jpg").write_bytes(b"\xff\xd8jpeg")
    return session


def write_yaml(path: Path, **content: Any) -> None:
    """Write as the store did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_tiff(path: Path, pixels: NDArray[Any], compression: str | None) -> None:
    """Write as the store and its device layer did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, compression=compression, photometric="minisblack")


def tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything in a folder: size, time of change and hash of each file, and the time of each folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns, digest)
    return found


def take_in(path: Path, root: Path, **options: Any) -> list[Imported]:
    """Import, with times of Berlin."""
    return carry_out(plan_import(path, root, **({"said": BERLIN} | options)))


def the_run(path: Path, root: Path, **options: Any) -> Run:
    """Import what becomes one run, and give that; it is verified."""
    (done,) = take_in(path, root, **options)
    assert verify(root).findings == ()
    return Catalog(root)[done.uid]


def told(path: Path, root: Path, **options: Any) -> dict[str, dict[str, str]]:
    """What a plan tells of one session or file: by kind, by file."""
    (run,) = plan_import(path, root, **({"said": BERLIN} | options)).runs
    found: dict[str, dict[str, str]] = {}
    for remark in run.source.remarks:
        found.setdefault(remark.kind, {})[remark.file] = remark.text
    return found


def every_volume(root: Path) -> Iterator[tuple[tuple[str, int], NDArray[Any]]]:
    """Every volume of an embryo in a root, also of runs that were interrupted, by embryo and timepoint."""
    for found in Catalog(root).volumes(include_bad=True):
        if found.timepoint is not None:
            yield (str(found.embryo), found.timepoint), found.array()


def cut_short(path: Path, part: float = 0.5) -> None:
    """Let a file end too early, as a power cut does."""
    os.truncate(path, int(path.stat().st_size * part))
