"""A catalog of another machine: one request a plane, runs that grow, servers that die, lie or refuse."""

import contextlib
import gzip
import json
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gently_bluesky import Catalog, FileWriter, replay
from gently_bluesky.errors import (
    ElsewhereError,
    GentlyError,
    RootError,
    RunNotFoundError,
    ServerAnswerError,
    ServerGoneError,
    ServerRefusesError,
    ServerVersionError,
    TooLargeError,
    VolumeMissingError,
)
from gently_bluesky.keep.verify import verify
from gently_bluesky.read.images import ImageSeries
from gently_bluesky.read.remote import pixels
from gently_bluesky.read.remote.catalog import RemoteCatalog
from gently_bluesky.read.remote.connection import Connection
from gently_bluesky.serve.app import create_app
from tests.data_rig import REPOSITORY, newest, pixel_file, settle, start_doc, stop_doc
from tests.serve_rig import KEY, SHAPE, recorded, served, serving

HELLO = {"name": "gently_bluesky", "version": "1", "api": 1, "runs": 1}
TOKEN = "a-token-of-many-letters"


class Asking:
    """A catalog whose questions are counted."""

    def __init__(self, url: str, **options: Any) -> None:
        self.asked: list[httpx.URL] = []
        inner = httpx.HTTPTransport()

        def handle(request: httpx.Request) -> httpx.Response:
            self.asked.append(request.url)
            return inner.handle_request(request)

        transport = httpx.MockTransport(handle)
        transport.close = inner.close  # type: ignore[method-assign]
        self.catalog = RemoteCatalog(url, connection=Connection(url, transport=transport, **options))

    def during(self, act: Callable[[], Any]) -> list[str]:
        """The paths that are asked for meanwhile."""
        before = len(self.asked)
        act()
        return [url.path.removeprefix("/api/v1") for url in self.asked[before:]]


