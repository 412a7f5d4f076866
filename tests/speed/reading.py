"""Speed of the reading page in a real browser, beside a plain `widgets.Image` plus buttons notebook
under Voila.

python -m speed.reading            prints the table (needs Playwright and a Chromium)
"""

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import reading_studies
from reading_browser import Reader, launch
from reading_client import free_port

from helpers import images
from speed import measurement

# What a reader does not notice: image size (0: any), measurement, and the most that it may take.
AIMED_AT = {
    (0, "open to first image, median"): 2200,
    (0, "reload to first image, median"): 2200,
    (1024, "next image after the key, 95th percentile"): 60,
    (2048, "next image after the key, 95th percentile"): 100,
    (1024, "next pair after the key, 95th percentile"): 80,
    (0, "saved acknowledgement, 95th percentile"): 100,
    (1024, "window drag, 95th percentile of a frame"): 16,
    (0, "memory of a reader's kernel, proportional"): 65,
}
PLAIN = """
import ipywidgets as widgets, pathlib
from IPython.display import display
paths = sorted(pathlib.Path({folder!r}).glob('*.png'))
answers, image, at = [], widgets.Image(value=paths[0].read_bytes(), format='png'), [0]
image.add_class('plain-picture')
def answer(button):
    answers.append((paths[at[0]].name, button.description))
    at[0] += 1
    image.value = paths[at[0]].read_bytes()
buttons = [widgets.Button(description=label) for label in ('Real', 'Fake', 'Uncertain')]
for button in buttons: button.on_click(answer)
display(widgets.VBox([image, widgets.HBox(buttons)]))
"""


def measure(
    sizes: Sequence[int | str] = (1024, 2048), answers: int = 30, openings: int = 5
) -> pd.DataFrame:
    """Columns measurement.COLUMNS. Starts servers and a browser; takes about two minutes a size.

    `answers` are given and the page is opened and reloaded `openings` times at each image size
    (pixels a side).
    """
    rows = []
    playwright, browser = launch()
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, sizes):
            root = Path(folder) / str(size)
            pictures = make_study(root, size, answers + 8)
            ours, plain = (
                measure_ours(browser, answers, openings),
                measure_plain(browser, root, pictures, answers, openings),
            )
            ours |= measure_pairs(browser, Path(folder) / f"{size} pairs", size, answers)
            rows += [_row(size, what, plain.get(what), value) for what, value in ours.items()]
    browser.close()
    playwright.stop()
    return pd.DataFrame(rows)


def _row(size: int, what: str, baseline: float | None, ours: float) -> dict:
    unit = "MB" if "memory" in what else "ms"
    target = AIMED_AT.get((size, what)) or AIMED_AT.get((0, what))
    note = f"at most {target:g} {unit} is the aim; " if target else ""
    note += "12-bit in 16 bits; the plain notebook shows the same image as 8-bit PNG"
    return measurement.row(f"reading {size}×{size}", what, baseline, ours, unit, note)


def make_study(root: Path, size: int, count: int) -> Path:
    """A reading set of `count` noisy 12-bit images below `root`, and the same as 8-bit PNG for the
    plain notebook; returns that folder.
    """
    reading_studies.use(root)
    reading_set = reading_studies.make(root, read=count, training=0, size=size, break_after=0)
    plain = root / "plain"
    plain.mkdir()
    for path in sorted((reading_set / "images").glob("*.png")):
        array = images.read_png(path)
        (plain / path.name).write_bytes(images.write_png((array >> 4).astype(np.uint8)))
    return plain


@contextlib.contextmanager
def served(command: list[str], port: int):
    """A server as a process of its own; yields (process, what it printed so far)."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", port), timeout=1),
                ):
                    break
                time.sleep(0.1)
            time.sleep(3.0)  # the first kernel is started ahead, as in a study that is being served
            log.seek(0)
            yield process, log.read()
        finally:
            process.terminate()
            process.wait(30)


def proportional_mb(process: psutil.Process) -> float:
    """Proportional set size of a process, MB."""
    return process.memory_full_info().pss / 1e6


def measure_ours(browser, answers: int, openings: int) -> dict[str, float]:
    """Opening, next image, saving, window drag (ms) and memory (MB) of the reading page."""
    port = free_port()
    study = reading_studies.STUDY
    command = [sys.executable, "-m", "helpers.reading.server", study, "--port", str(port)]
    with served(command, port) as (process, printed):
        link = re.search(r"http\S+login#\S+", printed)[0]
        reader = Reader(browser, link)
        reader.open()
        reader.register()
        page = reader.page
        found = {"open to first image, median": _opened(browser, link, openings, again=False)}
        found["reload to first image, median"] = _opened(browser, link, openings, again=True)
        reader.open()  # each opening was a session, and a code keeps only the newest ten
        page.wait_for_selector("canvas[data-shown]")
        page.wait_for_timeout(2500)
        next_ms, saved_ms = _answered(page, answers)
        found |= _quantiles("next image after the key", next_ms) | _quantiles(
            "saved acknowledgement", saved_ms
        )
        found["window drag, 95th percentile of a frame"] = _drag(page)
        kernels = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "ipykernel" in " ".join(child.cmdline())
        ]
        found["memory of a reader's kernel, proportional"] = round(
            max(map(proportional_mb, kernels)), 1
        )
        page.context.close()
    return found


def measure_pairs(browser, root: Path, size: int, answers: int) -> dict[str, float]:
    """Milliseconds from the key to both images of the next pair."""
    asked = reading_studies.questions()
    which = {"id": "which", "text": "Which is generated?", "kind": "choice", "required": "true"}
    asked.append(which | {"options": "left=Left|right=Right"})
    pairs = [reading_studies.BLOCK | {"block": "pairs", "pairs": "true"}]
    pairs.append(reading_studies.BLOCK | {"block": "single", "order": 2})
    reading_studies.use(root)
    given = {"training": 0, "break_after": 0, "blocks": pairs, "asked": asked}
    reading_studies.make(root, read=answers + 8, size=size, **given)
    port = free_port()
    command = [sys.executable, "-m", "helpers.reading.server", reading_studies.STUDY]
    with served([*command, "--port", str(port)], port) as (_, printed):
        reader = Reader(browser, re.search(r"http\S+login#\S+", printed)[0])
        reader.open()
        reader.register()
        next_ms, _ = _answered(reader.page, answers)
        reader.page.context.close()
    return _quantiles("next pair after the key", next_ms)


def _answered(page, answers: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the key to the next image (or pair), and until the answer is saved."""
    page.evaluate(_WATCH)
    for _ in range(answers):
        page.keyboard.press("r")  # real; of a pair, the right one
        page.evaluate("window.began = performance.now()")
        page.keyboard.press("Enter")
        page.wait_for_function("window.painted.length > window.taken && ++window.taken")
        page.wait_for_timeout(400)  # a reader looks; the next images are fetched meanwhile
    return page.evaluate("[window.painted, window.saved]")


