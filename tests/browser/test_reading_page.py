"""The reading page in a real browser: from the link to the lock, and no answer lost whatever breaks
in between.
"""

import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections import Counter

import pytest
import reading_studies
from fault_proxy import Proxy
from reading_browser import Reader
from reading_client import Server

from helpers.reading import chain, setting, store


def serve(root, **study) -> Server:
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(root, patch.setenv)
        reading_studies.make(root, **study)
    return Server(root).start()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = serve(
        tmp_path_factory.mktemp("page"),
        read=30,
        training=1,
        number_of_readers=10,
        break_after=0,
        confidence="3-step",
        cues_asked=True,
    )
    yield running
    running.stop()


def link(server: Server, number: int, port: int | None = None) -> str:
    return list(server.links.values())[number].replace(str(server.port), str(port or server.port))


def record(server: Server, number: int = 0) -> list[chain.Event]:
    engine = store.open_store(
        server.root / "outputs" / reading_studies.STUDY / "07_read_cases" / "readings.sqlite"
    )
    try:
        assert store.verify(engine) == []
        return store.events(engine, list(server.links)[number])
    finally:
        engine.dispose()


def nothing_lost(server: Server, reader: Reader, number: int, answered: list[str]) -> None:
    """Every answer given and every one acknowledged is in the record exactly once, on its own
    image.
    """
    events = record(server, number)
    kept = [event for event in events if event.event == "answered"]
    assert Counter(event.blind_id for event in kept) == Counter(answered)
    assert all(event.payload["description"] == f"seen {event.blind_id}" for event in kept)
    assert Counter(event.message_id for event in events).most_common(1)[0][1] == 1
    by_id = {event.message_id: event.blind_id for event in events}
    assert reader.acknowledged.items() <= by_id.items()


def started(browser, server, number, port=None, **context) -> Reader:
    reader = Reader(browser, link(server, number, port), **context)
    reader.open()
    reader.register()
    return reader


def test_from_the_link_to_the_lock(browser, tmp_path):
    server = serve(
        tmp_path,
        read=4,
        training=1,
        break_after=2,
        going_back="until next",
        description_required=True,
        confidence="6-step",
    )
    try:
        reader = started(browser, server, 0)
        page = reader.page
        assert "#" not in page.url, "the code does not stay in the address"
        assert "Training 1 of 1" in page.inner_text(".progress")
        first = reader.shown()
        page.keyboard.press("Enter")
        assert "Still needed: This image is" in page.inner_text(".finish .problem")
        page.keyboard.press("r")
        page.keyboard.press("Enter")
        assert "How sure" in page.inner_text(
            ".finish .problem"
        ) or "sure you are" in page.inner_text(".finish .problem")
        page.keyboard.press("4")
        page.keyboard.press("Enter")
        assert "Lung condition" in page.inner_text(".finish .problem")
        page.fill("#description", "an effusion")
        page.click(".choice:has-text('Pleural effusion')")
        page.click(".choice[data-value=left]")
        page.keyboard.press("Escape")
        page.click("button.save")
        page.wait_for_selector("dialog[open]")
        assert reader.dialog() == "The training cases are done"
        titles = []
        for number in range(4):
            blind_id = reader.shown(first)
            page.keyboard.press("2")
            assert page.inner_text(".progress") == f"{number + 1} of 4"
            titles.append(reader.answer("u") and reader.dialog())
            first = blind_id
        assert "Time for a short break?" in titles
        page.wait_for_selector("form.lock")
        assert not {"real", "fake"} & set(page.inner_text(".sheet").lower().split()), (
            "no counts, no labels, no truth"
        )
        page.fill("form.lock input", "AAAAA-AAAAA-AAAAA-AAAAA")
        page.click("form.lock button")
        page.wait_for_selector("text=This is not your code")
        head = reader.lock(server.code(0))
        events = record(server, 0)
        assert head == events[-1].hash and events[-1].event == "locked"
        answers = [event.payload for event in events if event.event == "answered"]
        assert (
            answers[0]["findings"] == ["effusion"]
            and answers[0]["side"] == "left"
            and answers[0]["confidence"] == 4
        )
        assert all(answer["seconds"] > 0 and answer["window_width"] > 0 for answer in answers)
        display = next(event.payload for event in events if event.event == "display")
        assert display["screen_width"] > 0 and display["pixel_ratio"] > 0
        assert reader.elsewhere == [] and reader.problems == []
        page.reload()
        page.wait_for_selector("code.head")
        assert page.evaluate("Object.keys(localStorage).length") == 0, (
            "nothing stays on the workstation"
        )
    finally:
        server.stop()


