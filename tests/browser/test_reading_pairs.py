"""Two images side by side in a real browser: one answer per pair, never lost and never on another
pair, and nothing that is served tells which image is which.
"""

import json
import random

import pandas as pd
import pytest
import reading_studies
from axe_playwright_python.sync_playwright import Axe
from fault_proxy import Proxy
from reading_browser import Reader
from test_reading_page import FAULTS, link, record, serve

PAIRS = reading_studies.BLOCK | {"block": "pairs", "title": "Which of the two?"}
PAIRS |= {"pairs": "true", "linked": "true"}
SINGLE = reading_studies.BLOCK | {"block": "single", "order": 2, "title": "One by one"}
ASKED = [
    *reading_studies.questions(),
    {
        "id": "which",
        "text": "Which one was made by a computer?",
        "kind": "choice",
        "options": "left=Left|right=Right",
        "required": "true",
    },
    {
        "id": "confidence",
        "block": "pairs",
        "text": "How sure are you?",
        "kind": "scale",
        "options": "Guess|Fairly sure|Certain",
    },
    {"id": "remark", "block": "pairs", "text": "In a few words", "kind": "text"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    given = {"read": 6, "training": 0, "bits": 8, "number_of_readers": 5}
    running = serve(tmp_path_factory.mktemp("pairs"), blocks=[PAIRS, SINGLE], asked=ASKED, **given)
    yield running
    running.stop()


def started(browser, server, number: int, *size: int) -> Reader:
    reader = Reader(browser, link(server, number), *size)
    reader.open()
    reader.register()
    return reader


def paired(reader: Reader, key: str, other_than: str = "", sure: str = "") -> str:
    """Answer the pair on the screen by keys, its id in the words; returns the id."""
    page, blind_id = reader.page, reader.shown(other_than)
    page.keyboard.press(key)
    if sure:
        page.keyboard.press(sure)
    page.fill("#remark", f"seen {blind_id}")
    page.keyboard.press("Enter")
    return blind_id


@pytest.mark.parametrize(
    ("number", "width", "height"), [(0, 1440, 900), (1, 1024, 768), (2, 390, 844)]
)
def test_both_images_of_a_pair_are_seen_whole(browser, server, number, width, height):
    page = started(browser, server, number, width, height).page
    assert not (found := Axe().run(page)).response["violations"], found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    rows = "new Set([...document.querySelectorAll('.tool')].map(tool => tool.offsetTop)).size"
    assert page.evaluate(rows) == 1, "the tools are in one row"
    left, right = (one.bounding_box() for one in page.locator("canvas.picture").all())
    beside = right["x"] >= left["x"] + left["width"]
    below = right["y"] >= left["y"] + left["height"]
    phone = width < 561
    assert (below, beside) == (phone, not phone)
    assert page.locator(".film .stacked").first.is_visible() is phone, "which is above is said"
    assert left["width"] == right["width"] and left["height"] == right["height"] > 200
    save = page.locator("button.save").bounding_box()
    assert save["y"] + save["height"] <= height


GREYS = """() => [...document.querySelectorAll('canvas.picture')].map((c) =>
    c.getContext('2d').getImageData(c.width / 2, c.height * 0.7, 1, 1).data[0])"""


def test_a_pair_is_linked_unlinked_answered_and_changed(browser, server):
    reader = started(browser, server, 3)
    page = reader.page
    first = reader.shown()
    page.keyboard.press("Enter")
    assert "Still needed: Which one" in page.inner_text(".finish .problem")
    before = page.evaluate(GREYS)
    page.keyboard.press("i")
    page.wait_for_timeout(150)
    both = page.evaluate(GREYS)
    assert all(abs(now - (255 - then)) < 8 for now, then in zip(both, before)), "both are inverted"
    page.click("[data-tool=link]")
    assert page.get_attribute("[data-tool=link]", "aria-pressed") == "false"
    page.locator("canvas.picture").nth(1).click(position={"x": 20, "y": 20})
    page.keyboard.press("i")
    page.wait_for_timeout(150)
    alone = page.evaluate(GREYS)
    assert abs(alone[0] - both[0]) < 3 and abs(alone[1] - before[1]) < 8, "the right one alone"
    page.keyboard.press("+")
    assert paired(reader, "r", sure="3") == first
    second = paired(reader, "l", first)
    third = reader.shown(second)
    page.click("text=Change the last answer")
    assert reader.shown(third) == second
    assert page.inner_text(".progress") == "Changing pair 2"
    page.click(".choice[data-value=right]")
    page.fill("#reason", "a second look")
    page.keyboard.press("Enter")
    assert reader.shown(second) == third
    reader.saved()
    events = record(server, 3)
    kept = {event.blind_id: event.payload for event in events if event.event != "shown"}
    assert kept[first]["which"] == "right" and kept[first]["confidence"] == 3
    assert (kept[first]["inverted"], kept[first]["linked"]) == (True, False)
    assert kept[first]["beside"]["inverted"] is False and kept[first]["beside"]["zoom"] > 1.1
    assert kept[second]["which"] == "right" and "confidence" not in kept[second]
    assert reader.problems == [] and reader.elsewhere == []


def test_nothing_that_is_served_tells_which_image_is_which(browser, server):
    reader = Reader(browser, link(server, 4))
    heard: list = []
    reader.page.on("response", lambda answer: heard.append(answer))
    reader.open()
    reader.register()
    last = ""
    for key in "lrlrlr":
        last = paired(reader, key, last)
    reader.page.wait_for_selector("h1:has-text('This part is done')")
    made = server.root / "outputs" / reading_studies.STUDY / reading_studies.SET
    shown = pd.read_csv(made / "reading_set" / "reading_set.csv")
    both = shown[shown["block"] == "pairs"]
    assert (both.groupby("pair").size() == 2).all() and len(both) == 12
    headers = {}
    for answer in heard:
        path = answer.url.split("/", 3)[3].partition("?")[0]
        if path.startswith("reading/image/"):
            told = answer.all_headers().items()
            kept = {name: value for name, value in told if name not in ("date", "set-cookie")}
            headers[path.rpartition("/")[2]] = json.dumps(kept, sort_keys=True)
        elif path == "reading/record":
            said = answer.text()
            assert not any(word in said for word in ('"truth": {', "origin", "generated"))
            assert not any(f'"i{number}' in said for number in range(6)), "no id of the key"
    assert {*both["blind_id"]} <= {*headers} and len({*headers.values()}) == 1


def test_only_the_pair_whose_turn_it_is_and_the_next_can_be_loaded(server):
    client = server.client(0)  # who looks at the first
    state = client.state()
    near = [state["current"], *state["next"]]
    near += [state["pictures"][one]["beside"] for one in near]
    assert len({*near}) == 6, "three pairs"
    for blind_id in (f"b{number:015d}" for number in range(12)):
        place = f"reading/image/{reading_studies.STUDY}/{state['reader']}/{blind_id}"
        assert client.get(place)[0] == (200 if blind_id in near else 403)
    for sent, said in (
        ((near[3], "left"), "This reader has no such image."),
        ((near[0], "uncertain"), "does not offer this answer"),
    ):
        status, told = client.send("answered", sent[0], which=sent[1])
        assert status == 422 and said in told["error"]
    status, told = client.send("answered", near[0], which="left", beside={"zoom": "x"})
    assert status == 422 and "zoom" in told["error"]


@pytest.mark.parametrize(
    ("width", "height", "places"), [(1440, 900, ("", "")), (390, 844, (" (above)", " (below)"))]
)
def test_the_truth_of_a_pair_is_told_where_it_is_there_to_learn_from(
    browser, tmp_path, width, height, places
):
    given = {"read": 3, "training": 0, "number_of_readers": 1}
    learning = PAIRS | {"tell_truth": "true"}
    server = serve(tmp_path, blocks=[learning, SINGLE], asked=ASKED, **given)
    try:
        reader = started(browser, server, 0, width, height)
        left, right = (word + place for word, place in zip(("Left", "Right"), places))
        last = ""
        for _ in range(3):
            last = paired(reader, "l", last)
            number = int(last[1:]) // 2  # as reading_studies lays them
            reader.page.wait_for_selector("dialog[open]")
            side = (right, left)[number // 2 % 2]
            assert reader.page.inner_text("dialog .truth") == f"It was: {side}"
            assert f"You said: {left}\n" in reader.page.inner_text("dialog")
            reader.dialog()
    finally:
        server.stop()


def read_pairs_under_faults(browser, server, pairs: int, seed: int, every: int) -> None:
    """Read `pairs` pairs, a fault every few answers: each answer is kept once, on its own pair."""
    chosen, proxy = random.Random(seed), Proxy(server.port)
    reader = Reader(browser, link(server, 0, proxy.port))
    given: dict[str, str] = {}
    try:
        reader.open()
        reader.register()
        last = ""
        for turn in range(pairs):
            fault = FAULTS[turn // every % len(FAULTS)] if turn % every == every - 1 else None
            before, key = chosen.random() < 0.5, chosen.choice("lr")
            if fault and before:
                fault(server, proxy, reader)
            last = paired(reader, key, last, chosen.choice(("", "1", "3")))
            given[last] = {"l": "left", "r": "right"}[key]
            if chosen.random() < 0.2:
                reader.page.keyboard.press("Enter")  # once more must not answer the next pair
            if fault and not before:
                fault(server, proxy, reader)
        reader.page.wait_for_selector("h1:has-text('This part is done')")
        reader.saved(60)
        events = record(server)
        kept = [event for event in events if event.event == "answered"]
        assert [event.blind_id for event in kept] == list(given), "each once, in their order"
        assert {event.blind_id: event.payload["which"] for event in kept} == given
        assert all(event.payload["remark"] == f"seen {event.blind_id}" for event in kept)
        assert list(given) == events[0].payload["blocks"][0]["images"]
        assert reader.acknowledged.items() <= {e.message_id: e.blind_id for e in events}.items()
        assert reader.unexpected() == []
    finally:
        proxy.close()


def test_no_answer_is_lost_or_on_another_pair_under_faults(browser, tmp_path):
    given = {"read": 14, "training": 0, "number_of_readers": 1, "break_after": 0}
    server = serve(tmp_path, blocks=[PAIRS, SINGLE], asked=ASKED, **given)
    try:
        read_pairs_under_faults(browser, server, 14, seed=5, every=2)
    finally:
        server.stop()


@pytest.mark.soak
def test_a_hundred_pairs_under_faults(browser, tmp_path):
    given = {"read": 100, "training": 0, "number_of_readers": 1, "break_after": 0}
    server = serve(tmp_path, blocks=[PAIRS, SINGLE], asked=ASKED, **given)
    try:
        read_pairs_under_faults(browser, server, 100, seed=6, every=5)
    finally:
        server.stop()
