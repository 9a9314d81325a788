"""The WebSocket: documents equal to the journal, the newest pictures, and nobody who waits for anybody."""

import io
import os
import re
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gently_bluesky import Catalog, FileWriter
from gently_bluesky.protocols import Volume
from gently_bluesky.serve import live
from gently_bluesky.serve.app import create_app
from gently_bluesky.serve.asked import heard
from gently_bluesky.serve.newest import Want
from gently_bluesky.serve.patience import patient_socket
from gently_bluesky.serve.pictures import encoding
from gently_bluesky.serve.pictures.scaling import area_mean
from gently_bluesky.serve.pictures.window import Window, as_bytes
from gently_bluesky.store.journal import encode_line
from gently_bluesky.store.layout import create_root
from tests.data_rig import (
    DEADLINE_S,
    Camera,
    Child,
    feed,
    hold_pixels,
    newest,
    record,
    run_folder,
    start_doc,
    stop_doc,
    taken,
    volume,
)
from tests.live_rig import Acquiring, Listener, Said, as_sent, listening
from tests.serve_rig import recorded, served, serving


def eventually(condition: Any) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def following() -> list[str]:
    """The threads that follow and make pictures."""
    return [thread.name for thread in threading.enumerate() if thread.name in {"gently-live", "gently-pictures"}]


def closest(said: Said, planes: Sequence[NDArray[Any]]) -> int:
    """Which of several planes a picture shows."""
    shown = np.asarray(Image.open(io.BytesIO(said["jpeg"]))).astype(float)
    small = [as_bytes(area_mean(plane, max(shown.shape)), Window(*said["window"])) for plane in planes]
    return int(np.argmin([np.abs(shown - each).mean() for each in small]))


def longest(said: Said) -> int:
    """The longest side of a picture."""
    return max(Image.open(io.BytesIO(said["jpeg"])).size)


# --- documents ----------------------------------------------------------------------------------------------


def test_documents_come_as_they_are_journalled_in_order(root: Path) -> None:
    create_root(root)
    with served(root) as server, listening(server.url) as listener:
        assert listener.next() == {"type": "hello", "api": 1, "runs": []}
        with Acquiring(root) as acquiring:
            for _ in range(3):
                acquiring.take()
            run = acquiring.end()
        assert listener.documents() == as_sent(run)


def test_an_offset_is_that_of_the_documents_route(root: Path) -> None:
    """So either can go on where the other was."""
    run = recorded(root)
    with served(root) as server, listening(server.url, f"run={run.uid}&rate=0") as listener:
        documents = listener.documents(until="event")
        answer = server.get(f"/runs/{run.uid}/documents", params={"from": listener.offsets[run.uid]})
        assert len(documents) + len(answer.text.splitlines()) == len(as_sent(run))


def test_a_run_that_is_over_is_told_whole_and_from_any_of_its_documents(root: Path) -> None:
    run = recorded(root)
    whole = as_sent(run)
    with served(root) as server:
        with listening(server.url, "run=-1&rate=0") as listener:
            told: list[tuple[str, Any]] = []
            offsets: list[int] = []
            while len(told) < len(whole):
                said = listener.next("document")
                told.append((said["name"], said["doc"]))
                offsets.append(said["offset"])
        assert told == whole
        for number, offset in enumerate(offsets[:-1]):
            with listening(server.url, f"run={run.uid[:8]}&from={offset}&rate=0") as listener:
                assert listener.documents() == whole[number + 1 :]


def test_a_client_that_comes_back_goes_on_where_it_was_over_runs_that_began_meanwhile(root: Path) -> None:
    create_root(root)
    with served(root) as server, Acquiring(root) as acquiring:
        with listening(server.url) as listener:
            (told,) = listener.next("hello")["runs"]
            acquiring.take()
            first = as_sent(newest(root))[:1] + listener.documents(until="event")
            assert told["run"] in listener.offsets
            (uid,) = listener.offsets
            at = listener.offsets[uid]
        acquiring.take()
        one = acquiring.end()
        with Acquiring(root) as again:
            again.take()
            two = again.end()
        with listening(server.url, f"rate=0&from={uid}:{at}") as listener:
            rest = listener.documents(runs=2)
    assert first + rest == as_sent(one) + as_sent(two)


