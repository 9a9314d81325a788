"""One folder of others, opened to be read: its files, its sidecars, and what is to be told of them.

Every file ends in one of three places: in the documents, among the images, or beside. Knows how sidecars are
spelled; what they mean is for those who ask.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gently_bluesky.exchange.found import Kind, Remark, can_be_named
from gently_bluesky.exchange.sidecar import read_json_lines, read_yaml
from gently_bluesky.read.tiff import TiffFacts, look_at_tiff


@dataclass(slots=True)
class SessionFolder:
    """A session folder.

    Attributes
    ----------
    path
        Absolute.
    files
        Status of each file, by its name relative to the folder, with forward slashes.
    told
        Files whose content is all in the documents, or which are images that can be read.
    remarks
        What is not as it should be.
    """

    path: Path
    files: dict[str, os.stat_result] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    remarks: list[Remark] = field(default_factory=list)

    def __post_init__(self) -> None:
        for where, folders, names in os.walk(self.path, onerror=_raise):
            folders.sort()
            for path in (Path(where, name) for name in sorted([*names, *folders])):
                name = path.relative_to(self.path).as_posix()
                if path.is_file():  # no socket, and no link to nowhere
                    self.files[name] = path.stat()
                elif path.is_symlink():
                    self.remark("unknown", name, "a link; what is behind it was left out")

    @property
    def beside(self) -> tuple[str, ...]:
        """Files that become no part of a run, or only in part."""
        torn = {remark.file for remark in self.remarks if remark.kind == "torn"}
        return tuple(sorted((self.files.keys() - self.told) | (self.files.keys() & torn)))

    def remark(self, kind: Kind, file: str, text: str) -> None:
        """Note what is to be told."""
        self.remarks.append(Remark(kind, file, text))

    def left_out(self, kind: Kind, file: str, text: str) -> None:
        """Note that a part of a file is in no document: the file lies beside."""
        self.remark(kind, file, text)
        self.told.discard(file)

    def matching(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Give the files whose whole name fits."""
        return (match for match in map(pattern.fullmatch, list(self.files)) if match)

    def image(self, name: str) -> TiffFacts | None:
        """Look at a TIFF; one that cannot be read as a whole, or not be named by a document, is told."""
        if not can_be_named(name):
            self.remark(
                "unreadable", name, "no document can name it: it holds one of {, }, % and \\; it was left out"
            )
            return None
        try:
            facts = look_at_tiff(self.path / name)
        except (ValueError, OSError) as error:
            self.remark("unreadable", name, f"{error}; it was left out")
            return None
        self.told.add(name)
        if facts.series > 1:
            self.left_out("unreadable", name, only_first(facts))
        return facts

    def sidecar(self, name: str) -> dict[str, Any]:
        """Read the sidecar of an image; one that is missing or torn is told, and says nothing."""
        if name in self.files:
            return self.yaml(name)
        self.remark("missing", name, "of its image is known what the file and its name say, and no more")
        return {}

    def yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML file; one that is torn is told, and says nothing."""
        try:
            content = read_yaml(self.path / name)
        except (ValueError, OSError) as error:
            self.remark("torn", name, str(error))
            return {}
        self.told.add(name)
        return content

    def lines(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give the records of a file of JSON lines, each with its line from 1; those that are torn are told."""
        if name not in self.files:
            return
        self.told.add(name)
        for number, record in read_json_lines(self.path / name):
            if isinstance(record, str):
                self.remark("torn", name, record)
            else:
                yield number, record

    def compare(self, name: str, said: Mapping[str, Any], truth: Mapping[str, Any]) -> str:
        """Tell, and give, where a sidecar contradicts what is; what it does not say contradicts nothing."""
        wrong = [
            f"{key} is {said[key]!r:.60} in its sidecar, and {value!r:.60} in truth"
            for key, value in truth.items()
            if said.get(key) is not None and not _same(key, said[key], value)
        ]
        for text in wrong:
            self.remark("contradiction", name, text)
        return "; ".join(wrong)


def only_first(facts: TiffFacts) -> str:
    """Tell of a TIFF that holds more than one image."""
    return f"it holds {facts.series} images that are no planes of one, of which only the first is taken"


def _raise(error: OSError) -> None:
    raise error


def _same(key: str, said: Any, truth: Any) -> bool:
    try:
        if key == "dtype":
            return bool(np.dtype(str(said)).newbyteorder("<").str == truth)
        if key == "shape":  # axes of length 1 come and go
            return [size for size in said if size != 1] == [size for size in truth if size != 1]
    except (TypeError, ValueError):
        return False
    return bool(said == truth)
