"""A sink that keeps nothing: what acquisition costs without a data layer."""

from collections.abc import Iterator, Sequence
from typing import Any

from event_model import StreamRange, compose_stream_resource
from numpy.typing import DTypeLike, NDArray

from gently_bluesky.protocols import Resource, Volume, VolumeMetadata

Doc = dict[str, Any]


class NullSink:
    """Takes frames and drops them; its resources give the documents that have to be given."""

    def __init__(self) -> None:
        self._resources: dict[str, NullResource] = {}

    def open_resource(
        self, data_key: str, *, shape: Sequence[int], dtype: DTypeLike, metadata: VolumeMetadata | None = None
    ) -> Resource:
        if data_key not in self._resources:
            self._resources[data_key] = NullResource(data_key)
        return self._resources[data_key]

    def forget_run(self) -> None:
        """Begin a new run."""
        self._resources = {}


class NullResource:
    def __init__(self, data_key: str) -> None:
        self.sealed = 0
        self._emitted = False
        self._documents = compose_stream_resource(
            mimetype="multipart/related;type=image/tiff",
            uri="file://localhost/nowhere/",
            data_key=data_key,
            parameters={},
        )

    @property
    def uid(self) -> str:
        return str(self._documents.stream_resource_doc["uid"])

    def new_volume(self, metadata: VolumeMetadata | None = None) -> Volume:
        return NullVolume(self)

    def asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Doc]]:
        if not self._emitted:
            yield "stream_resource", dict(self._documents.stream_resource_doc)
        self._emitted = True
        here = StreamRange(start=self.sealed - 1, stop=self.sealed)
        datum = self._documents.compose_stream_datum(here, StreamRange(start=0, stop=0))
        yield "stream_datum", {**datum, "descriptor": ""}


class NullVolume:
    def __init__(self, resource: NullResource) -> None:
        self.index = resource.sealed
        self._resource = resource

    def write(self, z: int, frame: NDArray[Any], *, time: float | None = None) -> None:
        pass

    def seal(self) -> None:
        self._resource.sealed += 1

    def abort(self, reason: str) -> None:
        pass
