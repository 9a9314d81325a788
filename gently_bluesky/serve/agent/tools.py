"""`Tools`: everything that an agent can ask, as functions of one catalog.

The one list of tools: the server offers what stands here, under the same names, with the same words.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any

from gently_bluesky.read.catalog import Catalog
from gently_bluesky.serve.agent import (
    comparing,
    conditions,
    dose,
    embryos,
    figures,
    notes,
    relations,
    runs,
    sheets,
    showing,
    state,
)

READING: Mapping[str, Callable[..., Any]] = {
    tool.__name__: tool
    for tool in (
        state.get_status,
        runs.list_sessions,
        runs.list_runs,
        runs.search_runs,
        runs.get_run,
        runs.get_run_data,
        conditions.get_settings,
        relations.what_changed,
        relations.compare_runs,
        relations.get_lineage,
        embryos.list_embryos,
        embryos.get_timepoints,
        embryos.list_volumes,
        conditions.get_volume,
        conditions.get_acquisition_parameters,
        conditions.get_calibration,
        dose.get_light_dose,
        state.get_disk_use,
        showing.get_run_image,
        showing.get_plane,
        showing.get_projection,
        showing.get_snapshot,
        sheets.get_contact_sheet,
        sheets.compare_embryos,
        comparing.get_overlay,
        comparing.compare_timepoints,
        figures.get_figures,
        figures.get_profile,
        figures.read_pixels,
    )
}
"""Tools that read, by name; each takes a catalog before what is asked."""

WRITING: Mapping[str, Callable[..., Any]] = {"tag_run": notes.tag_run}
"""Tools that write, by name; each takes a catalog and who writes before what is asked."""


class Tools:
    """The tools as plain functions: ``Tools("data").list_runs(limit=3)``.

    Parameters
    ----------
    catalog
        A catalog, or a root.
    may_tag
        Whether tags and notes may be written, and `by` whom.
    """

    def __init__(self, catalog: Catalog | Path | str, *, may_tag: bool = False, by: str = "agent") -> None:
        self._catalog = catalog if isinstance(catalog, Catalog) else Catalog(catalog)
        self._tools = {name: bound(partial(tool, self._catalog), tool, 1) for name, tool in READING.items()}
        for name, tool in WRITING.items() if may_tag else ():
            self._tools[name] = bound(partial(tool, self._catalog, by), tool, 2)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self._tools:
            raise AttributeError(f"there is no tool {name!r}; there are {list(self.__dict__.get('_tools', {}))}")
        return self._tools[name]

    def __dir__(self) -> list[str]:
        return list(self._tools)

    def __iter__(self) -> Any:
        return iter(self._tools.items())


def bound(call: Callable[..., Any], tool: Callable[..., Any], given: int) -> Callable[..., Any]:
    """Give a call under the name and with the words of a tool, without the first parameters, which are given."""

    @wraps(tool)
    def ask(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    signature = inspect.signature(tool, eval_str=True)
    ask.__signature__ = signature.replace(parameters=list(signature.parameters.values())[given:])  # type: ignore[attr-defined]
    return ask