@pytest.fixture(scope="module", params=["ome-tiff", "ome-zarr"])
def here_and_there(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A root with one run, and the address of its server."""
    root = tmp_path_factory.mktemp("one") / "root"
    recorded(root, 4, image_format=request.param)
    with serving(create_app(root, may_tag=True)) as url:
        yield root, url


# --- requests -----------------------------------------------------------------------------------------------


def test_a_plane_is_one_request(here_and_there: tuple[Path, str]) -> None:
    root, url = here_and_there
    asking = Asking(url)
    images = asking.catalog[-1]["primary"][KEY]
    expected = newest(root)["primary"][KEY]
    for index in ((3, 5), (0, slice(None), 3), (2, slice(1, 4), slice(None), slice(0, 40, 2)), (-1, -1, 0, 0)):
        assert asking.during(partial(images.__getitem__, index)) == ["/questions/pixels"]
        np.testing.assert_array_equal(images[index], expected[index])


def test_a_projection_is_made_by_the_server(here_and_there: tuple[Path, str]) -> None:
    root, url = here_and_there
    asking = Asking(url)
    images = asking.catalog[-1]["primary"][KEY]
    assert images.shape == (4, *SHAPE)
    assert asking.during(lambda: images.project(0, axis="y")) == ["/questions/projection"]
    np.testing.assert_array_equal(images.project(0, axis="y"), newest(root)["primary"][KEY].project(0, axis="y"))


def test_what_a_series_is_takes_one_request_however_many_events_it_has(here_and_there: tuple[Path, str]) -> None:
    asking = Asking(here_and_there[1])
    images = asking.catalog[-1]["primary"][KEY]
    assert asking.during(lambda: (images.shape, images.dtype, images.levels, images.dims)) == ["/questions/held"]
    assert asking.during(lambda: images.stored) == ["/questions/held"]  # anew: it may have gone


def test_a_run_is_asked_for_and_its_documents_and_no_more(here_and_there: tuple[Path, str]) -> None:
    asking = Asking(here_and_there[1])
    assert asking.during(lambda: asking.catalog[-1].start) == ["/questions/run"]
    assert asking.during(lambda: asking.catalog[-1]["primary"].time) == ["/questions/run", "/questions/documents"]


def test_volumes_of_one_run_ask_for_their_run_once(here_and_there: tuple[Path, str]) -> None:
    asking = Asking(here_and_there[1])
    found = asking.catalog.volumes(include_bad=True)
    paths = asking.during(lambda: [volume.array() for volume in found])
    assert sorted(paths) == ["/questions/documents", *["/questions/pixels"] * 4, "/questions/run"]


def test_a_large_volume_comes_in_parts(here_and_there: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = here_and_there
    monkeypatch.setattr(pixels, "ANSWER_BYTES", 2000)
    asking = Asking(url)
    images = asking.catalog[-1]["primary"][KEY]
    expected = newest(root)["primary"][KEY]
    for index in ((0,), (0, slice(None, None, -2)), (2, slice(4, 1, -1), slice(None), slice(None, None, 3))):
        assert len(asking.during(partial(images.__getitem__, index))) > 2
        np.testing.assert_array_equal(images[index], expected[index])
    np.testing.assert_array_equal(images.volume(3), expected.volume(3))


def test_what_a_server_does_not_give_at_once_is_an_error_that_says_how_to_ask_for_less(root: Path) -> None:
    from gently_bluesky.serve.doors import Limits

    recorded(root, 1)
    with serving(create_app(root, limits=Limits(answer_bytes=1000))) as url:
        images = Catalog(url)[-1]["primary"][KEY]
        with pytest.raises(TooLargeError, match=r"1,000 are given at once. Ask for fewer planes") as caught:
            images[0]
        assert caught.value.more["limit"] == 1000
        assert images[0, 0, 0].shape == (48,)


def slices(size: int) -> st.SearchStrategy[Any]:
    ends = st.none() | st.integers(-size - 2, size + 2)
    steps = st.none() | st.integers(-3, 3).filter(bool)
    return st.integers(-size - 1, size) | st.builds(slice, ends, ends, steps) | st.just(...)


@given(index=st.tuples(slices(4), *map(slices, SHAPE)).filter(lambda index: index.count(...) < 2), many=st.data())
def test_any_slice_is_what_it_is_at_home(
    here_and_there: tuple[Path, str], index: Any, many: st.DataObject
) -> None:
    root, url = here_and_there
    index = index[: many.draw(st.integers(1, 4))]
    here, there = (images_of(where).including_bad for where in (str(root), url))
    assert came(lambda: here[index]) == came(lambda: there[index])


_IMAGES: dict[str, ImageSeries] = {}


def images_of(where: str) -> ImageSeries:
    if where not in _IMAGES:
        _IMAGES[where] = Catalog(where)[-1]["primary"][KEY]
    return _IMAGES[where]


def came(ask: Callable[[], Any]) -> Any:
    try:
        array = ask()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error)
    return array.shape, array.dtype, array.tobytes()


# --- runs that grow, documents, tags ------------------------------------------------------------------------


def test_a_run_that_grows_is_read_on_from_where_it_was(root: Path) -> None:
    with FileWriter(root) as writer, contextlib.ExitStack() as stack:
        writer("start", start_doc(uid="grows"))
        key = {"source": "t", "dtype": "number", "shape": []}
        writer(
            "descriptor",
            {"uid": "d", "run_start": "grows", "time": 1.0, "name": "primary", "data_keys": {"x": key}},
        )
        settle(writer)
        asking = Asking(stack.enter_context(serving(create_app(root))))
        run = asking.catalog["grows"]
        assert (run.is_open, list(run)) == (True, [])
        for number in range(1, 4):
            event = {"uid": f"e{number}", "descriptor": "d", "seq_num": number, "time": 2.0, "filled": {}}
            writer("event", event | {"data": {"x": number}, "timestamps": {"x": 1.0}})
            writer.flush()
            settle(writer)
            assert [len(run[name]) for name in run] == [number - 1] * (number > 1)  # a snapshot
            assert run.refresh()["primary"]["x"].tolist() == list(range(1, number + 1))
        begins = [int(url.params["from"]) for url in asking.asked if url.path.endswith("/documents")]
        assert begins == sorted(set(begins))
        writer("stop", stop_doc("grows"))
        settle(writer)
        assert run.is_open
        assert run.refresh().exit_status == "success"
        assert list(run.documents()) == list(newest(root).documents())


def test_documents_come_page_by_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gently_bluesky.serve import routes_questions

    run = recorded(root, 5)
    monkeypatch.setattr(routes_questions, "_DOCUMENT_BYTES", 500)
    with serving(create_app(root)) as url:
        asking = Asking(url)
        found = asking.catalog[-1]
        assert len(asking.during(lambda: list(found))) > 5
        assert list(found.documents()) == list(run.documents())


def test_runs_come_page_by_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gently_bluesky.read.remote import catalog

    with FileWriter(root) as writer:
        for number in range(7):
            writer("start", start_doc(uid=f"run {number}", time=1.0 + number // 2))
            writer("stop", stop_doc(f"run {number}", 9.0))
    monkeypatch.setattr(catalog, "_PAGE", 2)
    with serving(create_app(root)) as url:
        asking = Asking(url)
        expected = [run.uid for run in Catalog(root)]
        assert [run.uid for run in asking.catalog] == expected
        assert [run.uid for run in asking.catalog.search()] == expected
        assert [run.uid for run in asking.catalog.search(limit=5)] == expected[:5]
        assert asking.during(lambda: next(iter(asking.catalog))) == ["/questions/search"]


def test_a_remote_run_is_replayed_into_another_root_with_its_pixels(
    here_and_there: tuple[Path, str], tmp_path: Path
) -> None:
    found = Catalog(here_and_there[1])[-1]
    with FileWriter(tmp_path / "copy", image_format="ome-zarr") as writer:
        replay(found, writer, fill=True)
    copy = newest(tmp_path / "copy")
    assert copy.uid == found.uid
    assert not verify(tmp_path / "copy").errors
    np.testing.assert_array_equal(copy["primary"][KEY].including_bad[:], found["primary"][KEY].including_bad[:])


def test_tags_and_notes_are_given_where_the_server_allows_it(here_and_there: tuple[Path, str]) -> None:
    root, url = here_and_there
    run = Catalog(url)[-1]
    run.tag("good one", by="ann")
    run.note("see the tail", by="ann")
    assert run.tags == newest(root).tags == {"good one"}
    assert run.notes == newest(root).notes
    run.untag("good one")
    assert not run.tags
    with pytest.raises(ValueError, match="is no tag"):
        run.tag(" ")
    with served(root) as closed, pytest.raises(ServerRefusesError, match=r"takes no tags.*--may-tag does"):
        Catalog(closed.url)[-1].tag("x")


def test_a_volume_that_went_meanwhile_says_so(root: Path) -> None:
    run = recorded(root, 2)
    with serving(create_app(root)) as url:
        images = Catalog(url)[-1]["primary"][KEY]
        assert images.stored.tolist() == [True, True]
        pixel_file(run.folder, KEY).unlink()
        with pytest.raises(VolumeMissingError, match="and there is no such file"):
            images.volume(0)
        assert images.stored.tolist() == [False, True]


# --- what is of this machine --------------------------------------------------------------------------------


def test_what_needs_a_folder_says_that_there_is_none_here(here_and_there: tuple[Path, str]) -> None:
    catalog = Catalog(here_and_there[1])
    with pytest.raises(ElsewhereError, match=r"The root at http://127.* is a folder of another machine"):
        _ = catalog.root
    with pytest.raises(ElsewhereError, match=r"Run .* is in runs/.* --into ROOT --fill copies it"):
        _ = catalog[-1].folder
    assert catalog[-1].home.as_posix().startswith("runs/")
    assert repr(catalog) == f"<Catalog {catalog.where}: 1 run>"


def test_options_that_belong_elsewhere_are_refused(root: Path) -> None:
    recorded(root, 1)
    with pytest.raises(TypeError, match="A token is shown to a server"):
        Catalog(root, token=TOKEN)
    with pytest.raises(TypeError, match="Those for runs at http://x are given to the server there"):
        Catalog("http://x", handlers={"a": lambda path: lambda: 1})
    with pytest.raises(ValueError, match="An address is http://host:8000"):
        Catalog("http://ann:secret@x")
    with pytest.raises(RootError):
        Catalog("ftp://x")


# --- tokens -------------------------------------------------------------------------------------------------


def test_a_token_is_given_as_it_is_at_hand(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(root, 1)
    with serving(create_app(root, token=TOKEN)) as url:
        assert len(Catalog(url, token=TOKEN)) == 1
        assert len(Catalog(f"{url}/?token={TOKEN}")) == 1
        for wrong in (None, "another-token-of-letters"):
            with pytest.raises(ServerRefusesError, match=r"refuses: .*A token is needed.*GENTLY_TOKEN") as caught:
                Catalog(url, token=wrong)
            assert isinstance(caught.value, PermissionError)
        monkeypatch.setenv("GENTLY_TOKEN", TOKEN)
        assert len(Catalog(url)) == 1
        assert TOKEN not in repr(Catalog(url)) + Catalog(f"{url}/?token={TOKEN}").where


# --- servers that fail --------------------------------------------------------------------------------------


def test_nobody_there_is_an_error_that_says_where() -> None:
    waits: list[float] = []
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ServerGoneError, match=rf"Nobody answers at {url}.*gently-bluesky serve") as caught:
            Connection(url, wait=waits.append)
    assert isinstance(caught.value, ConnectionError)
    assert waits == [0.25, 0.5, 1.0]


def test_a_server_that_goes_and_comes_back_is_asked_again(root: Path) -> None:
    recorded(root, 2)
    app = create_app(root)
    with serving(app) as url:
        catalog = RemoteCatalog(url, connection=Connection(url, wait=lambda seconds: None))
        images = catalog[-1]["primary"][KEY]
        expected = images[0, 1]
    with pytest.raises(ServerGoneError):
        images[0, 1]
    with serving(app, port=int(url.rpartition(":")[2])):
        np.testing.assert_array_equal(images[0, 1], expected)
        assert len(catalog) == 1


def test_a_root_that_vanishes_behind_a_server_is_an_error(root: Path) -> None:
    recorded(root, 1)
    with serving(create_app(root)) as url:
        catalog = RemoteCatalog(url, connection=Connection(url, wait=lambda seconds: None))
        root.rename(root.with_name("moved"))
        with pytest.raises(RootError, match="Is its disk mounted"):
            catalog[-1]
        root.with_name("moved").rename(root)
        assert catalog[-1].uid


Answers = Sequence[Any]


def pretending(answers: Answers, **options: Any) -> tuple[Connection, list[httpx.Request], list[float]]:
    """A connection to a server that answers hello, and then what is said, the last one for ever."""
    left, asked, waits = [httpx.Response(200, json=HELLO), *answers], list[httpx.Request](), list[float]()

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    connection = Connection("http://far:1", transport=httpx.MockTransport(handle), wait=waits.append, **options)
    return connection, asked, waits


def nothing(said: Any) -> Any:
    return said


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy = httpx.Response(503, headers={"retry-after": "3"}, content=b"{}")
    connection, asked, waits = pretending([busy, busy, httpx.Response(200, json=[1])])
    assert connection.ask("/x", nothing) == [1]
    assert (len(asked), waits) == (4, [3.0, 3.0])


def test_a_connection_that_breaks_is_tried_again_and_then_is_an_error() -> None:
    broken = httpx.ReadError("reset")
    connection, asked, waits = pretending([broken, httpx.Response(200, json=7)])
    assert connection.ask("/x", nothing) == 7
    connection, asked, waits = pretending([broken])
    with pytest.raises(ServerGoneError, match="http://far:1 went while it was asked for /x"):
        connection.ask("/x", nothing)
    assert (len(asked), waits) == (5, [0.25, 0.5, 1.0])


def test_a_server_that_is_silent_is_an_error_that_says_for_how_long() -> None:
    connection, _, _ = pretending([httpx.ReadTimeout("silent")], timeout_s=2.5, tries=2)
    with pytest.raises(ServerGoneError, match=r"was silent for 2\.5 s"):
        connection.ask("/x", nothing)


def test_what_changes_something_is_sent_once() -> None:
    connection, asked, _ = pretending([httpx.ReadError("reset")])
    with pytest.raises(ServerGoneError):
        connection.tell("/x", {})
    assert len(asked) == 2
    connection, asked, _ = pretending([httpx.Response(503, content=b"{}"), httpx.Response(200, json={})])
    connection.tell("/x", {})  # it did nothing yet
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("hello", "error", "says"),
    [
        (
            httpx.Response(200, json=HELLO | {"api": 2}),
            ServerVersionError,
            "API 2.*it is newer; update this client",
        ),
        (httpx.Response(200, json=HELLO | {"api": 0}), ServerVersionError, "API 0.*it is older than this client"),
        (httpx.Response(404, text="Not Found"), ServerVersionError, "there is no server of gently_bluesky"),
        (httpx.Response(200, text="<html>hello</html>"), ServerAnswerError, "Is it a server of gently_bluesky"),
        (httpx.Response(200, json=[]), ServerAnswerError, "what is not understood"),
        (httpx.Response(200, json={"api": "1"}), ServerAnswerError, "its api is '1'"),
        (httpx.Response(200, content=b"\xff\xfe"), ServerAnswerError, "what is not understood"),
        (httpx.Response(500, text="oops"), ServerAnswerError, "with status 500: 'oops'"),
        (httpx.Response(301, headers={"location": "https://far"}), ServerAnswerError, "is now at 'https://far'"),
        (httpx.Response(403, json={"detail": "No."}), ServerRefusesError, "refuses: No."),
        (httpx.RemoteProtocolError("cut"), ServerAnswerError, "broke off its answer"),
        (httpx.DecodingError("gzip"), ServerAnswerError, "broke off its answer"),
    ],
)
def test_a_far_side_that_is_not_what_it_should_be_is_an_error_by_name(
    hello: Any, error: type[Exception], says: str
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(hello, Exception):
            raise hello
        return httpx.Response(hello.status_code, headers=hello.headers, content=hello.content)

    with pytest.raises(error, match=says):
        Connection("http://far:1", transport=httpx.MockTransport(handle), wait=lambda seconds: None)


@pytest.mark.parametrize(
    ("headers", "content", "says"),
    [
        ({"x-shape": "2,3", "x-dtype": "<u2"}, bytes(11), r"with 11 bytes; \(2, 3\) uint16 are 12. None of them"),
        ({"x-shape": "2,3", "x-dtype": "<u2"}, bytes(13), "with 13 bytes"),
        ({"x-shape": "2,3", "x-dtype": "<u2"}, b"", "with 0 bytes"),
        ({"x-shape": "2,3"}, bytes(12), "without saying shape and dtype"),
        ({"x-dtype": "<u2"}, bytes(12), "without saying shape and dtype"),
        ({"x-shape": "2,-3", "x-dtype": "<u2"}, bytes(12), "without saying shape and dtype"),
        ({"x-shape": "a", "x-dtype": "<u2"}, bytes(12), "without saying shape and dtype"),
        ({"x-shape": "2", "x-dtype": "O"}, bytes(16), "without saying shape and dtype"),
        ({"x-shape": "2", "x-dtype": "nonsense"}, bytes(16), "without saying shape and dtype"),
    ],
)
def test_pixels_that_are_not_all_there_are_never_data(headers: dict[str, str], content: bytes, says: str) -> None:
    connection, _, _ = pretending([httpx.Response(200, headers=headers, content=content)])
    with pytest.raises(ServerAnswerError, match=says):
        connection.pixels("/questions/pixels")


def test_of_an_answer_that_is_blown_up_no_more_is_taken_than_was_to_come() -> None:
    body = json.dumps(HELLO).encode()
    bomb = gzip.compress(bytes(300 << 20), 1)
    hello = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
    head = b"HTTP/1.1 200 OK\r\nx-shape: 4\r\nx-dtype: <u2\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
    with saying(hello, head + bomb[: 1 << 17]) as url:
        connection = Connection(url, tries=1)
        tracemalloc.start()
        try:
            with pytest.raises(ServerAnswerError, match="with more than"):
                connection.pixels("/x", ((4,), np.dtype("u2")))
            assert tracemalloc.get_traced_memory()[1] < 160 << 20
        finally:
            tracemalloc.stop()


Lie = Callable[[httpx.Response], httpx.Response]


def said(shape: str, dtype: str, nbytes: int, status: int = 200, run: str | None = None) -> Lie:
    """Pixels that were not asked for."""

    def lie(true: httpx.Response) -> httpx.Response:
        headers = {"x-shape": shape, "x-dtype": dtype, "x-run": run or true.headers.get("x-run", "")}
        return httpx.Response(status, headers=headers, content=bytes(nbytes))

    return lie


@contextlib.contextmanager
def lying(url: str, path: str, lie: Lie) -> Iterator[RemoteCatalog]:
    """A catalog of a server that lies when it is asked for a path."""
    inner = httpx.HTTPTransport()

    def handle(request: httpx.Request) -> httpx.Response:
        answer = inner.handle_request(request)
        answer.read()
        return lie(answer) if request.url.path.endswith(path) else answer

    yield RemoteCatalog(url, connection=Connection(url, transport=httpx.MockTransport(handle), tries=1))
    inner.close()


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (said("16,48", "<u2", 1536), r"\(16, 48\) uint16; \(32, 48\) uint16 was asked for"),
        (said("32,48", "<f8", 12288), "float64"),
        (said("", "<u2", 2), r"\(\) uint16"),
        (said("1,48", "<u2", 96, status=206), "with status 206"),
        (said("32,48", "<u2", 3072, run="another"), "answered of another"),
    ],
)
def test_a_plane_that_is_another_than_was_asked_for_is_no_data(
    here_and_there: tuple[Path, str], lie: Lie, says: str
) -> None:
    with lying(here_and_there[1], "/questions/pixels", lie) as catalog:
        images = catalog[-1]["primary"][KEY]
        with pytest.raises(ServerAnswerError, match=says):
            images[0, 3]


def test_a_volume_or_projection_of_another_shape_is_no_data(here_and_there: tuple[Path, str]) -> None:
    with lying(here_and_there[1], "/questions/pixels", said("2,32,48", "<u2", 6144)) as catalog:
        images = catalog[-1]["primary"][KEY]
        for ask in (lambda: images[0], lambda: images.volume(0), images.to_dask()[0].compute):
            with pytest.raises(ServerAnswerError, match="was asked for"):
                ask()
    with lying(here_and_there[1], "/questions/projection", said("3,3", "<u2", 18)) as catalog:
        images = catalog[-1]["primary"][KEY]
        with pytest.raises(ServerAnswerError, match=r"\(32, 48\) uint16 was asked for"):
            images.project(0)


def test_a_run_that_was_not_asked_for_and_documents_twice_are_errors(here_and_there: tuple[Path, str]) -> None:
    root, url = here_and_there
    uid = newest(root).uid

    def other(true: httpx.Response) -> httpx.Response:
        run = true.json()
        return httpx.Response(200, json=run | {"start": run["start"] | {"uid": "other"}})

    with (
        lying(url, "/questions/run", other) as catalog,
        pytest.raises(ServerAnswerError, match=f"for run {uid}, and gave run other"),
    ):
        catalog[uid]

    def doubled(true: httpx.Response) -> httpx.Response:
        page = true.json()
        return httpx.Response(200, json=page | {"documents": [*page["documents"], page["documents"][-2]]})

    with (
        lying(url, "/questions/documents", doubled) as catalog,
        pytest.raises(ServerAnswerError, match="and gave one that ends at byte"),
    ):
        list(catalog[-1])


@pytest.mark.parametrize(
    "nonsense", [None, 1, "x", [], {}, {"start": 1}, {"value": 3}, {"runs": {"a": 1}}, [[[]]]]
)
def test_nonsense_is_an_error_by_name_whatever_is_asked(nonsense: Any) -> None:
    connection, _, _ = pretending([httpx.Response(200, json=nonsense)])
    catalog = RemoteCatalog("http://far:1", connection=connection)
    questions: list[Callable[[], Any]] = [
        lambda: catalog[-1],
        lambda: len(catalog),
        lambda: list(catalog),
        catalog.search,
        catalog.volumes,
        lambda: catalog.trace("x"),
        lambda: catalog.known(["x"]),
        lambda: catalog.timepoints("s", "e"),
        catalog.sessions if nonsense != [] else catalog.next_scan_id,
    ]
    for ask in questions:
        with pytest.raises(ServerAnswerError):
            ask()


def test_a_problem_becomes_the_error_that_it_was() -> None:
    problem = {"type": "urn:gently-bluesky:run-not-found", "detail": "No run.", "status": 404, "available": [1]}
    connection, _, _ = pretending([httpx.Response(404, content=json.dumps(problem))])
    with pytest.raises(RunNotFoundError, match=r"^No run\.$"):
        connection.ask("/x", nothing)
    problem |= {"type": "urn:gently-bluesky:of-the-future", "status": 409}
    connection, _, _ = pretending([httpx.Response(409, content=json.dumps(problem))])
    with pytest.raises(ServerAnswerError, match=r"with status 409: No run\."):
        connection.ask("/x", nothing)


def test_every_error_of_this_project_finds_its_class_again() -> None:
    from gently_bluesky import errors
    from gently_bluesky.read.remote.problems import error_of
    from gently_bluesky.serve.problems import kind_of

    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, GentlyError)]
    assert len(kinds) > 50
    for kind in (*kinds, IndexError, ValueError, TypeError):
        problem = {"type": f"urn:gently-bluesky:{kind_of(kind('x'))}", "detail": "what, where"}
        error = error_of("http://far", "/x", 400, problem, "")
        assert (type(error), str(error)) == (kind, "what, where")


@contextlib.contextmanager
def saying(*answers: bytes) -> Iterator[str]:
    """A server that sends raw bytes for each connection and hangs up; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                taken, _ = listening.accept()
                with taken:
                    taken.recv(65536)
                    taken.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_a_body_that_is_cut_short_on_the_wire_is_an_error() -> None:
    body = json.dumps(HELLO).encode()
    hello = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
    head = b"HTTP/1.1 200 OK\r\nx-shape: 4\r\nx-dtype: <u2\r\ncontent-length: 8\r\n\r\n"
    with saying(hello, head + bytes(5), head + bytes(7)) as url:
        connection = Connection(url, tries=2, wait=lambda seconds: None)
        with pytest.raises(ServerAnswerError, match="broke off its answer"):
            connection.pixels("/x")
    with saying(hello, head + bytes(5), head + bytes(range(8))) as url:
        connection = Connection(url, tries=2, wait=lambda seconds: None)
        assert connection.pixels("/x").tobytes() == bytes(range(8))


def test_what_speaks_no_http_is_an_error() -> None:
    with (
        saying(*[b"220 mail.example.org ESMTP\r\n"] * 2) as url,
        pytest.raises(ServerAnswerError, match="no HTTP"),
    ):
        Connection(url, tries=2, wait=lambda seconds: None)


# --- what a server is asked that no client asks -------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    ["", "[]", "1", "{", "[" * 4000, '{"since":%s}' % ("9" * 400), '{"since":[]}', '{"self":1}',
     '{"limit":1}', '{"$float":[]}', '{"nobody":1,"x":{"$bytes":"!"}}'],
)  # fmt: skip
@pytest.mark.parametrize("question", ["search", "volumes"])
def test_a_question_that_cannot_be_understood_is_refused(
    here_and_there: tuple[Path, str], question: str, asked: str
) -> None:
    answer = httpx.get(f"{here_and_there[1]}/api/v1/questions/{question}", params={"asked": asked})
    assert answer.status_code == 422 or (answer.status_code, answer.json().get("runs", [])) == (200, [])


def test_the_lines_of_the_readme_are_true(here_and_there: tuple[Path, str], tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8").partition("**From another machine**")[2]
    lines = readme.partition("```python\n")[2].partition("```")[0]
    lines = lines.replace('"http://scope:8000", token="..."', repr(here_and_there[1])).replace(
        "[3, 100]", "[3, 5]"
    )
    with FileWriter(tmp_path / "copy") as writer:
        names = {"Catalog": Catalog, "replay": replay, "FileWriter": lambda root: writer}
        exec(lines.replace("spim_a", KEY), names)
    assert newest(tmp_path / "copy").uid == newest(here_and_there[0]).uid
    assert names["plane"].shape == SHAPE[1:]  # type: ignore[attr-defined]
