"""Whatever is asked of a catalog, it answers the same from a folder and from a server, errors included."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from gently_bluesky import Catalog
from gently_bluesky.read.diff import diff
from gently_bluesky.read.run import Run
from gently_bluesky.serve.app import create_app
from gently_bluesky.store.strict_json import encode, plain
from tests.remote_rig import HANDLERS, every_run, everything, outcome
from tests.serve_rig import serving


class Both:
    """One root, from here and from a server."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.local = Catalog(root, handlers=HANDLERS)
        self.remote = Catalog(url)

    def agree(self, ask: Callable[[Catalog], Any]) -> Any:
        """Hold that both answer the same; give the answer."""
        here, there = outcome(lambda: ask(self.local)), outcome(lambda: ask(self.remote))
        assert here == there
        return here

    def agree_on(self, uid: str, ask: Callable[[Run], Any]) -> Any:
        """Hold that both answer the same of a run."""
        return self.agree(lambda catalog: ask(catalog[uid]))


@pytest.fixture(scope="module", params=["ome-tiff", "ome-zarr"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    root = tmp_path_factory.mktemp("remote") / "root"
    everything(root, request.param)
    in_order = dask.config.set(scheduler="synchronous")  # of several errors, the first one is compared
    with in_order, serving(create_app(root, handlers=HANDLERS)) as url:
        yield Both(root, url)


ODD = object()
QUESTIONS: list[Callable[[Catalog], Any]] = [
    len,
    list,
    lambda c: c[-1],
    lambda c: c[-3].uid,
    lambda c: c["-2"].uid,
    lambda c: c[-99],
    lambda c: c[7].uid,
    lambda c: c[np.int64(7)].uid,  # type: ignore[index]
    lambda c: c[77],
    lambda c: c["aaaa"],
    lambda c: c["zz"],
    lambda c: c[""],
    lambda c: c[1.5],  # type: ignore[index]
    lambda c: c[True],
    lambda c: c.search(),
    lambda c: c.search(limit=2),
    lambda c: [encode(plain(start)) for start in c.starts()],
    lambda c: c.starts(session="s9"),
    lambda c: c.search(limit=0),
    lambda c: c.search(limit=-1),
    lambda c: c.search(plan_name="timelapse"),
    lambda c: c.search(plan_name="nope"),
    lambda c: c.search(session="s", operator="bob"),
    lambda c: c.search(roi=(1, 2)),
    lambda c: c.search(sample={"a": [1, None]}),
    lambda c: c.search(sesion="s"),
    lambda c: c.search(embryo="e1"),
    lambda c: c.search(tag="blue"),
    lambda c: c.search(since="2999-01-01"),
    lambda c: c.search(until="2026-11-23"),
    lambda c: c.search(since="yesterday"),
    lambda c: c.search(what=ODD),
    lambda c: c.volumes(),
    lambda c: c.volumes(include_bad=True),
    lambda c: c.volumes(derived=True),
    lambda c: c.volumes(derived=None, embryo="e1"),
    lambda c: c.volumes(stored=True, include_bad=True),
    lambda c: c.volumes(embryo="gone", stored=True),
    lambda c: c.volumes(embryo="e1", timepoint=1),
    lambda c: c.volumes(embryo="e9"),
    lambda c: c.volumes(session="s", timepoint=np.int64(2), view="B"),
    lambda c: c.volumes(embrio="e1"),
    lambda c: [(v.event, v.array(), v.images, v.run) for v in c.volumes(session="s", include_bad=True)],
    lambda c: c.sessions(),
    lambda c: c.timepoints("s", "e1"),
    lambda c: c.timepoints("s", "nobody"),
    lambda c: c.next_timepoint("s", "e1"),
    lambda c: c.next_scan_id(),
    lambda c: c.lineage(c.search(plan_name="timelapse")[0]),
    lambda c: c.lineage("aaaa-1", up=False),
    lambda c: c.lineage("nowhere"),
    lambda c: c.lineage("nowhere at all"),
    lambda c: c.lineage("aaaa-1", -1),
    lambda c: c.lineage(-1, 0).text(),
    lambda c: diff(c["run"], c[-2]).as_dict(),
]


@pytest.mark.parametrize("ask", QUESTIONS, ids=map(str, range(len(QUESTIONS))))
def test_a_catalog_answers_the_same_from_a_server(both: Both, ask: Callable[[Catalog], Any]) -> None:
    both.agree(ask)


OF_A_RUN: list[Callable[[Run], Any]] = [
    repr,
    lambda r: r.start,
    lambda r: r.stop,
    lambda r: r.is_open,
    lambda r: r.exit_status,
    lambda r: r.damage,
    lambda r: list(r.documents()),
    lambda r: list(r.documents(rebase=False)),
    lambda r: list(r.documents(fill=True)),
    lambda r: r.check_fillable(),
    lambda r: list(r.up_to_damage.documents()),
    list,
    lambda r: r["nope"],
    lambda r: "primary" in r,
    lambda r: r.tags,
    lambda r: r.notes,
    lambda r: [(relative.uid, relative.edge, relative.missing, relative.run) for relative in r.parents],
    lambda r: [(relative.uid, relative.edge, relative.missing, relative.run) for relative in r.children],
    lambda r: r.left_beside,
    lambda r: [entry.line() for entry in r.manifest],
    lambda r: r.refresh().uid,
    lambda r: [r[name] for name in r],
    lambda r: [r[name].configuration() for name in r],
    lambda r: {(name, key): r[name][key] for name in r for key in r[name] if key not in r[name].image_keys},
    lambda r: [r[name].seq_num for name in r],
    lambda r: [r[name].time for name in r],
    lambda r: r["primary"].read(),
    lambda r: r["primary"].read(include_bad=True),
    lambda r: r.to_xarray(),
    lambda r: r.to_xarray(include_bad=True),
    lambda r: r.home.name,
]


@pytest.mark.parametrize("ask", OF_A_RUN, ids=map(str, range(len(OF_A_RUN))))
def test_every_run_answers_the_same_from_a_server(both: Both, ask: Callable[[Run], Any]) -> None:
    for uid in every_run(both.local):
        both.agree_on(uid, ask)


OF_IMAGES: list[Callable[[Any], Any]] = [
    lambda i: i.shape,
    lambda i: i.dtype.newbyteorder("="),
    lambda i: i.dims,
    lambda i: i.voxel_size_um,
    lambda i: i.stored,
    lambda i: i.levels,
    lambda i: i.source(0),
    lambda i: i.source(-1),
    lambda i: i.source(99),
    lambda i: i[0],
    lambda i: i[0, 1],
    lambda i: i[0, -1],
    lambda i: i[-1, 0],
    lambda i: i[0, 99],
    lambda i: i[99, 0],
    lambda i: i[0, 0, 0, 0, 0, 0],
    lambda i: i[0, :, :2, 1:4],
    lambda i: i[0, ..., 1],
    lambda i: i[..., ::2],
    lambda i: i[::-2],
    lambda i: i[[-1, 0], 1],
    lambda i: i[5:],
    lambda i: i[0, "a"],
    lambda i: i[0, [1]],
    lambda i: i["a"],
    lambda i: i.including_bad[:],
    lambda i: i.including_bad[-1, 1],
    lambda i: [i.volume(event) for event in range(len(i)) if event != 1],
    lambda i: i.volume(1),
    lambda i: i.volume(1, include_bad=True),
    lambda i: i.volume(-1, include_bad=True),
    lambda i: i.lazy(0)[1],
    lambda i: i.frames_there(-1),
    lambda i: i.frames_there(0),
    lambda i: [i.project(0, axis=axis) for axis in ("z", "y", "x")],
    lambda i: i.project(0, axis="t"),
    lambda i: i.project(-1, include_bad=True),
    lambda i: i.only([0]).to_dask().compute(),
    lambda i: i.volume_to_dask(0)[1].compute(),
    lambda i: [level[0] for level in i.levels],
    lambda i: i.check(0),
    lambda i: i.check(1),
    lambda i: i.check(-1),
    lambda i: i.voxel_size_um_of(0),
]


@pytest.mark.parametrize("ask", OF_IMAGES, ids=map(str, range(len(OF_IMAGES))))
def test_all_images_answer_the_same_from_a_server(both: Both, ask: Callable[[Any], Any]) -> None:
    for uid, run in every_run(both.local).items():
        for name in [] if run.damage else run:
            for key in run[name].image_keys:
                both.agree_on(uid, lambda r: ask(r[name].images(key)))  # noqa: B023 - asked at once
