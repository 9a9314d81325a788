"""Routes over runs: what the catalog answers, over HTTP."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from gently_bluesky import Catalog, derive
from gently_bluesky.derived.projection import maximum_projection
from gently_bluesky.serve import routes_run
from gently_bluesky.serve.router import router
from gently_bluesky.store.strict_json import encode, plain
from tests.data_rig import feed, journal, newest, start_doc
from tests.serve_rig import API, KEY, Served, recorded, series, served


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes") / "root"
    for number in range(5):
        recorded(folder, 2, start={"purpose": "development" if number % 2 else "alignment", "number": number})
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Any:
    with served(root) as found:
        yield found


def lines(content: str) -> list[Any]:
    return [json.loads(line) for line in content.splitlines()]


def test_home_says_what_there_is(server: Served, root: Path) -> None:
    home = server.json("")
    assert (home["name"], home["api"], home["runs"], home["may_tag"]) == ("gently_bluesky", 1, 5, False)
    assert home["newest"] == Catalog(root)[-1].uid
    assert 0 < home["free_bytes"] < home["total_bytes"]


def test_sessions_and_their_embryos(server: Served) -> None:
    (session,) = server.json("/sessions")
    assert (session["name"], session["runs"], session["embryos"]) == ("s", 5, ["e1"])
    (embryo,) = server.json("/sessions/s/embryos")
    assert embryo["timepoints"] == {"first": 0, "last": 1, "count": 2, "missing": []}
    assert (embryo["volumes"], embryo["views"]) == (10, ["A"])
    miss = server.get("/sessions/none/embryos")
    assert (miss.status_code, miss.json()["available"]) == (404, {"session": ["s"]})


def test_runs_come_page_by_page_newest_first(server: Served, root: Path) -> None:
    uids: list[str] = []
    after: dict[str, str] = {}
    for _ in range(3):
        page = server.json("/runs", params={"limit": 2, **after})
        uids += [run["uid"] for run in page["runs"]]
        after = {"after": page["next"]}
    assert uids == [run.uid for run in Catalog(root)]
    assert page["next"] is None
    assert server.get("/runs?after=nobody").status_code == 404


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 5), ({"plan_name": "acquire"}, 5), ({"session": "s"}, 5), ({"embryo": "e1"}, 5),
        ({"operator": "ann"}, 5),
        ({"purpose": "alignment"}, 3), ({"text": "LIGNm"}, 3), ({"since": "2020-01-01"}, 5),
        ({"until": "2020-01-01"}, 0),
        ({"tag": "keep"}, 0), ({"plan_name": "no"}, 0), ({"text": "nowhere"}, 0),
    ],
)  # fmt: skip
def test_runs_are_searched(server: Served, params: dict[str, str], count: int) -> None:
    page = server.json("/runs", params=params)
    assert len(page["runs"]) == count
    assert bool(page["why_none"]) == (count == 0)


def test_a_run_says_what_it_was(server: Served, root: Path) -> None:
    run = newest(root)
    said = server.json("/runs/-1")
    assert said == server.json(f"/runs/{run.uid}") == server.json(f"/runs/{run.uid[:8]}")
    assert said["uid"] == run.uid
    assert said["start"] == plain(run.start)
    assert said["streams"]["primary"]["events"] == 2
    assert said["streams"]["primary"]["series"] == [KEY]
    assert said["disk_bytes"] == 2 * 6 * 32 * 48 * 2
    assert (said["is_open"], said["exit_status"], said["growing"], said["damage"]) == (False, "success", [], None)


def test_documents_are_those_of_the_journal(server: Served, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, in pieces of any size, each going on where the last one ended."""
    run = newest(root)
    wanted = [{"name": name, "doc": json.loads(encode(plain(doc)))} for name, doc in run.documents()]
    assert [(each["name"], each["doc"]["uid"]) for each in wanted if "uid" in each["doc"]] == [
        (name, doc["uid"]) for name, doc in journal(run.folder) if "uid" in doc
    ]
    assert lines(server.get(f"/runs/{run.uid}/documents").text) == wanted
    monkeypatch.setattr(routes_run, "_DOCUMENT_BYTES", 700)
    found, at, more = [], "0", "true"
    while more == "true":
        answer = server.get(f"/runs/{run.uid}/documents", params={"from": at})
        at, more = answer.headers["x-next"], answer.headers["x-more"]
        found += lines(answer.text)
    assert found == wanted
    assert int(at) == (run.folder / "journal.jsonl").stat().st_size
    assert server.get(f"/runs/{run.uid}/documents", params={"from": at}).text == ""
    for odd in (1, int(at) - 1, int(at) + 1, 10**17, -1, "x"):
        assert server.get(f"/runs/{run.uid}/documents", params={"from": odd}).status_code == 422


