"""Whether the documents of one run hold together: a check across documents, which no schema makes.

Each document against its schema; references to what came before; ranges; the keys, shapes and kinds of values
against their descriptors; the order of seq_nums and indices; the count in the stop document. Knows no files.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from event_model import DocumentNames, schema_validators
from jsonschema import ValidationError

from gently_bluesky.keep.finding import Finding, Severity
from gently_bluesky.store.streams import Doc, unpack_event_page

_KINDS: Mapping[str, tuple[type, ...]] = {
    "number": (int, float, complex),
    "integer": (int,),
    "boolean": (bool, int),
    "string": (str,),
    "array": (list,),
}


class DocumentCheck:
    """Takes the documents of one run in order, and gathers what is wrong with them.

    Parameters
    ----------
    folder
        Of the run, for the findings.
    """

    def __init__(self, folder: str) -> None:
        self.findings: list[Finding] = []
        self.count = 0
        self._folder = folder
        self._start: Doc | None = None
        self._stopped = False
        self._descriptors: dict[str, Doc] = {}
        self._resources: dict[str, Doc] = {}
        self._datums: set[str] = set()
        self._uids: set[tuple[str, str]] = set()
        self._seq_nums: dict[str, int] = {}
        self._numbers: dict[str, set[int]] = {}
        self._in_datums: dict[str, set[int]] = {}
        self._indices: dict[str, range] = {}

    def __call__(self, name: str, doc: Doc) -> None:
        """Take the next document."""
        self.count += 1
        where = f"{name} {doc.get('uid', doc.get('datum_id', ''))}"[:80]
        try:
            schema_validators[DocumentNames[name]].validate(doc)
        except KeyError:
            self._say(where, "schema", f"there is no kind of document {name!r}")
            return
        except ValidationError as error:
            self._say(where, "schema", error.message[:200])
        for kind, text, severity in self._take(name, doc):
            self._say(where, kind, text, severity)

    def _say(self, where: str, kind: str, text: str, severity: Severity = "error") -> None:
        self.findings.append(Finding(self._folder, severity, kind, text, where))

    def _take(self, name: str, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        if (self._start is None) != (name == "start"):
            yield "order", "a run has one start document, which comes first", "error"
        if self._stopped:
            yield "order", "it comes after the stop document", "error"
        if name not in {"datum", "datum_page", "event_page"}:
            uid = (name, str(doc.get("uid")))
            # a detector that is read again without a trigger gives its last datum again
            if uid in self._uids and name != "stream_datum":
                yield "uid", "its uid came before", "error"
            self._uids.add(uid)
        try:
            yield from _TAKE[name](self, doc)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            yield "schema", f"it lacks or garbles {error!r}", "error"

    def _take_start(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        self._start = doc
        yield from ()

    def _take_stop(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        self._stopped = True
        yield from self._of_this_run(doc)
        for stream, count in (doc.get("num_events") or {}).items():
            # a fly scan has datums in the place of events
            there = len(self._numbers.get(stream) or self._in_datums.get(stream, set()))
            if count != there:
                lost = there < count and doc["exit_status"] == "success"
                severity: Severity = "error" if lost else "warning"
                yield "count", f"it says {count} events of {stream!r}; {there} are there", severity

    def _of_this_run(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        run = (self._start or {}).get("uid")
        if "run_start" in doc and doc["run_start"] != run:
            yield "reference", f"it belongs to run {doc['run_start']}, not to {run}", "error"

    def _take_descriptor(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        yield from self._of_this_run(doc)
        self._descriptors[doc["uid"]] = doc
        for key, entry in doc["data_keys"].items():
            dims = entry.get("dims")
            if dims is not None and len(dims) != len(entry["shape"]):
                yield "shape", f"{key!r} has {len(entry['shape'])} axes and {len(dims)} names for them", "warning"
            if (said := entry.get("dtype_numpy")) is not None and not _is_dtype(said):
                yield "dtype", f"{key!r} has the dtype_numpy {said!r}, which numpy does not know", "error"

    def _descriptor(self, doc: Doc) -> Doc | None:
        return self._descriptors.get(doc["descriptor"])

    # --- events ---------------------------------------------------------------------------------------------

    def _take_event(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        descriptor = self._descriptor(doc)
        if descriptor is None:
            yield "reference", f"descriptor {doc['descriptor']} did not come before it", "error"
            return
        stream, seq_num = descriptor.get("name", "primary"), doc["seq_num"]
        newest = self._seq_nums.get(stream, 0)
        if seq_num < 1 or seq_num > newest + 1:
            yield "seq_num", f"seq_num {seq_num} follows {newest} in {stream!r}", "error"
        self._seq_nums[stream] = max(newest, seq_num)
        self._numbers.setdefault(stream, set()).add(seq_num)
        keys = {key for key, entry in descriptor["data_keys"].items() if entry.get("external") != "STREAM:"}
        for part in ("data", "timestamps"):
            if odd := keys ^ doc[part].keys():
                yield "keys", f"its {part} and its descriptor differ in {sorted(odd)}", "error"
        for key in keys & doc["data"].keys():
            yield from self._value(key, doc["data"][key], descriptor["data_keys"][key], doc.get("filled", {}))

    def _value(
        self, key: str, value: object, entry: Doc, filled: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Severity]]:
        if entry.get("external"):
            if filled.get(key) in (False, None) and value not in self._datums:
                yield "reference", f"{key!r} names datum {value!r}, which did not come before it", "error"
            return
        if value is None:
            return
        if not isinstance(value, _KINDS.get(entry["dtype"], (object,))):
            yield "dtype", f"{key!r} is described as {entry['dtype']} and holds {value!r:.40}", "warning"
        elif isinstance(value, list) and entry.get("dtype_numpy") and _is_dtype(entry["dtype_numpy"]):
            shape = np.shape(value)
            if list(shape) != list(entry["shape"]) and np.prod(entry["shape"]) > 0:
                yield "shape", f"{key!r} is described as {entry['shape']} and holds {list(shape)}", "warning"

    def _take_event_page(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        for event in unpack_event_page(doc):
            yield from self._take_event(event)

    # --- assets ---------------------------------------------------------------------------------------------

    def _take_stream_resource(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        yield from self._of_this_run(doc)
        self._resources[doc["uid"]] = doc

    def _take_stream_datum(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        resource, descriptor = self._resources.get(doc["stream_resource"]), self._descriptor(doc)
        if resource is None:
            yield "reference", f"stream resource {doc['stream_resource']} did not come before it", "error"
        if descriptor is None:
            yield "reference", f"descriptor {doc['descriptor']} did not come before it", "error"
        indices = range(doc["indices"]["start"], doc["indices"]["stop"])
        seq_nums = range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
        if not indices or indices.start < 0 or seq_nums.start < 1 or len(indices) != len(seq_nums):
            yield "range", f"indices {_shown(indices)} cannot be those of seq_nums {_shown(seq_nums)}", "error"
        if resource is None or descriptor is None:
            return
        key = resource["data_key"]
        if descriptor["data_keys"].get(key, {}).get("external") != "STREAM:":
            yield "reference", f"its descriptor does not say that {key!r} is in a stream resource", "error"
        before = self._indices.get(resource["uid"], range(0))
        if before and indices.start < before.stop and indices != before:
            yield "order", f"indices {_shown(indices)} of {key!r} come after {_shown(before)}", "warning"
        self._indices[resource["uid"]] = indices
        stream = descriptor.get("name", "primary")
        self._in_datums.setdefault(stream, set()).update(seq_nums)

    def _take_resource(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        self._resources[doc["uid"]] = doc
        yield from ()

    def _take_datum(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        if doc["resource"] not in self._resources:
            yield "reference", f"resource {doc['resource']} did not come before it", "error"
        self._datums.add(doc["datum_id"])

    def _take_datum_page(self, doc: Doc) -> Iterator[tuple[str, str, Severity]]:
        for datum_id in doc["datum_id"]:
            yield from self._take_datum({"resource": doc["resource"], "datum_id": datum_id})


_TAKE: Mapping[str, Callable[[DocumentCheck, Doc], Iterator[tuple[str, str, Severity]]]] = {
    "start": DocumentCheck._take_start,
    "stop": DocumentCheck._take_stop,
    "descriptor": DocumentCheck._take_descriptor,
    "event": DocumentCheck._take_event,
    "event_page": DocumentCheck._take_event_page,
    "stream_resource": DocumentCheck._take_stream_resource,
    "stream_datum": DocumentCheck._take_stream_datum,
    "resource": DocumentCheck._take_resource,
    "datum": DocumentCheck._take_datum,
    "datum_page": DocumentCheck._take_datum_page,
}


def _is_dtype(said: object) -> bool:
    try:
        np.dtype(said)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return False
    return True


def _shown(numbers: range) -> str:
    return f"{numbers.start} to {numbers.stop}, exclusive"