def test_changing_the_last_answer_asks_for_a_reason_and_keeps_the_first(browser, server):
    reader = started(browser, server, 0)
    page = reader.page
    reader.page.keyboard.press("1")
    first = reader.answer("f")
    page.wait_for_selector("dialog[open]")
    reader.dialog()
    second = reader.shown(first)
    page.keyboard.press("2")
    assert reader.answer("r") == second
    third = reader.shown(second)
    page.click("text=Change the last answer")
    assert (
        reader.shown(third) == second
        and page.get_attribute(".choice[data-value=real]", "aria-pressed") == "true"
    )
    page.keyboard.press("u")
    page.keyboard.press("Enter")
    assert "Why are you changing it" in page.inner_text(".finish .problem")
    page.fill("#reason", "looked again")
    page.keyboard.press("Enter")
    assert reader.shown(second) == third
    reader.saved()
    about = [
        (event.event, event.payload["label"])
        for event in record(server, 0)
        if event.blind_id == second and event.event != "shown"
    ]
    assert about == [("answered", "real"), ("changed", "uncertain")]


def test_enter_saves_after_a_click_and_a_missing_field_comes_into_view(browser, server):
    reader = started(browser, server, 8)
    page = reader.page
    page.keyboard.press("2")
    page.keyboard.press("f")
    page.click(".choice[data-value=effusion]")
    assert (
        page.get_attribute(".choice[data-value=effusion]", "aria-pressed") == "true"
        and contrast(page) >= 4.5
    )
    blind_id = reader.shown()
    page.click("[data-tool=invert]")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    reader.saved()
    kept = next(
        event.payload
        for event in record(server, 8)
        if event.event == "answered" and event.blind_id == blind_id
    )
    assert kept["findings"] == ["effusion"] and kept["inverted"] is True
    reader.dialog()
    reader.shown(blind_id)
    page.evaluate("document.querySelector('.answer').scrollTop = 9999")
    page.click("button.save")
    assert "Still needed: This image is" in page.inner_text(".finish .problem")
    top = page.locator(".answer").bounding_box()["y"]
    assert page.locator(".choice[data-value=real]").bounding_box()["y"] >= top - 1


def test_window_zoom_and_invert_by_mouse_and_keys_are_recorded(browser, server):
    reader = started(browser, server, 1)
    page = reader.page
    box = page.locator("canvas.picture").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    text = page.inner_text(".window")
    before = reader.grey(0.5, 0.75)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0], middle[1] + 120, steps=6)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert page.inner_text(".window") != text and reader.grey(0.5, 0.75) < before, (
        "a higher level is darker"
    )
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    assert page.inner_text(".window") == text
    page.keyboard.press("i")
    page.wait_for_timeout(100)
    assert abs(reader.grey(0.5, 0.75) - (255 - before)) < 6
    page.mouse.wheel(0, -300)
    page.keyboard.press("1")
    blind_id = reader.answer("f")
    reader.saved()
    kept = next(
        event.payload
        for event in record(server, 1)
        if event.event == "answered" and event.blind_id == blind_id
    )
    assert kept["inverted"] is True and kept["zoom"] > 1.1


def test_a_small_picture_is_interpolated_until_the_reader_zooms_to_its_pixels(browser, server):
    reader = started(browser, server, 9)
    page = reader.page
    alike = """() => {
        const c = document.querySelector('canvas.picture');
        const row = c.getContext('2d').getImageData(0, c.height / 2, c.width, 1).data;
        let same = 0;
        for (let x = 4; x < row.length; x += 4) same += row[x] === row[x - 4];
        return same / (c.width - 1) }"""
    page.evaluate("document.querySelector('canvas.picture').scrollIntoView()")
    box = page.locator("canvas.picture").bounding_box()
    assert box["width"] > 8 * 64, "one pixel of the image covers many of the screen"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.evaluate(alike) < 0.7, "as it comes, the image is no mosaic"
    for _ in range(12):
        page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    assert page.evaluate(alike) > 0.9, "zoomed in, single pixels are seen"