def test_a_table_has_scalars_page_by_page(server: Served) -> None:
    table = server.json("/runs/-1/streams/primary")
    assert table["seq_num"] == [1, 2]
    assert table["columns"]["timepoint"] == [0, 1]
    assert KEY not in table["columns"]
    page = server.json("/runs/-1/streams/primary", params={"first": 1, "limit": 1, "keys": "embryo"})
    assert (page["columns"], page["next"]) == ({"embryo": ["e1"]}, None)
    miss = server.get("/runs/-1/streams/primary?keys=nothing")
    assert (miss.status_code, "embryo" in miss.json()["available"]["keys"]) == (404, True)


def test_numbers_that_json_lacks_are_spelled(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 1, start={"odd": float("nan"), "many": [float("inf")]})
    with served(root) as server:
        said = server.get("/runs/-1")
        assert "NaN" not in said.text
        assert said.json()["start"]["odd"] == {"$float": "nan"}


def test_volumes_are_asked_by_what_they_show(server: Served, root: Path) -> None:
    page = server.json("/volumes", params={"embryo": "e1", "timepoint": 0, "limit": 3})
    assert len(page["volumes"]) == 3
    rest = server.json("/volumes", params={"embryo": "e1", "timepoint": 0, "after": page["next"]})
    assert len(rest["volumes"]) == 2
    wanted = Catalog(root).volumes(embryo="e1", timepoint=0)
    assert [each["run_uid"] for each in page["volumes"] + rest["volumes"]] == [each.run_uid for each in wanted]
    assert {each["event"] for each in page["volumes"]} == {0}
    none = server.json("/volumes?embryo=e9")
    assert (none["available"], none["volumes"]) == ({"embryo": ["e1"]}, [])
    assert "'e9'" in none["why_none"]
    assert len(server.json("/volumes?include_bad=true&limit=200")["volumes"]) == 10
    assert server.get("/volumes?after=x").status_code == 404
    assert server.json("/volumes?position=[1,2]")["volumes"] == []


def test_questions_of_the_catalog(server: Served, root: Path) -> None:
    assert server.json("/questions/timepoints?session=s&embryo=e1")["values"] == [0, 1]
    assert server.json("/questions/next_timepoint?session=s&embryo=e1")["value"] == 2
    assert server.json("/questions/next_scan_id")["value"] == Catalog(root).next_scan_id()


def test_lineage_comes_as_a_graph_and_as_a_picture(tmp_path: Path) -> None:
    root = tmp_path / "root"
    parent = recorded(root, 1)
    child = derive(maximum_projection, parent, into=root)
    with served(root) as server:
        graph = server.json(f"/runs/{parent.uid}/lineage")
        assert {node["run"] for node in graph["nodes"]} == {parent.uid, child.uid}
        picture = server.get("/runs/-1/lineage?format=svg")
        assert picture.headers["content-type"].startswith("image/svg+xml")
        assert picture.text.startswith("<svg")
        assert [each["run"] for each in server.json("/runs/-1")["parents"]] == [parent.uid]
        assert [each["run"] for each in server.json(f"/runs/{parent.uid}")["children"]] == [child.uid]
        assert server.get("/runs/nobody12/lineage").status_code == 404


# --- tags ---------------------------------------------------------------------------------------------------


def test_tags_are_written_only_where_the_user_allows_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    recorded(root, 1)
    said = {"add": ["good one"], "note": "hatched", "by": "viewer of ann"}
    with served(root) as server:
        assert server.client.post(f"{API}/runs/-1/tags", json=said).status_code == 403
        assert newest(root).notes == ()
    with served(root, may_tag=True) as server:
        answer = server.client.post(f"{API}/runs/-1/tags", json=said)
        assert (answer.status_code, answer.json()["tags"]) == (200, ["good one"])
        (note,) = newest(root).notes
        assert (note.by, note.text) == ("viewer of ann", "hatched")
        for wrong in ({}, {"by": ""}, {"by": "a"}, {"by": "a", "add": [" "]}, {"by": "a", "add": "x"}, {"b": 1}):
            assert server.client.post(f"{API}/runs/-1/tags", json=wrong).status_code == 422
        assert server.client.post(f"{API}/runs/-1/tags", content=b"{").status_code == 422
        assert len(newest(root).notes) == 1


# --- how it is answered -------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_sent_again(server: Served) -> None:
    for path in ("", "/runs", "/runs/-1", "/runs/-1/documents", f"{series('-1')}"):
        first = server.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        again = server.get(path, headers={"if-none-match": first.headers["etag"]})
        if path:  # the free bytes of home may have changed
            assert (path, again.status_code, again.content) == (path, 304, b"")


