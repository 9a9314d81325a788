"""What a check has to say of a root: findings, and the report that holds them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""An error: data or documents are not what they should be. A warning: look at it. A note: as it may be."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    folder
        Of the run, relative to the root; empty for what belongs to no run.
    severity, kind
        How bad, and a word for programs: "missing", "short", "changed", "unknown", "schema" ...
    text
        What was expected, what is there and what to do, for people.
    where
        The file, relative to the folder, or the document.
    """

    folder: str
    severity: Severity
    kind: str
    text: str
    where: str = ""

    def __str__(self) -> str:
        place = "/".join(part for part in (self.folder, self.where) if part)
        return f"{self.severity}: {place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification did and found.

    Attributes
    ----------
    runs, documents, files
        How many of each were looked at; documents of runs that have not changed since the last time are not.
    bytes, bytes_read
        Of all stored pixels, and how much of them was read: the rest was compared before.
    findings
        Sorted by folder.
    """

    root: str
    runs: int = 0
    documents: int = 0
    files: int = 0
    bytes: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    findings: tuple[Finding, ...] = field(default=())

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that are errors."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def counts(self) -> Mapping[str, int]:
        """How many findings there are of each severity."""
        return Counter(finding.severity for finding in self.findings)

    def lines(self) -> Iterable[Mapping[str, Any]]:
        """Give the report for programs: an object a finding, and one of the figures."""
        yield from (asdict(finding) for finding in self.findings)
        yield {key: value for key, value in asdict(self).items() if key != "findings"} | {
            "errors": len(self.errors)
        }