def test_twelve_bit_grey_reaches_the_screen(browser, server):
    reader = started(browser, server, 2)
    page = reader.page
    levels = page.evaluate(
        """async () => {
        const a = await import('/reading/static/app.js');
        const v = (await [...a.app.images.values()][0]).values;
        return [v.constructor.name, new Set(v).size, Math.max(...v)] }"""
    )
    assert levels[0] == "Uint16Array" and levels[1] > 256 and levels[2] <= 4095


def test_a_pause_covers_the_image_and_stops_the_clock(browser, server):
    reader = started(browser, server, 3)
    page = reader.page
    page.wait_for_timeout(300)
    page.keyboard.press("p")
    page.wait_for_selector("dialog[open]")
    assert not page.locator("canvas.picture").is_visible()
    page.wait_for_timeout(1500)
    page.reload()
    page.wait_for_selector("dialog[open]")
    reader.dialog()
    page.keyboard.press("2")
    blind_id = reader.answer("r")
    reader.saved()
    events = record(server, 3)
    assert [event.event for event in events if event.event in ("paused", "resumed")] == [
        "paused",
        "resumed",
    ]
    seconds = next(
        event.payload["seconds"]
        for event in events
        if event.event == "answered" and event.blind_id == blind_id
    )
    assert 0.2 < seconds < 60


def cut(server, proxy, reader):
    proxy.set("cut")
    time.sleep(0.6)
    proxy.set("pass")


def freeze(server, proxy, reader):
    proxy.set("freeze")
    time.sleep(1.2)
    proxy.set("pass")  # what was frozen stays so: only new connections work


def reload(server, proxy, reader):
    reader.page.reload(wait_until="commit")


def kill_kernel(server, proxy, reader):
    for process in server.kernels():
        os.kill(process, signal.SIGKILL)


def kill_server(server, proxy, reader):
    server.kill()
    server.start()


def database_locked(server, proxy, reader, seconds=1.0):
    raw = sqlite3.connect(
        server.root / "outputs" / reading_studies.STUDY / "07_read_cases" / "readings.sqlite",
        timeout=20,
        check_same_thread=False,
    )
    raw.execute("BEGIN IMMEDIATE")
    threading.Timer(seconds, lambda: (raw.rollback(), raw.close())).start()


def disk_full(server, proxy, reader):
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    threading.Timer(
        1.2, lambda: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    ).start()


FAULTS = [cut, freeze, reload, kill_kernel, kill_server, database_locked, disk_full]


def read_under_faults(browser, server, number: int, answers: int, seed: int, every: int) -> None:
    """Read `answers` images, a fault every few, right before, at or right after an answer."""
    chosen, proxy = random.Random(seed), Proxy(server.port)
    reader = started(browser, server, number, proxy.port)
    page, answered, faults = reader.page, [], list(FAULTS)
    try:
        for turn in range(answers):
            fault = faults[turn // every % len(faults)] if turn % every == every - 1 else None
            moment = chosen.choice(("before", "after"))
            if fault and moment == "before":
                fault(server, proxy, reader)
            page.wait_for_function("document.querySelector('canvas[data-shown], dialog[open]')")
            reader.dialog()
            blind_id = reader.shown(answered[-1] if answered else "")
            page.keyboard.press(chosen.choice("123"))
            assert reader.answer(chosen.choice("rfu")) == blind_id
            if chosen.random() < 0.2:
                page.keyboard.press(
                    "Enter"
                )  # a second press at once must not answer the next image
            answered.append(blind_id)
            if fault and moment == "after":
                fault(server, proxy, reader)
        reader.saved(60)
        nothing_lost(server, reader, number, answered)
        assert reader.unexpected() == []
    finally:
        proxy.close()


def test_no_answer_is_lost_under_faults(browser, server):
    read_under_faults(browser, server, 4, answers=28, seed=1, every=2)


@pytest.mark.soak
def test_no_answer_is_lost_in_a_thousand_under_random_faults(browser, tmp_path):
    server = serve(
        tmp_path, read=1010, training=0, number_of_readers=1, break_after=0, confidence="3-step"
    )
    try:
        read_under_faults(browser, server, 0, answers=1000, seed=2, every=7)
    finally:
        server.stop()


def test_the_page_says_when_an_answer_is_not_saved_and_keeps_it(browser, server):
    proxy = Proxy(server.port)
    reader = started(browser, server, 5, proxy.port)
    page = reader.page
    proxy.set("cut")
    page.keyboard.press("1")
    first = reader.answer("f")
    page.wait_for_selector(".saved[data-state=trouble]")
    assert "Not saved yet" in page.inner_text(".saved")
    assert (
        page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('reading/')).length")
        >= 1
    )
    proxy.set("pass")
    page.wait_for_selector(".saved[data-state=saved]")
    assert [event.blind_id for event in record(server, 5) if event.event == "answered"] == [first]
    proxy.close()