def test_a_client_that_was_never_told_anything_hears_what_comes_and_not_what_was(root: Path) -> None:
    run = recorded(root)
    with served(root) as server, listening(server.url) as listener:
        (told,) = listener.next("hello")["runs"]
        assert told == {"run": run.uid, "offset": (run.folder / "journal.jsonl").stat().st_size, "is_open": False}
        with Acquiring(root) as acquiring:
            later = acquiring.end()
        assert listener.documents() == as_sent(later)


def test_a_long_journal_is_read_from_disk_by_who_is_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gently_bluesky.serve.following._RECENT_BYTES", 2000)
    run = recorded(root, 40)
    with served(root) as server, listening(server.url, "run=-1&rate=0") as listener:
        assert listener.documents() == as_sent(run)


def test_numbers_that_json_lacks_are_spelled(root: Path) -> None:
    start = start_doc(nothing=float("nan"))
    feed(root, [("start", start), ("stop", stop_doc(start["uid"]))])
    with served(root) as server, listening(server.url, "run=-1&rate=0") as listener:
        assert listener.documents()[0][1]["nothing"] == {"$float": "nan"}


def test_what_cannot_be_understood_is_said_and_closed(root: Path) -> None:
    run = recorded(root)
    asked = {
        "run=nothing": 404,
        "run=-7": 404,
        "run=-1&from=3": 404,
        "run=-1&from=99999999": 404,
        f"from={run.uid}:3": 404,
        "run=-1&from=a": 422,
        "run=-1&from=-1": 422,
        "from=17": 422,
        "from=" + "a:1," * 40: 422,
        "show=everything": 422,
        "size=0": 422,
        "size=1e9": 422,
        "rate=nan": 422,
        "rate=-1": 422,
        "rate=1e9": 422,
        "series=" + ",".join(map(str, range(100))): 422,
        "ack=perhaps": 422,
        "sizes=3": 422,
    }
    with served(root) as server:
        for query, status in asked.items():
            with listening(server.url, query) as listener:
                said = listener.next("error")
                assert (said["status"], bool(said["detail"])) == (status, True), query
                assert str(root) not in said["detail"]
                with pytest.raises(ConnectionClosed):
                    listener.next()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "JSON object"),
        ("[1]", "JSON object"),
        ("[" * 4000, "JSON object"),
        (" " * 5000, "4096"),
        ('{"size": "big"}', "numbers"),
        ('{"rate": null}', "numbers"),
        ('{"show": "foo"}', "'foo'"),
        ('{"show": []}', "plane"),
        ('{"series": ["cam_a_image"]}', "commas"),
        ('{"foo": 1, "size": 256}', "foo: no such thing"),
    ],
)
def test_nonsense_is_answered_and_what_was_asked_before_holds(root: Path, text: str, words: str) -> None:
    recorded(root)
    with served(root) as server, listening(server.url, "size=128&rate=30&show=plane") as listener:
        listener.next("hello")
        listener.connection.send(text)
        said = listener.next("error")
        assert said["status"] == 422
        assert words in said["detail"]
        with Acquiring(root, shape=(4, 256, 512)) as acquiring:
            acquiring.take()
            assert listener.picture()["kind"] != "projection"


def test_a_message_changes_what_it_names_and_nothing_else() -> None:
    before = Want("uid", frozenset({"spim_a"}), "plane", 512, 0.0)
    assert heard('{"size": 256}', before) == replace(before, size=256)
    assert heard('{"drawn": 1}', before) == before
    assert heard('{"rate": 2}', before) == replace(before, rate=2.0)
    assert heard('{"series": ""}', before) == replace(before, series=frozenset())


def test_a_damaged_journal_is_said_and_others_go_on(root: Path) -> None:
    with served(create_root(root)) as server, listening(server.url) as listener:
        listener.next("hello")
        with Acquiring(root) as acquiring:
            listener.documents(until="start")
            with (run_folder(root) / "journal.jsonl").open("ab") as file:
                file.write(b"not a document\n")
            while not (said := listener.next("progress")).get("damage"):
                pass
            assert "cannot be followed" in said["damage"]
            assert str(root) not in said["damage"]
            other = start_doc(time=time.time() + 5)
            feed(root, [("start", other), ("stop", stop_doc(other["uid"]))])
            assert [name for name, _ in listener.documents()] == ["start", "stop"]
            acquiring.end()


