"""OME-Zarr over HTTP, read by zarr-python and yaozarrs: every form that is stored, and what is still growing."""

import json
import threading
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

from gently_bluesky import Catalog, FileWriter
from tests.data_rig import Camera, connected, volume
from tests.serve_rig import API, KEY, SHAPE, Served, recorded, series, served


def opened(server: Served, run: Any) -> zarr.Group:
    """The store, as zarr-python reads it over HTTP."""
    return zarr.open_group(f"{server.url}{API}{series(run)}/zarr", mode="r")


def level(group: zarr.Group, number: int) -> Any:
    """A level, as the metadata name it."""
    ome: Any = group.attrs["ome"]
    datasets = ome["multiscales"][0]["datasets"]
    return group[datasets[number]["path"]]


def test_zarr_python_reads_every_stored_form(tmp_path: Path, every_format: str) -> None:
    """The pixels are those that were acquired, of good volumes."""
    root = tmp_path / "root"
    run = recorded(root, 3)
    with served(root) as server:
        array = level(opened(server, run), 0)
        assert array.shape == (3, *SHAPE)
        assert array.dtype == np.uint16
        for number in (0, 2):
            np.testing.assert_array_equal(array[number], volume(number, SHAPE))
        np.testing.assert_array_equal(array[2, 3, 4:9, ::5], volume(2, SHAPE)[3, 4:9, ::5])
