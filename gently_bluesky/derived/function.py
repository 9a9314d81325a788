"""What is called: a function by the name under which it is found again, its parameters, and what identifies its
code.

That is the commit of its checkout, or the version of its distribution; where neither says what ran, it is the
source text itself. A function that nothing identifies is refused.
"""

import contextlib
import copy
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from gently_bluesky.errors import DerivationError, DocumentError
from gently_bluesky.provenance import commit_of, version_of
from gently_bluesky.store.strict_json import plain

TOLD = "parent"
"""The keyword by which a function is told of the volume that it is given, if it has it."""


@dataclass(frozen=True, slots=True)
class Called:
    """A function, and what a start document says of it.

    Attributes
    ----------
    function
        What is called.
    parameters
        With what: what was given, and defaults that a call could change, as they were when the document was made.
    is_generator
        Whether it takes all volumes at once.
    wants_parent
        Whether it is to be told of the volume that it is given.
    document
        Its name, parameters, defaults, version, commit, source.
    """

    function: Callable[..., Any]
    parameters: Mapping[str, Any]
    is_generator: bool
    wants_parent: bool
    document: dict[str, Any]

    def arguments(self) -> dict[str, Any]:
        """Give the parameters for one call, which may change them: the next is given what the document says."""
        return copy.deepcopy(dict(self.parameters))

    @property
    def name(self) -> str:
        """Its name in full: module and qualified name."""
        return str(self.document["name"])

    @property
    def short_name(self) -> str:
        """Its own name, as a plan's."""
        return self.name.rpartition(".")[2].strip("<>")

    @property
    def package(self) -> str:
        """The top-level package that it is in."""
        return self.name.partition(".")[0]


def called(function: Callable[..., Any], parameters: Mapping[str, Any], references: Mapping[str, Any]) -> Called:
    """Look at a function before it is called.

    Raises
    ------
    DerivationError
        It does not take these parameters or references, a parameter is nothing that a document can hold, or
        nothing would say afterwards what ran.
    """
    if not callable(function):
        raise DerivationError(f"{function!r} is no function.")
    recorded = {name: _recorded(value, f"Parameter {name!r}") for name, value in parameters.items()}
    signature = _signature(function)
    told = _takes_parent(function, signature)
    _check_taken(function, signature, {**dict.fromkeys([TOLD] if told else ()), **references}, parameters)
    document = {"name": f"{function.__module__}.{_qualname(function)}", "parameters": recorded}
    defaults, changeable = _defaults(signature, {TOLD, *parameters, *references})
    if defaults:
        document["defaults"] = defaults
    return Called(
        function=function,
        parameters=copy.deepcopy({**changeable, **parameters}),
        is_generator=inspect.isgeneratorfunction(function),
        wants_parent=told,
        document=document | _identity(function),
    )


# --- parameters -----------------------------------------------------------------------------------------------


def _recorded(value: Any, where: str) -> Any:
    """Give a parameter as a document holds it: nothing that would have to be turned into something else."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _recorded(item, f"{where}, {key!r}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_recorded(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str | np.bool_ | np.number):
        return plain(value, where)
    raise DerivationError(
        f"{where} is {_shown(value)}; a document holds numbers, text, truth values, None, lists and dicts. "
        "Data belong among the parents or references."
    )


def _shown(value: Any) -> str:
    return (
        f"an array {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.80} ({type(value).__name__})"
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):  # written in C
        return None


def _takes_parent(function: Callable[..., Any], signature: inspect.Signature | None) -> bool:
    parameter = None if signature is None else signature.parameters.get(TOLD)
    keyword = {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    first = parameter is not None and signature is not None and next(iter(signature.parameters)) == TOLD
    return (
        parameter is not None
        and parameter.kind in keyword
        and not (first or inspect.isgeneratorfunction(function))
    )


def _check_taken(
    function: Callable[..., Any],
    signature: inspect.Signature | None,
    ours: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> None:
    twice = sorted(ours.keys() & parameters.keys())
    if twice:
        raise DerivationError(f"{twice[0]!r} is a parameter, and derive gives it as well. Give it once.")
    if signature is None:
        return
    try:
        signature.bind(None, **ours, **parameters)
    except TypeError as error:
        raise DerivationError(
            f"{_qualname(function)}{signature} cannot be called with a volume and "
            f"{sorted({*ours, *parameters})}: {error}."
        ) from error


def _defaults(signature: inspect.Signature | None, given: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the defaults that are kept, as a document holds those that it can, and which of them can change."""
    found, changeable = {}, {}
    for name, parameter in () if signature is None else signature.parameters.items():
        value, by_name = parameter.default, parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
        if name in given or value is inspect.Parameter.empty:
            continue
        with contextlib.suppress(DerivationError, DocumentError):
            found[name] = _recorded(value, f"Default {name!r}")
            if by_name and isinstance(value, Mapping | list | tuple):
                changeable[name] = value
    return found, changeable


# --- what ran -------------------------------------------------------------------------------------------------


def _identity(function: Callable[..., Any]) -> dict[str, Any]:
    """Give version and commit as far as there are any, and the source text where they do not say what ran."""
    findable = _is_findable(function)
    module = sys.modules.get(function.__module__)
    path = getattr(module, "__file__", None)
    said: dict[str, Any] = {}
    if findable:
        version = version_of(function.__module__.partition(".")[0])
        said |= {} if version is None else {"version": version}
    if findable and path is not None:
        said |= commit_of(Path(path))
    if said and not said.get("dirty"):
        return said
    source = _source(function)
    if source is None and not findable:
        raise DerivationError(
            f"{function!r} has no name under which it is found again, and no source that could be kept. Define it "
            "in a file."
        )
    return said if source is None else said | {"source": source}


def _source(function: Callable[..., Any]) -> str | None:
    """Give the source text of a function; None if there is none, or another is taken for it."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    name = getattr(function, "__name__", "")
    # for code that was compiled from text Python 3.13 gives the text that the interpreter was started with
    return source if ("lambda" if name == "<lambda>" else f"def {name}") in source else None


def _is_findable(function: Callable[..., Any]) -> bool:
    """Whether a function can be imported by its name; refuse one of which neither this nor its source says all."""
    module = getattr(function, "__module__", None)
    try:
        home = sys.modules[module or ""]
        found: object = reduce(getattr, _qualname(function).split("."), home)
        if found is function and module != "__main__":
            return True
    except (KeyError, AttributeError):
        pass
    if not isinstance(function, types.FunctionType):
        raise DerivationError(
            f"{function!r} has no name under which it is found again. Give a function that a module defines; what "
            "a partial or an object holds belongs into parameters."
        )
    if hidden := function.__code__.co_freevars:
        raise DerivationError(
            f"{_qualname(function)} depends on {', '.join(hidden)} of the function around it, which no document "
            "would say. Make it a parameter."
        )
    return False


def _qualname(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", function))