@pytest.mark.parametrize("days", [1, 400, -3, -400])
def test_a_run_is_told_whichever_day_its_clock_or_that_of_others_says(root: Path, days: int) -> None:
    """A clock that was wrong once hides no run of later, and one that is wrong now hides none either."""
    wrong = [start_doc(time=time.time() + days * 86400) for _ in range(2)]
    feed(root, [("start", wrong[0]), ("stop", stop_doc(wrong[0]["uid"], wrong[0]["time"]))])
    feed(root, [("start", now := start_doc(time=time.time())), ("stop", stop_doc(now["uid"]))])
    with served(root) as server, listening(server.url, "rate=0") as listener:
        listener.next("hello")
        for start in (start_doc(time=time.time()), wrong[1], start_doc(time=time.time())):
            feed(root, [("start", start), ("stop", stop_doc(start["uid"], start["time"]))])
            assert [doc.get("uid") for name, doc in listener.documents() if name == "start"] == [start["uid"]]


def test_a_run_that_nobody_understands_hides_no_other(root: Path) -> None:
    run = recorded(root)
    with served(root) as server, listening(server.url, "rate=0") as listener:
        listener.next("hello")
        for number, line in enumerate((b"no document\n", encode_line({"name": "start", "doc": {"time": "noon"}}))):
            folder = run.folder.with_name(f"nonsense-{number}")
            folder.mkdir()
            (folder / "journal.jsonl").write_bytes(line)
        start = start_doc(time=time.time())
        feed(root, [("start", start), ("stop", stop_doc(start["uid"]))])
        assert [name for name, _ in listener.documents()] == ["start", "stop"]


def test_a_line_is_told_when_it_is_whole(root: Path) -> None:
    start = start_doc(time=time.time())
    line = encode_line({"name": "stop", "doc": stop_doc(start["uid"])})
    feed(root, [("start", start), ("stop", stop_doc(start["uid"]))])
    path = run_folder(root) / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(line)])
    for index in root.glob("index/runs.jsonl"):
        index.unlink()
    with served(root) as server, listening(server.url, "run=-1&rate=0") as listener:
        listener.documents(until="start")
        with path.open("ab") as file:
            file.write(whole[-len(line) : -9])
        with listening(server.url, "run=-1&rate=0") as other:
            assert other.documents(until="start") == as_sent(newest(root))
            listener.next("progress")
        with path.open("ab") as file:
            file.write(whole[-9:])
        assert [name for name, _ in listener.documents()] == ["stop"]


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_says_plan_events_address_end_and_room(root: Path) -> None:
    with served(create_root(root)) as server, listening(server.url) as listener, Acquiring(root) as acquiring:
        acquiring.take(embryo="e7")
        while not (said := listener.next("progress")).get("events"):
            pass
        assert said["events"] == {"primary": 1}
        assert said["plan"]["num_points"] == 99
        assert (said["last"]["embryo"], said["last"]["timepoint"]) == ("e7", 0)
        assert 0 < said["free_bytes"] < said["total_bytes"]
        acquiring.end()
        while not (said := listener.next("progress")).get("exit_status"):
            pass
        assert said["exit_status"] == "success"


# --- pictures -----------------------------------------------------------------------------------------------


def test_the_newest_projection_of_each_view_is_what_was_taken(root: Path) -> None:
    with (
        served(create_root(root)) as server,
        listening(server.url, "size=128&rate=30") as listener,
        Acquiring(root, shape=(4, 256, 512)) as acquiring,
    ):
        acquiring.take()
        acquiring.take()
        seen: dict[str, Said] = {}
        while len(seen) < 2:
            said = listener.picture(seq_num=2)
            seen[said["series"]] = said
        for camera in acquiring.cameras:
            said = seen[camera.key]
            assert said["kind"] == "projection"
            assert (said["view"], said["embryo"], said["timepoint"]) == (camera.view, "e1", 1)
            assert said["shape"] == [256, 512]
            planes = [volume(number, (4, 256, 512)).max(axis=0) for number in range(5)]
            assert (closest(said, planes), longest(said)) == (1, 128)
        acquiring.end()


