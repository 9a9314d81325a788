"""Reads a configuration from TOML; what is wrong with it is named by file and path of the key.

What a file says goes over the defaults, key by key. Knows pydantic's errors and how to say them; knows nothing
of what the keys mean.
"""

import tomllib
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from devices.configuration import Configuration
from gently_bluesky.errors import ConfigError


def load_configuration(path: Path | str) -> Configuration:
    """Read an instrument's configuration.

    Parameters
    ----------
    path
        A TOML file. Keys that it leaves out keep their defaults, in every table; lists are replaced whole. In
        the tables whose keys are the user's own (as lines, presets, embryos) `false` takes a default away.

    Returns
    -------
    Configuration
        Checked.

    Raises
    ------
    ConfigError
        There is no such file, it is not TOML, or a key or value in it is not allowed. The message has a line
        for each of them: file, path of the key, what is allowed.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return check_configuration(content, source=path.name, folder=path.parent)


def check_configuration(content: dict[str, Any], *, source: str, folder: Path | None = None) -> Configuration:
    """Check a configuration that is already in memory.

    Parameters
    ----------
    content
        As TOML gives it; goes over the defaults key by key.
    source
        Where it is from, for the message.
    folder
        What relative paths in it are relative to; None: the working directory.

    Raises
    ------
    ConfigError
        A key or value in it is not allowed.
    """
    whole = _over(Configuration().model_dump(), content, Configuration)
    try:
        return Configuration.model_validate(whole, context={"folder": folder})
    except ValidationError as error:
        lines = [_told(source, details) for details in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from error


def _over(default: Any, given: Any, annotation: Any) -> Any:
    """Put what was given over the default; only tables are merged."""
    if not isinstance(default, dict) or not isinstance(given, dict):
        return given
    named_by_user = get_origin(_without_none(annotation)) is dict
    merged = dict(default)
    for key, value in given.items():
        if named_by_user and value is False and key in default:
            del merged[key]
        else:
            merged[key] = _over(default.get(key), value, _inner(annotation, key))
    return merged


def _told(source: str, details: ErrorDetails) -> str:
    where = ".".join(str(part) for part in details["loc"]) or "the whole file"
    if details["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(Configuration, details["loc"][:-1]))
        return f"{source}: {where}: no such key; allowed are {allowed}"
    message = details["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if details["type"] in {"value_error", "missing"}:
        return f"{source}: {where}: {message}"
    return f"{source}: {where}: {message}, not {details['input']!r}"


def _fields_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys at a place in the configuration."""
    annotation: Any = model
    for part in location:
        annotation = _inner(annotation, part)
    annotation = _without_none(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return sorted(annotation.model_fields)
    return ["(anything)"]


def _inner(annotation: Any, part: int | str) -> Any:
    annotation = _without_none(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if arguments else None


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, types.UnionType}:
        return next((inner for inner in get_args(annotation) if inner is not type(None)), None)
    return annotation
