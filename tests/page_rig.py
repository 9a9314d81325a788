"""What the tests of the viewer page share: a page in a real browser, and what is drawn on it."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky import Msg
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page

from gently_bluesky import FileWriter
from gently_bluesky.read.run import Run
from tests.data_rig import DEADLINE_S, Camera, record

SHAPE = (6, 32, 48)

_CANVAS = """([part, axis, number]) => {
  const root = document.querySelector("gently-page")?.shadowRoot ?? document;
  const canvas = root.querySelector(part)?.shadowRoot.querySelectorAll(`canvas[data-axis=${axis}]`)[number];
  if (!canvas || canvas.closest(".failed") || canvas.width === 300) return null;
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [height, width, Array.from(data)];
}"""


class Viewer:
    """The page as somebody sees it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.expected: tuple[str, ...] = ("willReadFrequently",)  # that is what tests do
        self.elsewhere: list[str] = []
        page.set_default_timeout(2e3 * DEADLINE_S)  # a machine that others use as well takes its time
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))

    def _console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(each in text for each in self.expected):
            self.errors.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(url)

    def open(self, address: str = "") -> "Viewer":
        """Go to an address: the part after #."""
        self.page.goto(f"{self.url}/{f'#{address}' if address else ''}")
        return self

    def expecting(self, *words: str) -> "Viewer":
        """Let the browser complain with these words."""
        self.expected += words
        return self

    def all(self, selector: str) -> Locator:
        """Elements, in every part."""
        return self.page.locator(selector)

    def text(self, selector: str) -> str:
        """What an element says."""
        return " ".join(self.all(selector).first.inner_text().split())

    def says(self, selector: str, *words: str) -> None:
        """Wait until an element says all these words."""
        self.wait(lambda: all(word in self.text(selector) for word in words), lambda: self.text(selector))

    def wait(self, condition: Callable[[], bool], about: Callable[[], object] = lambda: "") -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, about()
            self.page.wait_for_timeout(10)

    def drawn(self, axis: str = "z", number: int = 0, part: str = "gently-volume") -> NDArray[np.uint8] | None:
        """The pixels of a pane, (y, x, 3); None while nothing is drawn."""
        found = self.page.evaluate(_CANVAS, [part, axis, number])
        if found is None:
            return None
        height, width, data = found
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def shows(self, expected: NDArray[Any], axis: str = "z", number: int = 0, **where: Any) -> None:
        """Wait until a pane shows these pixels: (y, x), or (y, x, 3)."""
        coloured = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)

        def is_there() -> bool:
            drawn = self.drawn(axis, number, **where)
            if drawn is None or drawn.shape != coloured.shape:
                return False
            return int(np.abs(drawn.astype(int) - coloured).max()) <= 1  # of 255, where halves are rounded

        self.wait(
            is_there, lambda: f"pane {axis} {number} shows\n{self.drawn(axis, number, **where)}\nnot\n{expected}"
        )

    def slide(self, name: str, value: int) -> None:
        """Move a slider."""
        slider = self.all(f"gently-volume input[aria-label={name}]")
        slider.evaluate(
            "(input, to) => { input.value = to; input.dispatchEvent(new Event('input')); }", str(value)
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def address(self) -> dict[str, str]:
        """What stands behind #."""
        return dict(self.page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"))

    def wait_address(self, **parts: str) -> None:
        """Wait until the address says this."""
        self.wait(lambda: parts.items() <= self.address.items(), lambda: self.address)


def shown(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Counts as the page draws them in gray."""
    levels = np.floor((pixels.astype(float) - low) * 255 / (high - low) + 0.5)
    return np.clip(levels, 0, 255).astype(np.uint8)


def two_views(
    writer: FileWriter, embryos: Sequence[str] = ("e1", "e2"), timepoints: int = 3, **start: Any
) -> Iterator[Msg]:
    """A run of two views, of embryos in turn."""
    cameras = [Camera(f"cam_{view.lower()}", writer, shape=SHAPE, view=view) for view in "AB"]
    cameras[1].taken = 50
    yield from bps.open_run({"plan_name": "acquire", "session": "s", "operator": "ann", **start})
    for timepoint in range(timepoints):
        for embryo in embryos:
            cameras[0].scalars = {"embryo": embryo, "timepoint": timepoint, "stage_x_um": 10.5 * timepoint}
            yield from bps.trigger_and_read(cameras)
    yield from bps.close_run()


def recorded(root: Path, **options: Any) -> Run:
    """Such a run on disk."""
    return record(root, lambda writer: two_views(writer, **options))
