"""Marks on the image in a real browser: by mouse, finger and keys, in pixels of the image whatever
the zoom, taken back, kept over a reload, and never on another image.
"""

import json

import pandas as pd
import pytest
import reading_studies
from axe_playwright_python.sync_playwright import Axe
from reading_browser import Reader
from test_reading_page import link, record, serve

ASKED = [
    *reading_studies.YOU,
    {"id": "label", "text": "This image is", "kind": "choice", "required": "true"}
    | {"options": "real=Real|fake=Fake|uncertain=Uncertain"},
    {"id": "where", "text": "Mark what looks generated", "kind": "marks", "required": "true"}
    | {"options": "texture=Texture|borders=Borders", "shown_when": "label=fake"},
]
SIZE = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    given = {"read": 8, "training": 0, "bits": 8, "size": SIZE, "number_of_readers": 6}
    running = serve(tmp_path_factory.mktemp("marks"), asked=ASKED, **given)
    yield running
    running.stop()


def started(browser, server, number: int, *size: int, **context) -> Reader:
    reader = Reader(browser, link(server, number), *size, **context)
    reader.open()
    reader.register()
    return reader


def place(page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image is on the screen, from the canvas and the viewer's own state."""
    return page.evaluate(
        """async ([x, y]) => {
        const { app } = await import('/reading/static/app.js');
        const { viewer } = app.screen;
        const { left, top, scale, ratio } = viewer.placed();
        const box = viewer.canvas.getBoundingClientRect();
        return [box.x + (left + x * scale) / ratio, box.y + (top + y * scale) / ratio] }""",
        [x, y],
    )


def drag(page, start: tuple, end: tuple) -> None:
    page.mouse.move(*place(page, *start))
    page.mouse.down()
    page.mouse.move(*place(page, *end), steps=5)
    page.mouse.up()


def kept(server, number: int) -> dict[str, dict]:
    return {e.blind_id: e.payload for e in record(server, number) if e.event == "answered"}


def near(mark: dict, x: float, y: float, w: float = 0, h: float = 0) -> bool:
    return all(abs(mark[name] - value) < 0.6 for name, value in zip("xywh", (x, y, w, h)))


def test_marks_are_in_pixels_of_the_image_whatever_the_zoom(browser, server):
    reader = started(browser, server, 0)
    page, first = reader.page, reader.shown()
    assert not page.locator(".marks").is_visible(), "asked only of what looks generated"
    page.keyboard.press("f")
    page.keyboard.press("Enter")
    assert "Still needed: Mark what looks generated" in page.inner_text(".finish .problem")
    window = page.inner_text(".window")
    page.click(".choice[data-value=mark]")
    page.mouse.click(*place(page, 20, 30))
    page.click(".cues .choice[data-value=texture]")
    page.mouse.move(*place(page, 40, 40))
    for _ in range(4):
        page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    drag(page, (38, 36), (44, 46))
    assert "Zoom 100" not in page.inner_text(".window"), "zoomed in"
    page.mouse.click(*place(page, 41, 41))
    page.click(".choice[data-value=undo]")
    page.keyboard.press("0")
    page.wait_for_timeout(200)
    assert page.inner_text(".window") == window, "marking did not move the window"
    page.reload()
    assert reader.shown() == first
    assert page.locator(".marks .small button:has-text('box')").count() == 1, "the draft stays"
    page.keyboard.press("Enter")
    second = reader.shown(first)
    assert page.locator(".marks button:has-text('point')").count() == 0, "on no other image"
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    reader.shown(second)
    reader.saved()
    answers = kept(server, 0)
    assert "where" not in answers[second], "not asked of a real one"
    point, box = answers[first]["where"]
    assert near(point, 20, 30) and point["cue"] == "texture", point
    assert near(box, 38, 36, 6, 10) and box["cue"] == "", box
    assert reader.problems == []


def test_a_finger_marks_and_two_fingers_still_zoom(browser, server):
    reader = started(browser, server, 1, 390, 844, has_touch=True)
    page, first = reader.page, reader.shown()
    page.click(".choice[data-value=fake]")
    page.locator(".choice[data-value=mark]").tap()
    assert not (found := Axe().run(page)).response["violations"], found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.touchscreen.tap(*place(page, 10, 50))
    touches = page.context.new_cdp_session(page)
    a, b = place(page, 28, 32), place(page, 36, 32)
    for kind, points in (
        ("touchStart", [a]),
        ("touchStart", [a, b]),
        ("touchMove", [(a[0] - 40, a[1]), (b[0] + 40, b[1])]),
        ("touchEnd", []),
    ):
        told = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})
    page.wait_for_timeout(200)
    assert "Zoom 100" not in page.inner_text(".window")
    page.click("button.save")
    reader.shown(first)
    reader.saved()
    (mark,) = kept(server, 1)[first]["where"]
    assert near(mark, 10, 50), mark


