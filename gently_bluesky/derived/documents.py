"""The documents of a derived run: events that say from which volumes they are, and what those show.

A derived event carries what its parents' events say of identity and, under the same names, the settings that their
data keys refer to, so that descriptors and files of derived volumes are as right as those of acquired ones. What
differs in data keys, shape or voxel size goes to a stream of its own: one stream has one geometry. A function says
nothing of identity but that an event is not `good`, after its parents and references have had their say.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from event_model import ComposeDescriptorBundle, ComposeRunBundle, compose_run

from gently_bluesky.derived.parents import ParentVolume, agreed
from gently_bluesky.derived.result import Pixels, Result, in_memory
from gently_bluesky.errors import DerivationError
from gently_bluesky.store.index import IDENTITY_KEYS
from gently_bluesky.store.streams import STORED_IN, Doc, is_good
from gently_bluesky.store.strict_json import encode, plain

_REFERRING = ("voxel_size_um", "exposure_ms", "channel", "stage_position_um", "z_centre_um")
_OF_THE_VOLUME = ("view", "exposure_ms", "channel", "stage_position_um")  # true of whatever is derived from it
_GOOD = "good"
_PARENT_KEYS = ("parent_run", "parent_stream", "parent_seq_num", "parent_time")


class DerivedRun:
    """Composes the documents of one derived run.

    Parameters
    ----------
    start
        What its start document says, but for uid and time.
    function
        The name of what is called: the source of its data.
    good
        Whether everything is that each of its events is made with, beside its parents.
    """

    def __init__(self, start: Mapping[str, Any], function: str, *, good: bool = True) -> None:
        self._run: ComposeRunBundle = compose_run(metadata=dict(start))
        self._source = f"derived:{function}"
        self._good = good
        self._streams: dict[bytes, ComposeDescriptorBundle] = {}
        self._names: set[str] = set()

    @property
    def start(self) -> Doc:
        """The start document."""
        return dict(self._run.start_doc)

    def stop(self, exit_status: str = "success", reason: str = "") -> Doc:
        """Give the stop document."""
        return dict(self._run.compose_stop(exit_status=exit_status, reason=reason))  # type: ignore[arg-type]

    def event(self, results: Iterable[Result], *, one_event: bool) -> Iterator[tuple[str, Doc]]:
        """Give the documents of one event: a descriptor, if it is the first of its kind, and the event.

        Parameters
        ----------
        results
            What it holds.
        one_event
            Whether all volumes that they are from are those of one event; else the event says a list of them.

        Raises
        ------
        DerivationError
            A result is nothing that can be stored, or has a name that says something else or that another has.
        """
        results = list(results)
        parents = list(dict.fromkeys(parent for result in results for parent in result.of))
        if not parents:
            raise DerivationError("A derived event must hold something, and say from which volumes it is.")
        _refuse_names([result.data_key for result in results], parents)
        data, data_keys = _told(parents, single=one_event, good=self._good)
        for result in results:
            key, value = result.data_key, in_memory(result.value, result.data_key)
            # where several views were given, a result that is named after one of them is described like it
            of = [of for of in result.of if of.data_key == key] or result.of
            if key == _GOOD:  # of the event as a whole
                value, of = _good_too(value, data), parents
            data[key] = value.array if isinstance(value, Pixels) else value
            data_keys[key] = self._described(value, of)
        bundle, is_new = self._stream(parents[0].stream, data_keys)
        if is_new:
            yield "descriptor", dict(bundle.descriptor_doc)
        now = time.time()
        taken = agreed(parent.time for parent in parents)  # a result is as old as what was measured
        timestamps = dict.fromkeys(data, now if taken is None else taken)
        yield "event", dict(bundle.compose_event(data=data, timestamps=timestamps, time=now))

    def _described(self, result: Any, parents: Sequence[ParentVolume]) -> Doc:
        parent_keys = sorted({parent.data_key for parent in parents})
        entry: Doc = {
            "source": self._source,
            "parent_data_key": parent_keys[0] if len(parent_keys) == 1 else parent_keys,
        }
        if not isinstance(result, Pixels):
            return entry | _kind(result)
        shape = result.array.shape
        entry |= {"dtype": "array", "shape": list(shape), "dtype_numpy": result.array.dtype.newbyteorder("<").str}
        if len(shape) > 1:  # an image is a file, however small
            entry[STORED_IN] = "file"
        alike = next((parent.dims for parent in parents if parent.shape == shape), None)
        dims = alike if result.dims is None else tuple(result.dims)
        said: Doc = {key: agreed(parent.described.get(key) for parent in parents) for key in _OF_THE_VOLUME}
        if result.voxel_size_um is not None:
            said["voxel_size_um"] = [float(each) for each in result.voxel_size_um]
        elif dims is not None:
            said["voxel_size_um"] = _spacing(dict(zip(dims, shape, strict=True)), parents)
            if dims == alike:
                said["z_centre_um"] = agreed(parent.described.get("z_centre_um") for parent in parents)
        said["dims"] = None if dims is None else list(dims)
        return entry | {key: value for key, value in said.items() if value is not None}

    def _stream(self, name: str, data_keys: Mapping[str, Doc]) -> tuple[ComposeDescriptorBundle, bool]:
        kind = encode(plain([name, sorted(data_keys.items())], "data keys"))
        if kind in self._streams:
            return self._streams[kind], False
        own, number = name, 2
        while own in self._names:
            own, number = f"{name}_{number}", number + 1
        self._names.add(own)
        self._streams[kind] = self._run.compose_descriptor(own, dict(data_keys), hints={}, configuration={})
        return self._streams[kind], True


def _refuse_names(names: Sequence[str], parents: Sequence[ParentVolume]) -> None:
    """Refuse names that an event has for its parents and what they show, and those of several results."""
    for name in names:
        if name in _PARENT_KEYS or (name in IDENTITY_KEYS and name != _GOOD):
            raise DerivationError(
                f"{name!r} says from which volume a derived event is, or what that shows. Give results another "
                "name."
            )
        if name != _GOOD and names.count(name) > 1:
            raise DerivationError(
                f"Several results of {parents[0].event} are named {name!r}; data keys are text, 1 is '1'. Derive "
                "from one data key, or let the function name its results after the data key of its keyword "
                "`parent`."
            )


def _good_too(value: Any, data: Mapping[str, Any]) -> bool:
    """Whether an event is good that a function says is: what comes of a bad volume is none the better."""
    if not isinstance(value, bool):
        raise DerivationError(f"An event is good, True, or it is not, False; {value!r:.80} says neither.")
    return value and is_good(data)


def _spacing(sizes: Mapping[str, int], parents: Sequence[ParentVolume]) -> list[Any] | None:
    """Give the spacing along axes that the parents have in the same size, as data keys say it; None if unknown."""
    said = agreed(list(parent.described.get("voxel_size_um") or ()) for parent in parents)
    axes = agreed(list(zip(parent.dims, parent.shape, strict=True)) for parent in parents)
    if not said or axes is None or len(said) != len(axes) or not sizes.items() <= set(axes):
        return None  # cropped or binned: who did it must say
    return [dict(zip(dict(axes), said, strict=True))[dim] for dim in sizes]


def _told(parents: Sequence[ParentVolume], *, single: bool, good: bool) -> tuple[Doc, dict[str, Doc]]:
    """Give what an event says of its parents, and its description: identity, settings, and which they are."""
    data: Doc = {}
    data_keys: dict[str, Doc] = {}
    for key in dict.fromkeys(key for parent in parents for key in (*IDENTITY_KEYS, *_referred(parent))):
        entry = next((parent.data_keys[key] for parent in parents if key in parent.data_keys), None)
        value = agreed(parent.said(key) for parent in parents)
        if key == _GOOD and not (good and all(parent.good for parent in parents)):
            value = False
        if entry is not None or (key in IDENTITY_KEYS and isinstance(value, str | int)):
            data[key] = value
            data_keys[key] = {"source": "start document", **_kind(value)} if entry is None else dict(entry)
    which: list[tuple[Any, ...]] = list(
        dict.fromkeys((each.run_uid, each.stream, each.seq_num, each.time) for each in parents)
    )
    for name, column in zip(_PARENT_KEYS, zip(*which, strict=True), strict=True):
        data[name] = column[0] if single else list(column)
        entry = _PARENT_ENTRIES[name]
        data_keys[name] = dict(entry) if single else {**entry, "dtype": "array", "shape": [None]}
    return data, data_keys


def _entry(dtype: str, **more: str) -> Doc:
    return {"source": "derived:parent", "dtype": dtype, "shape": [], **more}


_PARENT_ENTRIES: Mapping[str, Doc] = {
    "parent_run": _entry("string"),
    "parent_stream": _entry("string"),
    "parent_seq_num": _entry("integer"),
    "parent_time": _entry("number", units="s"),
}


def _referred(parent: ParentVolume) -> Iterator[str]:
    """Give the data keys that hold what the volume's data key refers to."""
    for name in _REFERRING:
        said = parent.described.get(name)
        for part in said if isinstance(said, list) else [said]:
            if isinstance(part, str) and part != parent.data_key:
                yield part


def _kind(value: Any) -> Doc:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"dtype": kinds.get(type(value), "string"), "shape": []}
