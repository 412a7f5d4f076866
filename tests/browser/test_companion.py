"""The companion page in a real browser: quiz, slider, explanation, offline, and the poster's figure
found again in films of it.
"""

import contextlib
import functools
import http.server
import json
import math
import shutil
import struct
import threading
import wave

import cv2
import numpy as np
import poster_film
import poster_studies
import pytest
import reading_browser
import segno
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from helpers.runner import folders

CUES = (
    "WEBVTT\n\n00:00.000 --> 00:01.500\nThe first part.\n\n00:01.500 --> 00:09.000\nThe second.\n"
)
SIZES = {"phone": (390, 844), "desk": (1440, 900)}


@pytest.fixture(scope="module")
def companion(tmp_path_factory):
    """The run of 10 of a small study with frames and a spoken explanation of nine seconds."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("companion")
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(root / name.lower()))
        poster_studies.analysed(frames=8)
        with wave.open(str(folders.params_folder("small") / "talk.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            tone = (int(3000 * math.sin(i / 3)) for i in range(9 * 8000))
            sound.writeframes(b"".join(struct.pack("<h", value) for value in tone))
        (folders.params_folder("small") / "talk.vtt").write_text(CUES)
        run, _, _ = poster_studies.poster(audio="talk.wav", address="https://example.org/lungs/")
        yield run


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder):
    """A static host on loopback; yields its port and a function that stops it."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop():
        server.shutdown()
        server.server_close()

    try:
        yield server.server_address[1], stop
    finally:
        with contextlib.suppress(OSError):
            stop()


@pytest.fixture(scope="module")
def host(companion):
    with served(companion.folder / "companion") as (port, _):
        yield port