def test_a_hand_that_rests_beside_its_pen_makes_no_mark_and_moves_nothing(browser, server):
    reader = started(browser, server, 5, 1024, 768, has_touch=True)
    page, first = reader.page, reader.shown()
    page.click(".choice[data-value=fake]")
    page.click(".choice[data-value=mark]")
    window = page.inner_text(".window")
    device = page.context.new_cdp_session(page)

    def hand(kind: str, *at: tuple[float, float]) -> None:
        points = [{"x": x, "y": y} for x, y in at]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def pen(kind: str, at: tuple[float, float]) -> None:
        told = {"type": kind, "x": at[0], "y": at[1], "pointerType": "pen", "button": "left"}
        device.send("Input.dispatchMouseEvent", told | {"buttons": 1, "clickCount": 1})

    resting = place(page, 50, 55)
    hand("touchStart", resting)
    pen("mousePressed", place(page, 10, 12))
    hand("touchMove", (resting[0] + 30, resting[1] + 8))
    pen("mouseMoved", place(page, 16, 17))
    hand("touchEnd")
    pen("mouseMoved", place(page, 20, 22))
    hand("touchStart", resting)
    pen("mouseReleased", place(page, 20, 22))
    hand("touchEnd")
    page.wait_for_timeout(200)
    assert page.inner_text(".window") == window
    page.click("button.save")
    reader.shown(first)
    reader.saved()
    (mark,) = kept(server, 5)[first]["where"]
    assert near(mark, 10, 12, 10, 10), mark


def test_marks_by_keys_alone(browser, server):
    reader = started(browser, server, 2, 1024, 768)
    page, first = reader.page, reader.shown()
    for key in ["f", "m", *["ArrowLeft"] * 10, *["ArrowUp"] * 5, " ", "ArrowRight", " "]:
        page.keyboard.press(key)
    page.keyboard.press("Backspace")
    for key in [*["Shift+ArrowRight"] * 5, *["Shift+ArrowDown"] * 10]:
        page.keyboard.press(key)
    assert not (found := Axe().run(page)).response["violations"], found.generate_report()
    page.keyboard.press("Enter")
    reader.shown(first)
    reader.saved()
    (mark,) = kept(server, 2)[first]["where"]
    step = SIZE / 40
    assert near(mark, 32 - 10 * step, 32 - 5 * step, 5 * step, 10 * step), mark


def test_who_has_made_the_last_mark_is_told_until_one_is_removed(browser, server):
    reader = started(browser, server, 4)
    page = reader.page
    page.keyboard.press("f")
    page.click(".choice[data-value=mark]")
    how = page.inner_text(".marks [role=status]")
    for number in range(20):
        assert page.inner_text(".marks [role=status]") == how
        page.mouse.click(*place(page, 5 + 2.5 * number, 30))
    assert "There are 20 marks" in page.inner_text(".marks [role=status]")
    page.mouse.click(*place(page, 30, 50))
    assert page.locator(".marks .small button:has-text('point')").count() == 20
    page.click(".choice[data-value=undo]")
    assert page.inner_text(".marks [role=status]") == how
    assert page.is_visible("text=What is it?")


def test_what_is_no_mark_within_the_image_is_refused_and_marks_are_exported(server):
    client = server.client(3)
    first = client.enter()["current"]
    mark = {"x": 1, "y": 2, "w": 3, "h": 4, "cue": "borders"}
    for wrong in (
        [mark | {"x": SIZE}],
        [mark | {"y": -1}],
        [mark | {"cue": "colour"}],
        [mark | {"more": 1}],
        [mark] * 21,
        ["a"],
        [mark | {"w": True}],
        [mark | {"h": "4"}],
    ):
        status, told = client.send("answered", first, label="fake", where=wrong)
        assert status == 422, wrong
        assert "where" in told["error"]
    status, _ = client.send("answered", first, label="fake", where=[mark, mark | {"w": 0, "h": 0}])
    assert status == 200
    while current := client.state()["current"]:
        assert client.send("answered", current, label="real")[0] == 200
    assert client.send("locked", code=server.code(3))[0] == 200
    out = server.root / "out"
    assert server.command("export", "--to", str(out)).returncode == 0
    rows = pd.read_csv(out / "answers.csv").query("question == 'where'")
    assert json.loads(rows["value"].item())[0] == mark and rows["blind_id"].item() == first