def test_a_plane_shows_the_newest_frame_of_a_volume_that_grows(root: Path) -> None:
    shape = (6, 32, 64)
    with served(create_root(root)) as server, listening(server.url, "show=plane&rate=30") as listener:
        start = start_doc(time=time.time())
        with FileWriter(root) as writer:
            writer("start", start)
            growing = writer.open_resource("cam", shape=shape, dtype="<u2", metadata={"view": "A"}).new_volume()
            frames = volume(0, shape)
            for z, came in ((0, 1), (5, 2), (3, 3)):
                growing.write(z, frames[z], time=time.time())
                said = listener.picture(frames_came=came)
                assert (said["kind"], said["plane"], said["frames"], said["view"]) == ("frame", z, 6, "A")
                assert closest(said, list(frames)) == z
            growing.abort("enough")
            writer("stop", stop_doc(start["uid"]))


@pytest.mark.parametrize("image_format", ["ome-tiff", "ome-zarr"])
@pytest.mark.parametrize("show", ["projection", "plane"])
def test_a_client_that_comes_late_sees_the_newest_volume(root: Path, show: str, image_format: str) -> None:
    run = recorded(root, 3, image_format=image_format)
    with served(root) as server, listening(server.url, f"show={show}&rate=30") as listener:
        said = listener.picture(series="cam_image")
        assert (said["run"], said["event"], said["kind"], said["good"]) == (run.uid, 2, show, True)
        images = run["primary"]["cam_image"].including_bad
        planes = [images.project(event) if show == "projection" else images[event, 3] for event in range(3)]
        assert closest(said, planes) == 2


def test_a_projection_that_was_begun_while_frames_came_is_that_of_the_whole_volume(root: Path) -> None:
    """Frames come in any order; the picture waits for the event, and for the last of them."""
    shape = (6, 32, 64)
    with (
        served(create_root(root)) as server,
        listening(server.url, "rate=30") as listener,
        listening(server.url, "show=plane&rate=30") as other,
        Acquiring(root, shape=shape, views="A") as acquiring,
    ):

        def until_it_was_seen(_: Volume) -> None:
            other.picture(frames_came=6)

        acquiring.cameras[0].order = [3, 0, 5, 1, 4, 2]
        acquiring.cameras[0].before_seal = until_it_was_seen
        planes = [volume(number, shape).max(axis=0) for number in range(5)]
        for number in range(3):
            acquiring.take()
            assert closest(listener.picture(seq_num=number + 1), planes) == number


def test_only_the_series_that_are_asked_for_come(root: Path) -> None:
    with (
        served(create_root(root)) as server,
        listening(server.url, "series=cam_b_image&rate=30") as listener,
        Acquiring(root) as acquiring,
    ):
        for number in range(3):
            acquiring.take()
            assert listener.next("picture")["series"] == "cam_b_image"
            assert acquiring.cameras[1].taken == number + 1


def test_a_slow_client_skips_to_the_newest(root: Path) -> None:
    """With ack=true the next picture goes out when the last one was drawn, and it is then the newest."""
    with (
        served(create_root(root)) as server,
        listening(server.url, "ack=true&series=cam_a_image&rate=30") as listener,
        Acquiring(root) as acquiring,
    ):
        acquiring.take()
        assert listener.next("picture")["seq_num"] == 1
        for _ in range(5):
            acquiring.take()
        with listening(server.url, "series=cam_a_image&rate=30") as other:
            other.picture(seq_num=6)
        listener.say(drawn=1)
        assert listener.next("picture")["seq_num"] == 6