def test_a_half_open_connection_is_noticed_without_a_reload(browser, server):
    proxy = Proxy(server.port)
    reader = started(browser, server, 6, proxy.port)
    page = reader.page
    reader.saved()
    proxy.set("freeze")
    page.keyboard.press("1")
    first = reader.answer("r")
    page.wait_for_timeout(500)
    assert page.inner_text(".saved") == "Saving …"
    proxy.set("pass")
    page.wait_for_selector(".saved[data-state=saved]", timeout=45_000)
    assert [event.blind_id for event in record(server, 6) if event.event == "answered"] == [first]
    proxy.close()


def test_a_revoked_reader_is_told_and_the_answer_waits_in_the_browser(browser, server):
    reader = started(browser, server, 7)
    page, name = reader.page, list(server.links)[7]
    reader.saved()
    assert server.command("renew", name).returncode == 0
    page.keyboard.press("2")
    first = reader.answer("u")
    page.wait_for_selector("dialog[open] >> text=Your session has ended")
    page.click("dialog button:has-text('Sign in')")
    page.fill("input.code", link(server, 7).split("#")[1])
    page.click("button.primary")
    page.wait_for_function("document.querySelector('canvas[data-shown], dialog[open]')")
    reader.saved()
    assert [event.blind_id for event in record(server, 7) if event.event == "answered"] == [first]


@pytest.mark.parametrize(
    ("width", "height", "touch"), [(1440, 900, False), (1024, 768, True), (768, 1024, True)]
)
def test_every_control_is_reachable_and_nothing_overflows(browser, server, width, height, touch):
    reader = Reader(browser, link(server, 8), width, height, has_touch=touch)
    reader.open()
    if reader.page.locator("#agree").count():
        reader.register()
    page = reader.page
    reader.dialog()
    reader.shown()
    assert page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth &&"
        " document.documentElement.scrollHeight <= innerHeight"
    )
    save = page.locator("button.save").bounding_box()
    assert save["y"] + save["height"] <= height and save["height"] >= 44
    assert page.locator("canvas.picture").bounding_box()["width"] >= width * 0.55
    focused = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focused.append(
            page.evaluate(
                "document.activeElement.dataset.value || document.activeElement.dataset.tool ||"
                " document.activeElement.id"
            )
        )
    for name in ("auto", "pause", "real", "fake", "uncertain", "description", "effusion"):
        assert name in focused
    assert focused.index("real") < focused.index("description") < focused.index("effusion")
    assert contrast(page) >= 4.5


SCALE = {"block": "read", "kind": "scale", "required": "true"}


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (768, 1024), (390, 844)])
def test_no_word_of_a_button_touches_its_edge_or_leaves_the_panel(browser, tmp_path, width, height):
    """The longest scales of the included studies, and the buttons of a change."""
    asked = reading_studies.questions(confidence="6-step", description_required=False)
    words = {"quality": "Poor|Fair|Adequate|Good|Excellent", "real": "Not at all|A little|Fully"}
    asked += [SCALE | {"id": name, "text": name, "options": words[name]} for name in words]
    server = serve(tmp_path, read=3, training=0, number_of_readers=1, asked=asked)
    try:
        reader = started(browser, server, 0, width=width, height=height, has_touch=width < 1440)
        page = reader.page
        assert not unfit(page)
        for scale in page.locator(".steps-of").all():
            scale.locator(".choice").first.click()
        before = reader.answer("f")
        reader.shown(before)
        assert not unfit(page)
        page.click("text=Change the last answer")
        page.wait_for_selector("#reason")
        assert not unfit(page)
    finally:
        server.stop()