def _opened(browser, link: str, openings: int, again: bool) -> float:
    """Milliseconds to the first image from opening the link in an empty browser, or from a reload
    (`again`); the median.
    """
    taken = []
    for _ in range(openings):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        began = time.perf_counter()
        page.goto(link, wait_until="commit")
        page.wait_for_selector("canvas[data-shown]")
        if again:
            page.wait_for_timeout(2500)
            began = time.perf_counter()
            page.reload(wait_until="commit")
            page.wait_for_selector("canvas[data-shown]")
        taken.append((time.perf_counter() - began) * 1000)
        page.wait_for_timeout(2500)
        context.close()
    return round(float(np.median(taken)))


# Times are taken in the page: from the key to the frame on the screen, and from the message's
# sending to its acknowledgement.
_WATCH = """() => {
  Object.assign(window, { painted: [], saved: [], taken: 0, began: 0 });
  const began = (e) => { if (e.key === 'Enter') window.began = performance.now() };
  addEventListener('keydown', began, true);
  const canvas = document.querySelector('canvas.picture');
  const seen = () => {
    if (canvas.dataset.shown) window.painted.push(performance.now() - window.began) };
  new MutationObserver(seen).observe(canvas, { attributeFilter: ['data-shown'] });
  const plain = window.fetch;
  window.fetch = async (...a) => {
    const t = performance.now();
    const r = await plain(...a);
    if (String(a[0]).endsWith('reading/record') && a[1].body.includes('"answered"'))
      window.saved.push(performance.now() - t);
    return r };
}"""


def _quantiles(what: str, values: list[float]) -> dict[str, float]:
    return {
        f"{what}, median": round(float(np.median(values)), 1),
        f"{what}, 95th percentile": round(float(np.percentile(values, 95)), 1),
    }


def _drag(page) -> float:
    page.evaluate(
        """async () => {
          const { viewer } = (await import('/reading/static/app.js')).app.screen;
          const draw = viewer.draw;
          window.drawn = [];
          viewer.draw = () => {
            const began = performance.now();
            draw.call(viewer);
            window.drawn.push(performance.now() - began);
          };
        }"""
    )
    box = page.locator("canvas.picture").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(box["x"] + 300 + 3 * step, box["y"] + 300 + 2 * step)
    page.mouse.up()
    return round(float(np.percentile(page.evaluate("window.drawn"), 95)), 1)


def measure_plain(
    browser, root: Path, pictures: Path, answers: int, openings: int
) -> dict[str, float]:
    """The same of a plain notebook: one Image widget and three buttons under stock Voila."""
    notebook = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    notebook.cells.append(nbformat.v4.new_code_cell(PLAIN.format(folder=str(pictures))))
    path = root / "plain.ipynb"
    path.write_text(nbformat.writes(notebook))
    port = free_port()
    command = [sys.executable, "-m", "voila", str(path), f"--port={port}", "--no-browser"]
    with served(command, port) as (process, _):
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.route(
            lambda url: not url.startswith("http://127.0.0.1"), lambda route: route.abort()
        )  # stock Voila asks a CDN
        opened = []
        for _ in range(openings):
            began = time.perf_counter()
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            page.wait_for_function(
                "(document.querySelector('img.plain-picture') || {}).naturalWidth > 0",
                timeout=60_000,
            )
            opened.append((time.perf_counter() - began) * 1000)
        page.evaluate(_WATCH_PLAIN)
        for _ in range(answers):
            page.click("button:has-text('Real')")
            page.wait_for_function("window.painted.length > window.taken && ++window.taken")
            page.wait_for_timeout(400)
        next_ms = page.evaluate("window.painted")
        kernels = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "ipykernel" in " ".join(child.cmdline())
        ]
        memory = round(max(map(proportional_mb, kernels)), 1)
        page.context.close()
    found = {
        "open to first image, median": round(float(np.median(opened))),
        "memory of a reader's kernel, proportional": memory,
    }
    return found | _quantiles("next image after the key", next_ms)


_WATCH_PLAIN = """() => {
  Object.assign(window, { painted: [], taken: 0, began: 0 });
  addEventListener('click', () => { window.began = performance.now() }, true);
  const seen = () => window.painted.push(performance.now() - window.began);
  document.querySelector('img.plain-picture').addEventListener(
    'load', () => requestAnimationFrame(() => requestAnimationFrame(seen)));
}"""


if __name__ == "__main__":
    print(measure().to_string(index=False))