@contextlib.contextmanager
def opened(*arguments, **context):
    """A page of a new browser; fails when it asks another host or an error is thrown in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=reading_browser.chromium(),
            args=[*reading_browser.ARGUMENTS, *arguments],
        )
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(60_000)
        elsewhere, problems = [], []
        own = ("http://127.0.0.1:", "http://poster.test:", "file:", "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else elsewhere.append(r.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        try:
            yield page
            assert elsewhere == [] and problems == []
        finally:
            browser.close()


def truth(companion):
    content = (companion.folder / "companion" / "data.js").read_text()
    return json.loads(content.removeprefix("self.COMPANION = ").rstrip(";\n"))


def test_the_quiz_to_its_end_by_touch(companion, host):
    quiz = truth(companion)["quiz"]
    with opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as page:
        page.goto(f"http://127.0.0.1:{host}/")
        for number, image in enumerate(quiz, 1):
            assert page.inner_text("#progress") == f"Image {number} of {len(quiz)}"
            page.tap("[data-answer=fake]")
            votes = image["votes"]
            said = page.inner_text("#verdict")
            assert f"this image is {image['truth']}." in said
            assert f"real {votes['real']}, fake {votes['fake']}" in said
            page.tap("#next")
        right = sum(image["truth"] == "generated" for image in quiz)
        assert f"right on {right} of {len(quiz)} images" in page.inner_text("#verdict")
        theirs = sum(
            image["votes"]["fake" if image["truth"] == "generated" else "real"] / 2
            for image in quiz
        )
        assert f"right on {theirs:.1f} of them" in page.inner_text("#verdict")
        page.tap("#next")
        assert page.inner_text("#progress") == f"Image 1 of {len(quiz)}"


def test_the_quiz_to_its_end_by_keyboard(companion, host):
    quiz = truth(companion)["quiz"]
    with opened() as page:
        page.goto(f"http://127.0.0.1:{host}/")
        page.focus("[data-answer=real]")
        for image in quiz:
            if image["truth"] == "generated":
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            assert page.inner_text("#verdict").startswith("Right")
            page.keyboard.press("Enter")
        assert f"right on {len(quiz)} of {len(quiz)} images" in page.inner_text("#verdict")


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(size, companion, host):
    width, height = SIZES[size]
    with opened(viewport={"width": width, "height": height}) as page:
        page.goto(f"http://127.0.0.1:{host}/")
        for act in ("", "[data-answer=real]", "#light", "summary"):
            if act:
                page.click(act)
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_reloads_without_a_network_after_the_first_visit(companion):
    with opened() as page, served(companion.folder / "companion") as (port, stop):
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        stop()
        page.reload()
        page.wait_for_function("document.querySelector('#shown').naturalWidth > 0")
        page.wait_for_function("document.querySelector('#figure').naturalWidth > 0")
        page.wait_for_function("document.querySelector('#audio').duration > 8")
        page.click("[data-answer=real]")
        page.click("#next")
        page.wait_for_function("document.querySelector('#shown').naturalWidth > 0")


def test_from_a_file_all_but_offline_and_camera_works(companion):
    with opened() as page:
        page.goto((companion.folder / "companion" / "index.html").as_uri())
        page.wait_for_function("document.querySelector('#shown').naturalWidth > 0")
        page.click("[data-answer=fake]")
        assert "this image is" in page.inner_text("#verdict")
        page.click("#light")
        assert page.is_visible("#overlay div.generated")
        page.click("#camera")
        page.wait_for_selector("text=Everything else")


@pytest.mark.parametrize(
    ("motion", "said"),
    [("no-preference", "then starts to move."), ("reduce", "then lights up.")],
)
def test_who_wants_no_motion_is_promised_none(motion, said, companion, host):
    with opened(reduced_motion=motion) as page:
        page.goto(f"http://127.0.0.1:{host}/")
        assert said in page.inner_text("#point")


def test_without_https_permission_or_camera_the_page_says_so_kindly(companion, host):
    with opened("--host-resolver-rules=MAP poster.test 127.0.0.1") as page:
        page.goto(f"http://poster.test:{host}/")
        page.click("#camera")
        page.wait_for_selector("text=only on pages with a secure address (https)")
        page.click("[data-answer=fake]")
        assert "this image is" in page.inner_text("#verdict")
    with opened() as page:
        page.goto(f"http://127.0.0.1:{host}/")
        page.click("#camera")
        page.wait_for_selector("#camera-says:has-text('Everything else works without it.')")
        assert page.is_visible("#figure") and page.is_hidden("#view")


def test_a_camera_that_was_pressed_twice_is_off_when_it_is_stopped(host):
    with opened("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as page:
        page.goto(f"http://127.0.0.1:{host}/")
        page.evaluate(
            """() => {
                self.tracks = [];
                const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
                navigator.mediaDevices.getUserMedia = async (wish) => {
                    const stream = await ask(wish);
                    self.tracks.push(...stream.getTracks());
                    return stream;
                };
                document.querySelector("#camera").click();
                document.querySelector("#camera").click();
            }"""
        )
        page.wait_for_selector("#camera:has-text('Stop the camera')")
        page.wait_for_timeout(1000)
        page.click("#camera")
        assert page.evaluate("tracks.map(track => track.readyState)") == ["ended"]


@pytest.mark.parametrize("size", SIZES)
def test_long_names_fit_and_a_text_from_right_to_left_begins_on_the_right(
    size, companion, tmp_path
):
    width, height = SIZES[size]
    folder = shutil.copytree(companion.folder / "companion", tmp_path / "page")
    told = truth(companion) | {"title": "\u05e9\u05dc\u05d5\u05dd 3 \u05d1"}
    told["quiz"] = [
        image | {"source": "stabilityai/a-model@" + 120 * "a"} for image in told["quiz"]
    ]
    (folder / "data.js").write_text(f"self.COMPANION = {json.dumps(told)};")
    with opened(viewport={"width": width, "height": height}) as page:
        page.goto((folder / "index.html").as_uri())
        page.click("[data-answer=fake]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        begins = """() => {
            const [heading, range] = [document.querySelector("h1"), document.createRange()];
            range.setStart(heading.firstChild, 0);
            range.setEnd(heading.firstChild, 1);
            return heading.getBoundingClientRect().right - range.getBoundingClientRect().right;
        }"""
        assert abs(page.evaluate(begins)) < 2


def test_the_slider_goes_from_noise_to_the_finished_image(companion, host):
    with opened() as page:
        page.goto(f"http://127.0.0.1:{host}/")
        assert page.inner_text("#step-says") == "Pure noise"
        page.focus("#step")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#step-says") == "Step 1 of 7"
        page.keyboard.press("End")
        assert page.inner_text("#step-says") == "The finished image"
        page.wait_for_function("document.querySelector('#frame').src.endsWith('frames/07.webp')")


def test_captions_follow_the_recording_and_it_can_be_muted(companion, host):
    with opened("--autoplay-policy=no-user-gesture-required") as page:
        page.goto(f"http://127.0.0.1:{host}/")
        page.click("#play")
        page.wait_for_selector("#caption:has-text('The first part.')")
        page.wait_for_selector("#caption:has-text('The second.')")
        assert page.evaluate("document.querySelector('#audio').currentTime") >= 1.5
        assert page.text_content("#transcript .now") == "The second."
        page.click("#mute")
        assert page.evaluate("document.querySelector('#audio').muted")
        page.click("#play")
        assert page.evaluate("document.querySelector('#audio').paused")
        assert page.inner_text("#caption") == ""


def test_without_a_recording_captions_go_on_sentence_by_sentence(companion, tmp_path):
    folder = shutil.copytree(companion.folder / "companion", tmp_path / "page")
    told = truth(companion) | {"audio": "", "cues": [{"text": "One."}, {"text": "Two, and on."}]}
    (folder / "data.js").write_text(f"self.COMPANION = {json.dumps(told)};")
    with opened() as page:
        page.goto((folder / "index.html").as_uri())
        page.evaluate(
            """() => {
                self.seen = [];
                const node = document.querySelector("#caption");
                new MutationObserver(() => self.seen.push(node.textContent))
                    .observe(node, { childList: true });
            }"""
        )
        page.click("#mute")
        page.click("#play")
        page.wait_for_function("document.querySelector('#play').textContent !== 'Stop'")
        assert [text for text in page.evaluate("self.seen") if text] == ["One.", "Two, and on."]


def filmed(film, port, wanted, seconds=120):
    """Play a film to the page's camera; returns for each frame that it looked at its number and the
    overlay's corners (None while it is hidden).
    """
    with opened(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
        viewport={"width": 1280, "height": 900},
    ) as page:
        page.goto(f"http://127.0.0.1:{port}/")
        page.evaluate(
            """([side, bits]) => {
                self.looked = [];
                document.addEventListener("pose", () => {
                    const view = document.querySelector("#view");
                    const strip = view.getContext("2d").getImageData(0, 0, side * bits, side).data;
                    let number = 0;
                    for (let bit = 0; bit < bits; bit += 1) {
                        const at = 4 * ((side / 2) * side * bits + bit * side + side / 2);
                        if (strip[at] > 127) number += 2 ** bit;
                    }
                    const stage = document.querySelector("#stage").getBoundingClientRect();
                    const overlay = document.querySelector("#overlay");
                    const shown = !overlay.hidden;
                    const to = new DOMMatrix(getComputedStyle(overlay).transform);
                    const corner = (x, y) => {
                        const p = to.transformPoint(new DOMPoint(x, y));
                        const scale = view.width / stage.width;
                        return [p.x / p.w * scale, p.y / p.w * scale];
                    };
                    const [w, h] = [overlay.offsetWidth, overlay.offsetHeight];
                    looked.push([number, shown
                        ? [corner(0, 0), corner(w, 0), corner(w, h), corner(0, h)] : null]);
                });
            }""",
            [poster_film.SQUARE, poster_film.BITS],
        )
        page.click("#camera")
        page.wait_for_function(
            "wanted => new Set(looked.map(look => look[0])).size >= wanted",
            arg=wanted,
            timeout=seconds * 1000,
        )
        page.click("#camera")
        return page.evaluate("looked")


def test_the_overlay_lies_on_the_figure_within_three_percent(companion, host, tmp_path):
    film = tmp_path / "figure.mjpeg"
    corners = poster_film.make(companion.folder / "poster.png", film)
    looked = filmed(film, host, 60)
    good = []
    for number, seen in looked:
        width = np.linalg.norm(corners[number][1] - corners[number][0])
        off = np.linalg.norm(np.array(seen) - corners[number], axis=1) if seen else [math.inf]
        good.append(max(off) / width < 0.03)
    assert np.mean(good) >= 0.9, f"{sum(good)} of {len(good)} frames"


def test_a_film_of_another_code_shows_nothing(companion, host, tmp_path):
    page, corners = poster_film.scene(companion.folder / "poster.png")
    (left, top), (right, bottom) = corners[0].astype(int), corners[2].astype(int)
    told = truth(companion)["figure"]
    unit = (right - left) / told["width"]
    other = np.array(segno.make("https://example.org/other/", error="m", micro=False).matrix)
    size = int(told["code"]["size"] * unit)
    x, y = int(left + told["code"]["x"] * unit), int(top + told["code"]["y"] * unit)
    code = cv2.resize(
        255 * (1 - other).astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST
    )
    changed = page.copy()
    changed[y : y + size, x : x + size] = code
    assert (
        cv2.QRCodeDetector().detectAndDecode(changed[top:bottom, left:right])[0].endswith("other/")
    )
    film = tmp_path / "other.mjpeg"
    poster_film.make(companion.folder / "poster.png", film, 40, picture=(changed, corners))
    looked = filmed(film, host, 25)
    assert all(seen is None for _, seen in looked)
