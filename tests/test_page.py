"""The viewer page in a real browser: what is drawn is what was taken, and what goes wrong is said."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import httpx
import numpy as np
import pytest
from bluesky import Msg
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from gently_bluesky import FileWriter
from gently_bluesky.keep.discard import discard
from gently_bluesky.serve.app import create_app
from gently_bluesky.store.layout import create_root
from tests.data_rig import Camera, record
from tests.live_rig import Acquiring
from tests.page_rig import SHAPE, Viewer, recorded, shown
from tests.serve_rig import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog
    from playwright.sync_api import Request as Asked

Look = Callable[..., Viewer]
WINDOW = (0, 120)
SAME = "w=cam_a_image:0,120;cam_b_image:0,120"


@pytest.fixture
def look(chromium: "Browser") -> Iterator[Look]:
    """Opens the page; in the end nothing may have gone wrong in it, and nobody else may have been asked."""
    viewers: list[Viewer] = []

    def open_viewer(url: str, width: int = 1280, height: int = 800) -> Viewer:
        page = chromium.new_context(viewport={"width": width, "height": height}).new_page()
        viewers.append(Viewer(page, url))
        return viewers[-1]

    yield open_viewer
    for viewer in viewers:
        viewer.page.context.close()
        assert viewer.errors == []
        assert viewer.elsewhere == []


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    """A server of the root, which is made if it is not there."""
    with serving(create_app(create_root(root))) as address:
        yield address


# --- what happens now ---------------------------------------------------------------------------------------


def test_a_run_appears_as_it_is_taken(root: Path, url: str, look: Look) -> None:
    viewer = look(url).open()
    viewer.says("gently-now h2", "No run yet")
    with Acquiring(root, plan_name="acquire_timelapse", operator="ann") as acquiring:
        viewer.says("gently-now h2", "acquire_timelapse")
        viewer.says("gently-now .pill", "running")
        for number in (1, 2):
            acquiring.take(embryo=f"embryo_{number}")
            for view in "ab":
                drawn = viewer.all(f"canvas[aria-label='live cam_{view}_image'][data-seq_num='{number}']")
                viewer.wait(lambda drawn=drawn: drawn.count() == 1)  # type: ignore[misc]
            viewer.says("gently-now .far", f"{number} of 99 events")
            viewer.says("gently-now .matrix", f"embryo_{number}")
            viewer.says("gently-now .card", f"embryo_{number}", f"t {number - 1}")
        bright = "(canvas) => Math.max(...canvas.getContext('2d').getImageData(0, 0, 32, 32).data)"
        assert viewer.all("canvas[aria-label='live cam_a_image']").evaluate(bright) == 255
        viewer.says("gently-runs .rail", "acquire_timelapse")
        viewer.says("gently-now .space", "free of")
        acquiring.end()
    viewer.says("gently-now .pill", "finished")


def test_frames_are_seen_while_a_volume_grows(root: Path, url: str, look: Look) -> None:
    with Acquiring(root) as acquiring:
        viewer = look(url).open()
        viewer.all("gently-now button[data-show=plane]").click()
        gate, began = threading.Event(), threading.Event()

        def wait_for_somebody(_: Any) -> None:
            began.set()
            gate.wait()

        acquiring.cameras[0].before_seal = wait_for_somebody
        acquiring.ask()
        began.wait()
        viewer.says("gently-now .card", "plane 4 of 4")
        gate.set()
        acquiring.wait("event")
        acquiring.end()


def test_a_live_picture_leads_to_its_volume(root: Path, url: str, look: Look) -> None:
    recorded(root)
    viewer = look(url).open()
    viewer.all("gently-now .card").first.click()
    viewer.wait_address(event="5")
    viewer.says("gently-volume figcaption", "e2", "t 2")


# --- volumes ------------------------------------------------------------------------------------------------


def test_sliders_change_embryo_time_and_plane(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    images = run["primary"]["cam_a_image"]
    viewer = look(url).open(f"run={run.uid}&event=0&z=0&show=cam_a_image&{SAME}")
    viewer.shows(shown(images[0, 0], *WINDOW))
    for z in range(SHAPE[0]):
        viewer.slide("z", z)
        viewer.shows(shown(images[0, z], *WINDOW))
    viewer.slide("time", 2)
    viewer.shows(shown(images[4, 5], *WINDOW))
    viewer.says("gently-volume figcaption", "e1", "t 2")
    viewer.slide("embryo", 1)
    viewer.shows(shown(images[5, 5], *WINDOW))
    viewer.says("gently-volume figcaption", "e2", "t 2")
    viewer.says("gently-story .story", "event 6", "stage x", "21")


def test_three_planes_belong_together(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    images = run["primary"]["cam_a_image"]
    viewer = look(url).open(f"run={run.uid}&event=1&z=2&y=3&x=4&show=cam_a_image&{SAME}")
    viewer.shows(shown(images[1, 2], *WINDOW), "z")
    viewer.shows(shown(images[1, :, 3], *WINDOW), "y")
    viewer.shows(shown(images[1, :, :, 4].T, *WINDOW), "x")
    pane = viewer.all("gently-volume .pane.z").bounding_box()
    assert pane is not None
    viewer.page.mouse.click(pane["x"] + pane["width"] * 30.5 / 48, pane["y"] + pane["height"] * 20.5 / 32)
    viewer.shows(shown(images[1, :, 20], *WINDOW), "y")
    viewer.shows(shown(images[1, :, :, 30].T, *WINDOW), "x")
    side = viewer.all("gently-volume .pane.x").bounding_box()
    assert side is not None
    viewer.page.mouse.click(side["x"] + side["width"] * 5.5 / 6, side["y"] + side["height"] * 20.5 / 32)
    viewer.shows(shown(images[1, 5], *WINDOW), "z")
    viewer.wait_address(z="5", y="20", x="30")
    viewer.page.mouse.move(pane["x"] + pane["width"] * 1.5 / 48, pane["y"] + pane["height"] * 0.5 / 32)
    viewer.says("gently-volume .probe", "x 1", "y 0", "z 5", f"{images[1, 5, 0, 1]} counts")


def test_views_are_shown_alone_beside_and_over_each_other(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    a, b = (shown(run["primary"][f"cam_{view}_image"][3, 1], *WINDOW) for view in "ab")
    viewer = look(url).open(f"run={run.uid}&event=3&z=1&show=cam_a_image&{SAME}")
    viewer.shows(a)
    viewer.all("gently-volume button[data-show=cam_b_image]").click()
    viewer.shows(b)
    viewer.all("gently-volume button[data-show=beside]").click()
    viewer.shows(a, number=0)
    viewer.shows(b, number=1)
    viewer.all("gently-volume button[data-show=over]").click()
    viewer.shows(np.stack([b, a, b], axis=-1))


def test_projections_are_those_of_the_volume(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    images = run["primary"]["cam_b_image"]
    viewer = look(url).open(f"run={run.uid}&event=2&show=cam_b_image&mip=1&{SAME}")
    viewer.shows(shown(images.project(2), *WINDOW), "z")
    viewer.shows(shown(images.project(2, axis="y"), *WINDOW), "y")
    viewer.shows(shown(images.project(2, axis="x").T, *WINDOW), "x")
    viewer.all("gently-volume button.toggle").first.click()
    viewer.shows(shown(images[2, 3], *WINDOW), "z")


def test_contrast_is_typed_dragged_and_found(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    plane = run["primary"]["cam_a_image"][0, 3]
    viewer = look(url).open(f"run={run.uid}&event=0&z=3&show=cam_a_image")
    low, high = np.percentile(plane, [1, 99.8], method="nearest")
    viewer.shows(shown(plane, low, high))
    viewer.all("gently-contrast input").nth(1).fill("60")
    viewer.all("gently-contrast input").nth(0).fill("20")
    viewer.press("Enter")
    viewer.shows(shown(plane, 20, 60))
    viewer.wait_address(w="cam_a_image:20,60")
    histogram = viewer.all("gently-contrast canvas").bounding_box()
    assert histogram is not None
    viewer.page.mouse.move(histogram["x"] + histogram["width"] * 0.3, histogram["y"] + 20)
    viewer.page.mouse.down()
    viewer.page.mouse.move(histogram["x"] + histogram["width"] * 0.5, histogram["y"] + 20, steps=4)
    viewer.page.mouse.up()
    viewer.wait(lambda: viewer.address.get("w") != "cam_a_image:20,60")
    found = re.fullmatch(r"cam_a_image:(-?\d+),(-?\d+)", viewer.address["w"])
    assert found is not None
    viewer.shows(shown(plane, int(found[1]), int(found[2])))
    viewer.all("gently-contrast button").click()
    viewer.shows(shown(plane, low, high))


def test_a_deep_link_gives_back_what_was_seen(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    recorded(root)
    viewer = look(url).open(f"run={run.uid[:8]}&event=3&z=1&y=7&x=9&show=over&mip=1&w=cam_a_image:5,50&zoom=2")
    viewer.wait_address(run=run.uid, stream="primary", event="3", z="1", y="7", x="9", show="over", mip="1")
    viewer.wait_address(w="cam_a_image:5,50", zoom="2")
    seen = viewer.drawn()
    other = look(url).open(viewer.page.url.partition("#")[2])
    viewer.wait(lambda: (drawn := other.drawn()) is not None and seen is not None and (drawn == seen).all())
    assert other.all("gently-volume button[data-show=over]").get_attribute("aria-pressed") == "true"
    viewer.all("gently-page nav a").first.click()
    viewer.says("gently-now h2", "acquire")
    viewer.page.go_back()
    viewer.wait_address(run=run.uid, event="3")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("run=nothing", "No run"),
        ("run=%3Cscript%3E", "No run"),
        ("run=-1&event=999", 'no event 999: stream "primary" of this run has event 0 to 5'),
        ("run=-1&event=abc", "no event abc"),
        ("run=-1&event=0&z=999", 'no z 999: stream "primary" of this run has z 0 to 5'),
        ("run=-1&x=NaN", "no x NaN"),
        ("run=-1&show=all", "cam_a_image, cam_b_image, beside, over"),
        ("run=-1&stream=foo", 'stream "foo"; it has them in primary'),
    ],
)
def test_an_address_of_what_is_not_there_says_what_there_is_and_shows_nothing(
    root: Path, url: str, look: Look, address: str, words: str
) -> None:
    run = recorded(root)
    viewer = look(url).expecting("404").open(address)
    viewer.says("gently-volume .problem", words)
    assert viewer.drawn() is None
    viewer.open(f"run={run.uid}&event=1")
    viewer.wait(lambda: viewer.drawn() is not None)
    viewer.page.evaluate("(to) => { location.hash = to; }", address)
    viewer.says("gently-volume .problem", words)
    viewer.wait(lambda: not viewer.all("gently-story").is_visible())
    assert viewer.drawn() is None
    viewer.press("ArrowRight", "e", "p")
    assert viewer.page.url.endswith(f"#{address}")


def test_every_key_does_what_it_says(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    viewer = look(url).open(f"run={run.uid}&event=0&z=3")
    viewer.wait(lambda: viewer.drawn() is not None)
    for key, parts in {
        "ArrowUp": {"z": "4"},
        "ArrowDown": {"z": "3"},
        "PageUp": {"z": "5"},
        "PageDown": {"z": "0"},
        "ArrowRight": {"event": "2"},
        "End": {"event": "4"},
        "ArrowLeft": {"event": "2"},
        "Home": {"event": "0"},
        "e": {"event": "1"},
        "Shift+E": {"event": "0"},
        "1": {"show": "cam_a_image"},
        "2": {"show": "cam_b_image"},
        "3": {"show": "beside"},
        "4": {"show": "over"},
        "p": {"mip": "1"},
        "+": {"zoom": "1.25"},
        "c": {"w": viewer.address.get("w", "")},
    }.items():
        viewer.press(key)
        viewer.wait_address(**{name: value for name, value in parts.items() if value})
    viewer.press("0", "p")
    viewer.wait(lambda: not {"zoom", "mip"} & viewer.address.keys())
    viewer.press("?")
    viewer.says("gently-page dialog", "side by side")
    viewer.press("Escape", "f")
    viewer.wait(lambda: not viewer.all("gently-story").is_visible())
    viewer.press("f", "/")
    viewer.wait(
        lambda: (
            viewer.page.evaluate("document.querySelector('gently-page').shadowRoot.activeElement.localName")
            == "gently-runs"
        )
    )
    viewer.press("e")
    assert viewer.all("gently-runs input").input_value() == "e"
    viewer.press("Escape", "n")
    viewer.wait(lambda: viewer.all("gently-now").is_visible())


def test_an_open_run_is_followed_to_its_latest_volume(root: Path, url: str, look: Look) -> None:
    with Acquiring(root) as acquiring:
        acquiring.take(embryo="e1")
        viewer = look(url).open("run=-1&show=cam_a_image&z=1")
        viewer.wait_address(event="0")
        acquiring.take(embryo="e1")
        viewer.wait(lambda: viewer.all("gently-volume input[aria-label=time]").get_attribute("max") == "1")
        assert viewer.address["event"] == "0"
        viewer.press("l")
        viewer.wait_address(event="1")
        acquiring.take(embryo="e1")
        viewer.wait_address(event="2")
        run = acquiring.end()
    plane = run["primary"]["cam_a_image"][2, 1]
    viewer.all("gently-contrast input").nth(0).fill("0")
    viewer.all("gently-contrast input").nth(1).fill("120")
    viewer.press("Enter")
    viewer.shows(shown(plane, *WINDOW))


def test_runs_of_one_volume_are_one_time_axis(root: Path, url: str, look: Look) -> None:
    runs = [recorded(root, embryos=["e7"], timepoints=1, number=number) for number in range(3)]
    viewer = look(url).open(f"run={runs[1].uid}&show=cam_a_image&z=1&{SAME}")
    viewer.wait(lambda: viewer.all("gently-volume input[aria-label=time]").get_attribute("max") == "2")
    viewer.press("End")
    viewer.wait(lambda: viewer.address["run"] != runs[1].uid)
    run = next(each for each in runs if each.uid == viewer.address["run"])
    viewer.shows(shown(run["primary"]["cam_a_image"][0, 1], *WINDOW))


# --- the story, the search ------------------------------------------------------------------------------------


def test_the_story_tells_plan_numbers_files_lineage_and_notes(root: Path, url: str, look: Look) -> None:
    first = recorded(root, purpose="alignment")
    run = recorded(root, purpose="experiment", parents=[{"run": first.uid}], settings={"depth": 7})
    run.tag("keep")
    run.note("the second embryo drifts", by="ann")
    viewer = look(url).open(f"run={run.uid}&event=2")
    viewer.says("gently-story .story", "acquire", "finished", "ann", "experiment", run.uid, "keep", "drifts")
    viewer.says("gently-story .story", "event 3", "embryo", "e1")
    viewer.all("gently-story details").evaluate_all("(all) => all.forEach((each) => { each.open = true; })")
    viewer.says("gently-story .story", "depth", "cam_a_image/000002.ome.tif", first.uid[:8])
    viewer.all("gently-story tr.plots").first.click()
    viewer.wait(lambda: viewer.all("gently-story svg polyline").count() == 2)
    lines = viewer.all("gently-story svg polyline").evaluate_all(
        "(all) => all.map((each) => [each.textContent, each.points.length, each.className.baseVal])"
    )
    assert lines == [["e1", 3, "here"], ["e2", 3, ""]]
    viewer.all("gently-story input[type=search]").fill("stage")
    viewer.wait(lambda: viewer.all("gently-story table tr").count() == 1)
    viewer.all(f"gently-story a[href*='{first.uid}']").click()
    viewer.says("gently-story .story", "alignment")


def test_runs_are_found_by_words(root: Path, url: str, look: Look) -> None:
    recorded(root, purpose="alignment")
    wanted = recorded(root, purpose="dose", comment="a rare word")
    viewer = look(url).open()
    viewer.wait(lambda: viewer.all("gently-runs li").count() == 2)
    for search, count in {
        "rare": 1,
        "purpose:alignment": 1,
        'plan:acquire "a rare"': 1,
        "embryo:e9": 0,
        "": 2,
        "purpose:dose": 1,
    }.items():
        viewer.all("gently-runs input").fill(search)
        viewer.wait(lambda count=count: viewer.all("gently-runs li").count() == count)  # type: ignore[misc]
        if not count:
            viewer.says("gently-runs .said", "Nothing found", "e9")
    viewer.all("gently-runs input").press("Enter")
    viewer.wait_address(run=wanted.uid, q="purpose:dose")


def test_escape_ends_a_search(root: Path, url: str, look: Look) -> None:
    recorded(root, purpose="alignment")
    recorded(root)
    viewer = look(url).open("q=alignment")
    viewer.wait(lambda: viewer.all("gently-runs li").count() == 1)
    viewer.all("gently-runs input").press("Escape")
    viewer.wait(lambda: viewer.all("gently-runs li").count() == 2)
    viewer.wait(lambda: "q" not in viewer.address)
    assert not viewer.all("gently-runs input").input_value()


def test_tags_and_notes_are_given_where_the_server_takes_them(root: Path, look: Look) -> None:
    run = recorded(root)
    with serving(create_app(root)) as url:
        viewer = look(url).open(f"run={run.uid}&event=0")
        viewer.says("gently-story .story", "event 1")
        assert not viewer.all("gently-story .saying").is_visible()
        viewer.page.goto("about:blank")
        viewer.elsewhere.clear()
    with serving(create_app(root, may_tag=True)) as url:
        viewer = look(url).open(f"run={run.uid}&event=0")
        viewer.wait(lambda: viewer.all("gently-story .saying").is_visible())
        viewer.all("gently-story input[aria-label=tag]").fill("keep")
        viewer.all("gently-story textarea").fill("it drifts")
        viewer.all("gently-story input[aria-label=by]").fill("ann")
        viewer.all("gently-story .saying button").click()
        viewer.says("gently-story .story", "keep", "it drifts", "ann")
        viewer.says("gently-runs .rail", "#keep")
        viewer.page.goto("about:blank")
        viewer.elsewhere.clear()
    assert sorted(run.tags) == ["keep"]


# --- what goes wrong ------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>"


def test_hostile_names_are_text(root: Path, url: str, look: Look) -> None:
    name = f"{HOSTILE}\u202e{'w' * 300}"
    run = recorded(
        root,
        plan_name=name,
        session=HOSTILE,
        operator=f"{HOSTILE} \u0000",
        embryos=[HOSTILE, "javascript:alert(1)"],
    )
    run.note(HOSTILE, by=HOSTILE)
    run.tag("<b>bold")
    viewer = look(url)
    said: list[str] = []

    def hear(dialog: "Dialog") -> None:
        said.append(dialog.message)
        dialog.dismiss()

    viewer.page.on("dialog", hear)
    viewer.open()
    viewer.says("gently-now .now", HOSTILE)
    viewer.open(f"run={run.uid}&event=0")
    viewer.says("gently-volume figcaption", HOSTILE)
    viewer.says("gently-story .story", HOSTILE, "<b>bold")
    viewer.says("gently-runs .rail", "<img src=x")
    assert viewer.all("img, b:text('bold')").count() == 0
    assert said == []
    assert viewer.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_server_that_goes_is_said_and_one_that_comes_back_is_heard(root: Path, look: Look) -> None:
    recorded(root)
    app = create_app(root)
    with serving(app) as url:
        viewer = look(url).expecting("WebSocket", "ERR_CONNECTION").open()
        viewer.says("gently-now .pill", "finished")
        port = int(url.rpartition(":")[2])
    viewer.says("gently-now .problem", "does not answer", "Trying again")
    viewer.says("gently-page .connection", "server gone")
    with serving(app, port=port), Acquiring(root, plan_name="after") as acquiring:
        viewer.says("gently-now h2", "after")
        viewer.wait(lambda: not viewer.all("gently-now .problem").is_visible())
        acquiring.end()
        viewer.page.goto("about:blank")
    viewer.elsewhere.clear()


def test_a_volume_that_was_removed_is_said_in_the_words_of_the_server(root: Path, url: str, look: Look) -> None:
    run = recorded(root)
    discard(root, run.uid)
    viewer = look(url).expecting("410").open(f"run={run.uid}&event=1&show=cam_a_image")
    viewer.says("gently-volume .pane.z .said", "was removed")


def test_a_run_without_images_is_said(root: Path, url: str, look: Look) -> None:
    with Acquiring(root) as acquiring:
        viewer = look(url).open("run=-1")
        viewer.says("gently-volume .problem", "no images")
        acquiring.take()
        viewer.wait(lambda: viewer.drawn() is not None)
        acquiring.end()


def test_who_moves_on_is_not_kept_by_what_is_out_of_date(root: Path, look: Look) -> None:
    """Few requests at a time; those for planes that were passed by are given up, and the last one is shown."""
    run = recorded(root)
    app = create_app(root)

    @app.middleware("http")
    async def slowly(request: Request, answer: RequestResponseEndpoint) -> Response:
        if request.url.path.endswith("/pixels"):
            await asyncio.sleep(0.1)
        return await answer(request)

    with serving(app) as url:
        viewer = look(url)
        under_way: set[object] = set()
        most, given_up = [0], [0]

        def begun(request: "Asked") -> None:
            if "/pixels" in request.url:
                under_way.add(request)
                most[0] = max(most[0], len(under_way))

        def finished(request: "Asked") -> None:
            under_way.discard(request)

        def failed(request: "Asked") -> None:
            under_way.discard(request)
            given_up[0] += 1

        viewer.page.on("request", begun)
        viewer.page.on("requestfinished", finished)
        viewer.page.on("requestfailed", failed)
        viewer.open(f"run={run.uid}&event=0&z=0&{SAME}")
        viewer.wait(lambda: viewer.drawn() is not None)
        for z in (1, 2, 3, 4, 5, 4, 3, 2):
            viewer.slide("z", z)
        viewer.shows(shown(run["primary"]["cam_a_image"][0, 2], *WINDOW))
        assert most[0] <= 4
        assert given_up[0]
        viewer.page.goto("about:blank")
        viewer.elsewhere.clear()


# --- as a whole -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [400, 760, 1024, 1280, 2400])
def test_nothing_overflows_at_any_width(root: Path, url: str, look: Look, width: int) -> None:
    run = recorded(root, embryos=["an_embryo_with_quite_a_long_name", "e2"])
    viewer = look(url, width, 900)
    for address in (
        "",
        f"run={run.uid}",
        f"run={run.uid}&show=over&zoom=3",
        f"run={run.uid}&show=cam_a_image&mip=1",
    ):
        viewer.open(address)
        if address:
            viewer.wait(lambda: viewer.drawn() is not None and bool(viewer.text("gently-story .story")))
        else:
            viewer.says("gently-now .pill", "finished")
        assert viewer.page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        if width < 760:
            viewer.all("gently-page .menu").click()
            viewer.wait(lambda: viewer.all("gently-runs input").is_visible())
            viewer.all("gently-page .menu").click()


def test_a_part_lives_in_a_page_of_somebody_else(root: Path, look: Look) -> None:
    run = recorded(root)
    app = create_app(root)
    markup = (
        "<!doctype html><title>host</title><link rel=icon href=data:,><script type=module src=/volume.js></script>"
        f"<h1>host</h1><gently-volume base=/ run={run.uid} event=1></gently-volume>"
    )
    app.router.routes.insert(0, Route("/deep/host", lambda request: HTMLResponse(markup)))
    with serving(app) as url:
        viewer = look(url)
        viewer.page.goto(f"{url}/deep/host")
        viewer.wait(lambda: viewer.drawn() is not None)
        viewer.says("gently-volume figcaption", "e2", "t 0")


def test_times_are_stepped_in_one_channel_and_a_projection_has_a_window_of_its_own(
    root: Path, url: str, look: Look
) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        camera = Camera("cam", writer, shape=SHAPE)
        yield from bps.open_run({"plan_name": "acquire"})
        for timepoint in range(2):
            for channel in ("488", "561"):
                now = {"parent_time": 1_795_480_000.25 + timepoint}
                camera.scalars = {"embryo": "e1", "timepoint": timepoint, "channel": channel} | now
                yield from bps.trigger_and_read([camera])
        yield from bps.close_run()

    run = record(root, plan)
    viewer = look(url).open(f"run={run.uid}&event=0&z=0")
    viewer.wait(lambda: viewer.drawn() is not None)
    for keys, event in {("ArrowRight",): "2", ("h",): "3", ("ArrowLeft",): "1", ("ArrowLeft", "End"): "3"}.items():
        viewer.press(*keys)
        viewer.wait_address(event=event)
    viewer.all("gently-volume select[aria-label=channel]").select_option("488")
    viewer.wait_address(event="2")
    viewer.says("gently-volume figcaption", "488", "t 1")
    viewer.says("gently-story tr[title=parent_time]", ".250")
    viewer.press("p")
    projection = run["primary"]["cam_image"].project(2)
    low, high = np.percentile(projection, [1, 99.8], method="nearest")
    viewer.shows(shown(projection, low, high))


def test_a_stream_is_chosen_and_a_volume_without_a_timepoint_says_its_event(
    root: Path, url: str, look: Look
) -> None:
    def plan(writer: FileWriter) -> Iterator[Msg]:
        yield from bps.open_run({"plan_name": "acquire"})
        for stream in ("primary", "overview"):
            camera = Camera(f"cam_{stream}", writer, shape=SHAPE)
            yield from bps.trigger_and_read([camera], name=stream)
        yield from bps.close_run()

    run = record(root, plan)
    viewer = look(url).open(f"run={run.uid}")
    viewer.wait_address(stream="primary")
    viewer.all("gently-volume select[aria-label=stream]").select_option("overview")
    viewer.wait_address(stream="overview")
    viewer.says("gently-volume figcaption", "event 1")
    viewer.says("gently-volume .sliders", "event 1 ·")
    viewer.wait(lambda: viewer.drawn() is not None)


def test_the_page_may_run_nothing_but_its_own_modules(root: Path, url: str, look: Look) -> None:
    for name in ("", "page.js", "parts.css"):
        answer = httpx.get(f"{url}/{name}")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        again = httpx.get(f"{url}/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e/app.py", "page/..%5capp.py"):
        assert httpx.get(f"{url}/{name}").status_code == 404
    viewer = look(url).open()
    viewer.says("gently-now h2", "No run yet")
    assert viewer.page.evaluate("document.querySelectorAll('[style], script:not([src]), style').length") == 0