def test_text_is_compressed_for_those_who_take_it(server: Served) -> None:
    with server.client.stream("GET", f"{API}/runs/-1/documents", headers={"accept-encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        packed = b"".join(answer.iter_raw())
    plainly = server.get("/runs/-1/documents", headers={"accept-encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in plainly.headers
    assert gzip.decompress(packed) == plainly.content
    assert "Accept-Encoding" in plainly.headers["vary"]


def test_head_is_get_without_a_body(server: Served) -> None:
    for path in ("/runs/-1", f"{series('-1')}/pixels?slice=0,1", f"{series('-1')}/zarr/0/c/0/0/0/0"):
        head = server.client.head(f"{API}{path}", headers={"accept-encoding": "identity"})
        get = server.get(path, headers={"accept-encoding": "identity"})
        assert head.content == b""
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(get.content)))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/nobody", 404), ("/runs/-99", 404), ("/runs/", 404), ("/nothing", 404),
        ("/runs/-1/streams/no", 404),
        ("/runs/-1/streams/primary/series/no", 404),
        ("/runs/-1/streams/primary/series/embryo/pixels?slice=0", 404),
        ("/runs/..%2f..%2f..%2fetc", 404), ("/runs/%2e%2e", 404), ("/runs/%00", 404), ("/runs/*", 404),
        ("/runs/" + "a" * 101, 422), ("/runs?limit=0", 422), ("/runs?limit=201", 422), ("/runs?since=soon", 422),
        ("/runs/-1/volumes/..%2fx/0", 404), ("/runs/-1/volumes/x/-1", 422), ("/runs/-1/volumes/x/y", 422),
        ("/runs/-1/streams/..%2f..%2fx/series/y", 404), ("/sessions/..%2f/embryos", 404),
        ("/runs/-1/streams/primary?first=-1", 422), ("/volumes?timepoint=x", 422), ("/volumes?derived=x", 422),
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_problem_that_says_so(server: Served, root: Path, path: str, status: int) -> None:
    """In the same form everywhere, and without the name of any folder of this machine."""
    answer = server.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    said = answer.json()
    assert said["status"] == status
    assert said["type"].startswith("urn:gently-bluesky:")
    assert said["title"]
    assert said["detail"]
    assert str(root.parent) not in answer.text
    assert "Traceback" not in answer.text


def test_a_method_that_there_is_not_is_a_problem_too(server: Served) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
        answer = server.client.request(method, f"{API}/runs")
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


def test_the_router_is_mounted_by_another_application(root: Path) -> None:
    """With its problems, ETags and limits; who may ask is that application's own."""
    app = FastAPI()
    app.include_router(router(root, prefix="/data"))
    with TestClient(app, base_url="http://anything") as client:
        assert client.get("/data").json()["runs"] == 5
        assert client.get("/data/runs/nobody").headers["content-type"] == "application/problem+json"
        answer = client.get(f"/data{series('-1')}/pixels?slice=0,2")
        assert answer.headers["x-shape"] == "32,48"
        assert client.get("/data/runs?limit=0").json()["title"] == "Unprocessable Entity"


def test_a_run_without_events_and_one_without_anything(tmp_path: Path) -> None:
    """Half-written runs: a start alone is a run, a folder alone is none yet."""
    root = tmp_path / "root"
    feed(root, [("start", start_doc())])
    (root / "runs/2026/11/23/0001-x-00000000").mkdir(parents=True)
    with served(root) as server:
        assert server.json("")["runs"] == 1
        said = server.json("/runs/-1")
        assert (said["is_open"], said["streams"], said["stop"]) == (True, {}, None)


def test_a_damaged_journal_is_said_and_the_rest_is_served(tmp_path: Path) -> None:
    root = tmp_path / "root"
    run = recorded(root, 3)
    whole = (run.folder / "journal.jsonl").read_bytes()
    parts = whole.splitlines(keepends=True)
    parts[4] = parts[4].replace(b"seq_num", b"seq_nun")
    (run.folder / "journal.jsonl").write_bytes(b"".join(parts))
    with served(root) as server:
        said = server.json("/runs/-1")
        assert "damaged" in said["damage"]
        assert str(tmp_path) not in said["damage"]
        answer = server.get("/runs/-1/documents")
        assert (answer.status_code, str(tmp_path) in answer.text) == (500, False)
        assert len(server.json("/runs")["runs"]) == 1
        assert server.get("/volumes").status_code == 200
