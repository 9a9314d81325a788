"""Who may come in, and what is not said of it."""

import http.client
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gently_bluesky.errors import ConfigError, RootError
from gently_bluesky.serve.app import create_app
from gently_bluesky.serve.doors import COOKIE, Doors, is_loopback, names_of_host
from tests.serve_rig import API, Served, recorded, served, serving

TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doors") / "root"
    recorded(folder, 1)
    return folder


@pytest.fixture
def locked(root: Path) -> Iterator[Served]:
    with served(root, token=TOKEN, allowed_origins=["https://viewer.example.org"]) as server:
        yield server


def test_without_the_token_there_is_nothing(locked: Served) -> None:
    for headers in (
        {},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer \xff\xfe"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}="},
        {"cookie": ";;;=;" * 2000},
    ):
        for path in (API, f"{API}/runs", "/", "/nothing", f"{API}/openapi.json"):
            answer = locked.client.get(path, headers={k: v.encode("latin-1") for k, v in headers.items()})  # type: ignore[arg-type]
            assert answer.status_code == 401
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_token_opens_in_a_header(locked: Served) -> None:
    assert locked.get("", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_browser_shows_the_token_once_and_goes_on_with_a_cookie(locked: Served) -> None:
    """The cookie is not the token, scripts do not see it, other sites do not send it, and the URL has lost it."""
    first = locked.client.get(f"/?run=-1&token={TOKEN}&z=3")
    assert first.status_code == 303
    assert first.headers["location"] == "/?run=-1&z=3"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("").status_code == 200  # the client has kept it


@pytest.mark.parametrize("path", ["//evil.example.org/", "/\\evil.example.org/", "///evil.example.org"])
def test_nobody_is_sent_to_another_server_with_it(locked: Served, path: str) -> None:
    connection = http.client.HTTPConnection(locked.client.base_url.host, locked.client.base_url.port or 80)
    connection.request("GET", f"{path}?token={TOKEN}")
    location = connection.getresponse().getheader("location") or "/"
    connection.close()
    assert location.startswith("/")
    assert location[1:2] not in {"/", "\\"}


def test_a_wrong_token_in_the_first_url_opens_nothing(locked: Served) -> None:
    answer = locked.client.get("/?token=wrong")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_api_takes_no_token_from_an_address(locked: Served) -> None:
    assert locked.get(f"?token={TOKEN}").status_code == 401


def test_the_token_is_in_no_log(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in uvicorn's access log either, whichever way it was shown."""
    app = create_app(root, token=TOKEN)
    caplog.set_level(logging.DEBUG)
    good = {"authorization": f"Bearer {TOKEN}"}
    with serving(app, access_log=True, log_level="info", log_config=None) as url:
        httpx.get(f"{url}/?a=1&token={TOKEN}")
        for spelled in ("to%6ben", "%74oken", "tok%65n", "%74%6f%6b%65%6e"):
            httpx.get(f"{url}/?{spelled}={TOKEN}")
            httpx.get(f"{url}{API}?{spelled}={TOKEN}&b=2")
        httpx.get(f"{url}{API}", headers=good)
        far = url.replace("http", "ws")
        with pytest.raises(InvalidStatus, match="403"), connect(f"{far}{API}/live?token={TOKEN}&c=3"):
            pass
        with connect(f"{far}{API}/live?rate=0&tok%65n={TOKEN}", additional_headers=good) as listener:
            listener.recv()
    clients = ("httpx", "httpcore", "websockets.client")
    mine = [record for record in caplog.records if not record.name.startswith(clients)]
    for seen in ("a=1", "c=3", "rate=0"):
        assert any(seen in record.getMessage() for record in mine)
    assert not any(TOKEN in record.getMessage() for record in mine)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("127.0.0.1:1", 200), ("[::1]:8000", 200), ("10.1.2.3", 200),
        ("evil.example.org", 421), ("localhost.evil.example.org", 421), ("", 421), ("a b", 421),
        ("localhost:x", 421),
        ("127.0.0.1.evil.example.org", 421), ("x" * 5000, 421), ("user@localhost", 421),
    ],
)  # fmt: skip
def test_a_name_that_this_server_does_not_have_is_refused(root: Path, host: str, status: int) -> None:
    """So no page of others reaches it by letting its own name lead here."""
    with TestClient(create_app(root), base_url="http://localhost") as client:
        assert client.get(API, headers={"host": host}).status_code == status


def test_a_name_that_is_allowed_is_known(root: Path) -> None:
    with TestClient(create_app(root, allowed_hosts=["scope.example.org"]), base_url="http://localhost") as client:
        assert client.get(API, headers={"host": "Scope.Example.org:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200), ("https://viewer.example.org", 200), ("http://localhost:1", 403), ("null", 403),
        ("https://viewer.example.org.evil.example.org", 403), ("http://evil.example.org", 403), ("file://", 403),
        ("https://viewer.example.org/", 403),
    ],
)  # fmt: skip
def test_pages_of_other_origins_are_refused_but_for_named_ones(root: Path, origin: str, status: int) -> None:
    app = create_app(root, allowed_origins=["https://viewer.example.org"])
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.get(API, headers={"origin": origin})
    assert answer.status_code == status
    named = origin == "https://viewer.example.org"
    assert answer.headers.get("access-control-allow-origin") == (origin if named else None)
    assert answer.headers["cross-origin-resource-policy"] == ("cross-origin" if named else "same-origin")


def test_a_named_origin_may_look_before_it_asks(root: Path) -> None:
    app = create_app(root, token=TOKEN, allowed_origins=["https://viewer.example.org"])
    asked = {"access-control-request-method": "GET", "access-control-request-headers": "authorization"}
    with TestClient(app, base_url="http://localhost") as client:
        good = client.options(API, headers={"origin": "https://viewer.example.org", **asked})
        bad = client.options(API, headers={"origin": "https://evil.example.org", **asked})
    assert good.status_code == 204
    assert "Authorization" in good.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in bad.headers
    assert bad.status_code == 403


def test_web_sockets_go_through_the_same_doors(root: Path) -> None:
    app = create_app(root, token=TOKEN)

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("here")

    good = {"authorization": f"Bearer {TOKEN}"}
    with TestClient(app, base_url="http://localhost") as client:
        for headers in ({}, good | {"origin": "http://evil.example.org"}, good | {"host": "evil.example.org"}):
            with (
                pytest.raises(WebSocketDisconnect),
                client.websocket_connect("ws://localhost/echo", headers=headers),
            ):
                pass
        with client.websocket_connect("ws://localhost/echo", headers=good) as socket:
            assert socket.receive_text() == "here"


@pytest.mark.parametrize("token", ["", "short", "with blank 0123456789", "\xe4" * 20, "x" * 201, "a\nb" * 10])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="16 to 200"):
        Doors(token)


@pytest.mark.parametrize("origin", ["viewer.example.org", "https://viewer.example.org/", "*", "ftp://x"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="no origin"):
        Doors(allowed_origins=frozenset([origin]))


def test_a_token_is_in_no_repr() -> None:
    assert TOKEN not in repr(Doors(TOKEN))


def test_a_folder_that_is_no_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RootError):
        create_app(tmp_path)


def test_loopback_and_names() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "scope", "::")] == [False] * 4
    assert names_of_host("127.0.0.1", ["Scope.local."]) == {"scope.local"}
    assert names_of_host("0.0.0.0", ["scope.lan"]) >= {"scope.lan", socket.gethostname().lower()}
    assert "scope" in names_of_host("scope")