def test_a_client_gets_no_more_pictures_than_it_wants(root: Path) -> None:
    with (
        served(create_root(root)) as server,
        listening(server.url, "series=cam_a_image&rate=0.01") as listener,
        listening(server.url, "series=cam_a_image&rate=30") as other,
        Acquiring(root) as acquiring,
    ):
        acquiring.take()
        assert listener.next("picture")["seq_num"] == 1
        acquiring.take()
        other.picture(seq_num=2)
        acquiring.end()
        while (said := listener.next())["type"] != "progress" or not said.get("exit_status"):
            assert said["type"] != "picture"


def test_a_client_may_change_its_mind(root: Path) -> None:
    recorded(root, shape=(4, 300, 600))
    with served(root) as server, listening(server.url, "size=128&rate=30") as listener:
        assert longest(listener.next("picture")) == 128
        listener.say(size=600, rate=30, show="plane")
        assert listener.picture(kind="plane")["shape"] == [300, 600]
        listener.say(size=200)
        assert longest(listener.picture(kind="plane")) == 256
        listener.say(show="projection")
        assert longest(listener.picture(kind="projection")) == 256


def test_a_picture_of_one_size_is_made_once_for_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def jpeg(picture: NDArray[np.uint8]) -> bytes:
        made.append(1)
        return encoding.jpeg(picture)

    monkeypatch.setattr("gently_bluesky.serve.newest.jpeg", jpeg)
    with served(create_root(root)) as server, Acquiring(root, views="A") as acquiring:
        clients = [listening(server.url, f"size={size}&rate=30") for size in (400, 450, 500, 512) * 3]
        listeners = [client.__enter__() for client in clients]
        for listener in listeners:
            listener.next("hello")
        acquiring.take()
        for listener in listeners:
            listener.picture(seq_num=1)
        for client in clients:
            client.__exit__(None, None, None)
    assert len(made) == 1


def test_a_volume_that_was_removed_gives_no_picture_and_no_error(root: Path) -> None:
    run = recorded(root)
    for file in run.folder.glob("*/*.ome.tif"):
        file.unlink()
    with served(root) as server, listening(server.url, "rate=30&run=-1") as listener:
        assert listener.documents() == as_sent(run)
        while (said := listener.next())["type"] != "progress":
            assert said["type"] == "document"


@pytest.mark.parametrize("dtype", ["<c8", "<c16"])
def test_a_volume_that_is_no_picture_is_logged_and_other_pictures_come(
    root: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    create_root(root)
    with served(root) as server, listening(server.url, "rate=30") as listener:
        listener.next("hello")
        odd = record(root, lambda writer: taken(Camera("odd", writer, shape=(3, 8, 9), dtype=dtype), {}, {}))
        eventually(lambda: "no picture of" in caplog.text)
        assert (odd.uid in caplog.text, "gently-pictures" in following()) == (True, True)
        record(root, lambda writer: taken(Camera("cam", writer, shape=(3, 8, 9)), {}, {}))
        assert listener.picture(series="cam_image")["kind"] == "projection"


# --- who may, and who does not read --------------------------------------------------------------------------


def test_doors_are_closed_to_pages_of_others_names_of_others_and_those_without_a_token(root: Path) -> None:
    recorded(root)
    token = "a-token-that-is-long"
    with served(root, token=token) as server:
        for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}):
            with pytest.raises(InvalidStatus, match="403"), listening(server.url, additional_headers=headers):
                pass
        good = {"Authorization": f"Bearer {token}"}
        with (
            pytest.raises(InvalidStatus, match="403"),
            listening(server.url, additional_headers=good, origin="http://elsewhere.example"),
        ):
            pass
        with listening(server.url, additional_headers=good, origin=server.url) as listener:
            assert listener.next()["type"] == "hello"
        answer = server.client.get("/", params={"token": token})
        cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        with listening(server.url, additional_headers=cookie) as listener:
            assert listener.next()["type"] == "hello"


