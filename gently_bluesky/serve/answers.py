"""What the routes answer, as OpenAPI has it: one model an answer, words as everywhere in this project.

Values out of documents (`Any`) are strict JSON as journals spell it: nan is ``{"$float": "nan"}``.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Doc = dict[str, Any]


class Answer(BaseModel):
    """What a route answers. Text that UTF-8 cannot say, a lone surrogate, has a mark in its place."""

    @model_validator(mode="before")
    @classmethod
    def _said(cls, values: Any) -> Any:
        return _sayable(values)


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_sayable(name): _sayable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(each) for each in value]
    return value


class ProblemAnswer(Answer):
    """A problem, as RFC 9457 has it; further members say what there is."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    available: Any = Field(None, description="What there is instead, where that helps.")


class Home(Answer):
    """What this server is and has."""

    name: str
    version: str
    api: int
    runs: int
    newest: str | None = Field(description="uid of the newest run.")
    free_bytes: int
    total_bytes: int
    may_tag: bool


class SessionAnswer(Answer):
    """A session."""

    name: str
    since: float
    until: float
    runs: int
    embryos: list[str]


class Timepoints(Answer):
    """The timepoints of an embryo: from first to last, `count` are there and the others missing."""

    first: int | None
    last: int | None
    count: int
    missing: list[int] = Field(description="The first 1000 that are not there.")


class EmbryoAnswer(Answer):
    """An embryo of a session."""

    embryo: str
    timepoints: Timepoints
    volumes: int
    views: list[str]
    channels: list[str]


class RunFacts(Answer):
    """What is said of a run wherever it stands."""

    uid: str
    scan_id: Any
    plan_name: str | None
    session: Any = None
    embryo: Any = None
    operator: Any = None
    purpose: Any = None
    time: float
    stop_time: float | None
    exit_status: str | None
    is_open: bool
    tags: list[str]
    damage: str | None = Field(None, description="Where its journal is damaged; it is read up to there.")


class RunLine(RunFacts):
    """A run in a list."""

    streams: dict[str, int] = Field(description="Events of each stream.")


class RunPage(Answer):
    """Runs, newest first; `next` goes into `after` for those that follow."""

    runs: list[RunLine]
    next: str | None
    why_none: str = ""
    available: dict[str, list[Any]] = {}


class NoteAnswer(Answer):
    """What was said of a run afterwards."""

    time: float
    by: str
    added: list[str]
    removed: list[str]
    text: str


class StreamAnswer(Answer):
    """A stream of a run."""

    events: int
    data_keys: dict[str, Doc]
    series: list[str] = Field(description="Data keys that are images.")


class RelativeAnswer(Answer):
    """A run that this one came from, or that came of this one."""

    run: str
    kind: str
    is_there: bool


class GrowingAnswer(Answer):
    """A volume that is being acquired, or that was left when its run was interrupted: no event names it."""

    data_key: str
    resource: str
    index: int
    shape: list[int]
    dtype: str
    frames_there: int
    frames: int


class RunAnswer(RunFacts):
    """One run."""

    start: Doc
    stop: Doc | None
    notes: list[NoteAnswer]
    streams: dict[str, StreamAnswer]
    disk_bytes: int
    parents: list[RelativeAnswer]
    children: list[RelativeAnswer]
    growing: list[GrowingAnswer]


class Table(Answer):
    """Events of a stream, a row each: seq_num, time and the columns that are no images."""

    stream: str
    events: int
    first: int
    seq_num: list[int]
    time: list[float | None]
    columns: dict[str, list[Any]]
    next: int | None = Field(description="`first` of the rows that follow.")


class LevelAnswer(Answer):
    """A level of a pyramid: its shape, the event axis included, and how many voxels of the first one spans."""

    shape: list[int]
    factors: list[int]


class EventAnswer(Answer):
    """One volume of a series."""

    event: int
    seq_num: int
    time: float | None
    good: bool
    stored: bool
    embryo: Any = None
    timepoint: Any = None
    position: Any = None
    channel: Any = None
    view: str | None = None
    resource: str | None = None
    index: int | None = None
    source: str | None = Field(None, description="The form that is read, and its file in the run's folder.")
    removed: str | None = Field(
        None, description="By which rule it went, when, and until when it is in the trash."
    )


class SeriesAnswer(Answer):
    """The images of a data key."""

    run: str
    stream: str
    key: str
    shape: list[int]
    dtype: str
    dims: list[str]
    voxel_size_um: list[float] | None
    levels: list[LevelAnswer]
    is_open: bool
    first: int
    events: list[EventAnswer]
    next: int | None = Field(description="`first` of the events that follow.")


class VolumeAnswer(Answer):
    """A volume of a stream resource, as its manifest, or its file while it grows, has it."""

    run: str
    resource: str
    index: int
    data_key: str
    shape: list[int]
    dtype: str
    format: str
    state: str = Field(description='"sealed", "aborted", "removed", "foreign", or "growing".')
    frames_there: list[bool] | None = Field(description="Of each frame whether it came; None: all did.")
    levels: list[LevelAnswer]


class Histogram(Answer):
    """How many pixels have which value, of all pixels that the slice names."""

    counts: list[int]
    edges: list[float]
    min: float | None
    max: float | None
    mean: float | None
    percentiles: dict[str, float]
    pixels: int


class VolumeLine(Answer):
    """A volume in answer to a question."""

    run_uid: str
    event: int | None
    stream: str
    seq_num: int
    data_key: str
    time: float | None
    session: Any
    embryo: Any
    timepoint: Any
    position: Any
    view: str | None
    channel: Any
    good: bool
    resource: str | None
    index: int | None


class VolumePage(Answer):
    """Volumes, newest first; `next` goes into `after`. Where there are none: why, and what there is."""

    volumes: list[VolumeLine]
    next: str | None
    why_none: str = ""
    available: dict[str, list[Any]] = {}


class Numbers(Answer):
    """Whole numbers in answer to a question."""

    values: list[int]


class Number(Answer):
    """A whole number in answer to a question."""

    value: int


class Tagging(BaseModel):
    """Tags to add and to remove, and a note, by whom."""

    model_config = ConfigDict(extra="forbid")

    add: list[str] = Field([], max_length=50)
    remove: list[str] = Field([], max_length=50)
    note: str = Field("", max_length=10_000)
    by: str = Field(min_length=1, max_length=200)


class Tags(Answer):
    """The tags that a run has now."""

    run: str
    tags: list[str]


class LineageAnswer(Answer):
    """Where a run came from and what came of it."""

    run: str
    nodes: list[Doc]
    edges: list[Doc]
    cycles: list[list[str]]