def unfit(page) -> list[str]:
    """The panel's buttons whose words come within 3 px of the edge, that leave the panel, or whose
    words at the foot take two lines.
    """
    return page.evaluate("""() => {
        const panel = document.querySelector('.answer').getBoundingClientRect();
        const range = document.createRange();
        return [...document.querySelectorAll('.panel button')].filter((b) => {
          if (!b.checkVisibility({ visibilityProperty: true })) return false;
          range.selectNodeContents(b);
          const [words, box] = [range.getBoundingClientRect(), b.getBoundingClientRect()];
          const lines = new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size;
          return words.left - box.left < 3 || box.right - words.right < 3 ||
            box.right > panel.right - 5 || (!b.matches('.choice') && lines > 1);
        }).map((b) => b.textContent) }""")


def contrast(page) -> float:
    """The lowest contrast ratio (WCAG 2.1) of any text on the page against the ground behind it."""
    return page.evaluate("""() => {
        const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const light = (c) => {
          const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b };
        const ground = (n) => {
          for (; n; n = n.parentElement) {
            const c = getComputedStyle(n).backgroundColor;
            if (!/, 0\\)$|transparent/.test(c)) return c }
          return 'rgb(0,0,0)' };
        let lowest = 21;
        for (const n of document.querySelectorAll('.reading *')) {
          const text = [...n.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
          if (!text || !n.offsetParent || n.disabled) continue;
          const [a, b] = [light(getComputedStyle(n).color), light(ground(n))].sort((x, y) => y - x);
          lowest = Math.min(lowest, (a + 0.05) / (b + 0.05));
        }
        return lowest }""")


def test_until_the_lock_one_goes_back_answer_by_answer(browser, tmp_path):
    running = serve(tmp_path, read=5, training=0, going_back="until locked", break_after=0)
    try:
        reader = Reader(browser, link(running, 0))
        reader.open()
        reader.register()
        first = reader.answer("r")
        reader.shown(first)  # the next image is painted a moment after the key
        second = reader.answer("r")
        reader.shown(second)
        third = reader.answer("f")
        reader.saved()
        reader.page.click("text=Change the last answer")
        reader.page.wait_for_function(
            "id => document.querySelector('canvas.picture').dataset.shown === id", arg=third
        )
        reader.page.click("text=Change the one before")
        reader.page.wait_for_function(
            "id => document.querySelector('canvas.picture').dataset.shown === id", arg=second
        )
        reader.page.click("text=Change the one before")
        reader.page.wait_for_function(
            "id => document.querySelector('canvas.picture').dataset.shown === id", arg=first
        )
        assert not reader.page.locator("text=Change the one before").is_visible()
        reader.page.keyboard.press("u")
        reader.page.fill("#reason", "a second look")
        reader.page.keyboard.press("Enter")
        assert reader.shown(first) not in (first, second, third)
        reader.saved()
        changed = [event for event in record(running) if event.event == "changed"]
        assert [(event.blind_id, event.payload["label"]) for event in changed] == [
            (first, "uncertain")
        ]
    finally:
        running.stop()


def test_another_language_is_one_more_file_and_a_missing_one_is_english(browser, tmp_path):
    words = (setting.STATIC / "texts.en.json").read_text()
    for english, other in (
        ('"language": "en"', '"language": "xx"'),
        ('"go_on": "I take part"', '"go_on": "Je participe"'),
        ("Personal code", "Code personnel"),
    ):
        assert english in words
        words = words.replace(english, other)
    added = setting.STATIC / "texts.xx.json"
    added.write_text(words)
    try:
        running = serve(tmp_path / "other", read=2, training=0, language="xx")
        reader = Reader(browser, link(running, 0))
        reader.page.goto(reader.link.split("#")[0])
        assert reader.page.locator("label", has_text="Code personnel").count() == 1
        reader.page.goto("about:blank")
        reader.open()
        assert reader.page.locator("button.primary").inner_text() == "Je participe"
        assert reader.page.evaluate("document.documentElement.lang") == "xx"
    finally:
        added.unlink()
        running.stop()
    assert setting.page_words("fr")["language"] == setting.page_words("../x")["language"] == "en"