def test_so_many_clients_and_no_more(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_CLIENTS", 2)
    recorded(root)
    with served(root) as server:
        with listening(server.url) as one, listening(server.url) as other:
            assert one.next()["type"] == other.next()["type"] == "hello"
            with listening(server.url) as third:
                assert third.next() == {
                    "type": "error",
                    "status": 503,
                    "detail": "2 clients listen already. Try again later.",
                }
        eventually(lambda: not following())
        with listening(server.url) as later:
            assert later.next()["type"] == "hello"


def test_nothing_is_followed_while_nobody_listens(root: Path) -> None:
    recorded(root)
    with served(root) as server:
        assert not following()
        with listening(server.url) as listener:
            listener.next()
            assert sorted(following()) == ["gently-live", "gently-pictures"]
        eventually(lambda: not following())


def never_reading(url: str, query: str) -> socket.socket:
    """A client that opens a WebSocket and reads nothing of it."""
    host, port = re.fullmatch(r"http://(.+):(\d+)", url).groups()  # type: ignore[union-attr]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    client.sendall(
        f"GET /api/v1/live?{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return client


def test_a_client_that_never_reads_holds_up_nobody_and_is_let_go(root: Path) -> None:
    app = create_app(create_root(root))
    with serving(app, ws=patient_socket(read_s=0.5)) as url, Acquiring(root, views="A") as acquiring:
        silent = [never_reading(url, "run=-1&from=0&rate=30") for _ in range(3)]
        with listening(url, "rate=30") as listener:
            listener.next("hello")
            for number in range(40):  # more than the buffers of two sockets take
                acquiring.take(note="y" * 200_000)
                listener.picture(seq_num=number + 1)
        eventually(lambda: not following())
        for client in silent:
            client.close()


SERVER = """
import sys
from pathlib import Path
import uvicorn
from gently_bluesky.serve.app import create_app

application = create_app(Path(sys.argv[1]))
server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="critical", lifespan="off"))
startup = server.startup

async def tell(sockets=None):
    await startup(sockets)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)

server.startup = tell
server.run()
"""


def test_the_memory_of_a_server_is_bounded_whoever_does_not_read(root: Path) -> None:
    """A journal of 12 MB and a picture for each event, to thirty clients that read nothing."""
    create_root(root)
    with Child(SERVER, root) as child:
        url = f"http://127.0.0.1:{child.line()}"
        process = psutil.Process(child.process.pid)
        with Acquiring(root, views="A") as acquiring, listening(url, "rate=30") as listener:
            acquiring.take(note="y" * 60_000)
            listener.picture()
            before = process.memory_info().rss
            silent = [never_reading(url, "run=-1&from=0&rate=30") for _ in range(30)]
            for _ in range(200):
                acquiring.take(note="y" * 60_000)
            listener.picture(seq_num=201)
            grown = process.memory_info().rss - before
            for client in silent:
                client.close()
        assert grown < 30e6


def test_a_server_that_is_killed_costs_the_writer_nothing(root: Path) -> None:
    create_root(root)
    with Child(SERVER, root) as child:
        url = f"http://127.0.0.1:{child.line()}"
        with Acquiring(root) as acquiring:
            with listening(url, "show=plane&rate=30") as listener:
                acquiring.take()
                listener.picture()
                os.kill(child.process.pid, 9)
                acquiring.take()
                with pytest.raises(ConnectionClosed):
                    listener.next("error")
            acquiring.take()
            run = acquiring.end()
    assert run.exit_status == "success"
    assert len(run["primary"]) == 3
    hold_pixels(run)


def test_a_root_that_goes_ends_in_words_and_not_in_a_crash(root: Path) -> None:
    recorded(root)
    with served(root) as server, listening(server.url, "rate=30") as listener:
        listener.next("hello")
        root.rename(root.with_name("elsewhere"))
        eventually(lambda: "gently-live" in following())
        listener.next("progress")
        root.with_name("elsewhere").rename(root)
        with Acquiring(root) as acquiring:
            run = acquiring.end()
        assert listener.documents() == as_sent(run)
    assert len(Catalog(root)) == 2


def test_a_listener_says_where_it_was_by_itself(root: Path) -> None:
    """What a client needs to come back is in what it was told: run and offset."""
    run = recorded(root)
    with served(root) as server:
        seen: list[Any] = []
        offset = 0
        while not seen or seen[-1][0] != "stop":
            with listening(server.url, f"run={run.uid}&from={offset}&rate=0") as listener:
                told: Listener = listener
                said = told.next("document")
                seen.append((said["name"], said["doc"]))
                offset = said["offset"]
    assert seen == as_sent(run)
