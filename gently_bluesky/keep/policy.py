"""What the user allows to be taken away, and what must stay: a policy, read from TOML.

Knows what rules may say, and whether one names a run or a volume; knows nothing of files. What is wrong with a
policy is named by file, rule and key.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from gently_bluesky.errors import ConfigError
from gently_bluesky.store.index import VolumeRow

POLICY = "retention.toml"
"""Where a root's policy is, if none is given."""

_OF_RUN = ("plan_name", "session", "operator", "purpose")
_OF_VOLUME = ("embryo", "view", "channel", "data_key")

Text = Annotated[str, StringConstraints(strict=True, min_length=1, pattern=r"^[^\n\r]*$")]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=1)]
Group = Literal["session", "embryo", "plan"]
Form = Literal["ome-tiff", "ome-zarr", "npy"]


class Rule(BaseModel):
    """A name, and selectors: patterns as of a shell (``*``, ``?``, ``[a-c]``), all of which must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    plan_name: Text | None = None
    session: Text | None = None
    operator: Text | None = None
    purpose: Text | None = None
    embryo: Text | None = None
    view: Text | None = None
    channel: Text | None = None
    data_key: Text | None = None

    def fits_run(self, start: Mapping[str, Any]) -> bool:
        """Whether a run may be meant, by its start document."""
        return all(_fits(pattern, start.get(key)) for key, pattern in self._of_run)

    def fits_volume(self, row: VolumeRow) -> bool:
        """Whether a volume of such a run is meant, by what it shows."""
        return all(_fits(pattern, getattr(row, key)) for key, pattern in self._of_volume)

    @cached_property
    def _of_run(self) -> list[tuple[str, str]]:
        return [(key, pattern) for key in _OF_RUN if (pattern := getattr(self, key)) is not None]

    @cached_property
    def _of_volume(self) -> list[tuple[str, str]]:
        return [(key, pattern) for key in _OF_VOLUME if (pattern := getattr(self, key)) is not None]


def _fits(pattern: str, value: object) -> bool:
    return value is not None and fnmatchcase(str(value), pattern)


class KeepRule(Rule):
    """What must stay, whatever else is said; all that is given must hold.

    Attributes
    ----------
    tagged
        Runs with a tag that this pattern fits.
    with_children
        Runs that another run was derived from. They stay in any case; this gives them a rule's name.
    newest, per
        Of each session, embryo (of a session) or plan, the runs that started last, with something still stored.
    every_timepoint
        Timepoints that this divides, 0 among them. A volume without a timepoint is none.
    """

    tagged: Text | None = None
    with_children: Literal[True] | None = None
    newest: Whole | None = None
    per: Group | None = None
    every_timepoint: Whole | None = None

    @model_validator(mode="after")
    def _newest_of_what(self) -> Self:
        if (self.newest is None) != (self.per is None):
            raise ValueError('newest and per go together, as in newest = 3 and per = "embryo"')
        return self

    def fits_tag(self, tag: str) -> bool:
        """Whether a tag is the one that is meant."""
        return self.tagged is None or _fits(self.tagged, tag)


class RemoveRule(Rule):
    """What may go; all that is given must hold.

    Attributes
    ----------
    older_than_days
        Of runs that ended so long ago; 0: as soon as they have ended.
    total_above_gb
        The oldest first, until what the root stores is not more than this (10**9 bytes; the trash not counted).
    free_below_gb
        The oldest first, until so much is free on the disk, once the trash is empty.
    representation, once_in
        Only this stored form, and only where the same pixels are stored in the other form as well.
    """

    older_than_days: NotNegative | None = None
    total_above_gb: NotNegative | None = None
    free_below_gb: NotNegative | None = None
    representation: Form | None = None
    once_in: Form | None = None

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if (self.representation is None) != (self.once_in is None):
            raise ValueError('representation and once_in go together, as in "ome-tiff" once_in "ome-zarr"')
        if self.representation is not None and self.representation == self.once_in:
            raise ValueError("representation and once_in must be two forms")
        if self.total_above_gb is not None and self.free_below_gb is not None:
            raise ValueError("total_above_gb and free_below_gb are two rules")
        conditions = (self.older_than_days, self.total_above_gb, self.free_below_gb, self.representation)
        if all(condition is None for condition in conditions):
            raise ValueError(
                "says what may go, and not when: older_than_days (0: at once), total_above_gb, free_below_gb, or "
                "representation with once_in"
            )
        return self


class Policy(BaseModel):
    """What is removed and what is kept.

    Attributes
    ----------
    grace_days
        How long what was removed stays in the trash; 0: it is deleted in the same go.
    keep, remove
        Rules. A keep goes before every remove; what no remove names, stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grace_days: Annotated[float, Field(strict=True, ge=0, le=36_500)] = 14.0
    keep: tuple[KeepRule, ...] = ()
    remove: tuple[RemoveRule, ...] = ()

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        counts = Counter(rule.name for rule in (*self.keep, *self.remove))
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"several rules are called {twice[0]!r}; a name tells them apart")
        return self


def load_policy(path: Path | str) -> Policy:
    """Read a policy.

    Parameters
    ----------
    path
        A TOML file: `grace_days`, tables ``[[keep]]`` and ``[[remove]]``.

    Raises
    ------
    ConfigError
        There is no such file, it is not TOML, or a key or value in it is not allowed. The message has a line for
        each of them: file, rule, key, what is allowed.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return check_policy(content, source=path.name)


def check_policy(content: Mapping[str, Any], *, source: str) -> Policy:
    """Check a policy that is already in memory; `source` is for the message of the ConfigError."""
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        lines = [f"{source}: {_told(content, details)}" for details in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from error


def _told(content: Mapping[str, Any], details: ErrorDetails) -> str:
    where = _where(content, details["loc"])
    if details["type"] == "extra_forbidden":
        rule: type[BaseModel] = KeepRule if details["loc"][0] == "keep" else RemoveRule
        model = Policy if len(details["loc"]) == 1 else rule
        return f"{where}: no such key; allowed are {', '.join(model.model_fields)}"
    if where in {"keep", "remove"} and isinstance(details["input"], dict):
        return f"[{where}] is one table; rules are a list: write [[{where}]]"
    message = details["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if details["type"] in {"value_error", "missing"}:
        return f"{where}: {message}"
    return f"{where}: {message}, not {details['input']!r}"


def _where(content: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Give the path of a key; a rule by its name, or by its number from 1 where it has none."""
    if len(location) < 2 or not isinstance(location[1], int):
        return ".".join(map(str, location)) or "the whole file"
    kind, number, *key = location
    rule = content[str(kind)][number]
    name = rule.get("name") if isinstance(rule, dict) else None
    which = f"[[{kind}]] {name!r}" if isinstance(name, str) and name else f"[[{kind}]] number {int(number) + 1}"
    return ": ".join([which, *(["".join(map(str, key[:1]))] if key else [])])
