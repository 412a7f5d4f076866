"""What makes reading comfortable and the record trustworthy, in a real browser: gestures, 1:1
zoom, poor images, a steady layout, the display check, shared workstations, links, withdrawals.
"""

import pytest
import reading_studies
from reading_browser import Reader
from reading_client import Server

from helpers import tables
from helpers.reading import accounts, chain, messages, store

JUMPS = """() => {
  window.jumps = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries())
      for (const source of entry.sources)
        window.jumps.push(source.node?.className ?? String(source.node));
  }).observe({ type: 'layout-shift', buffered: false });
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("comfort")
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(root, patch.setenv)
        reading_studies.make(
            root,
            read=24,
            training=0,
            size=512,
            number_of_readers=13,
            break_after=0,
            confidence="3-step",
            description_required=False,
            going_back="until next",
        )
    running = Server(root).start()
    yield running
    running.stop()


def link(server: Server, number: int) -> str:
    return list(server.links.values())[number]


def started(browser, server, number, **context) -> Reader:
    reader = Reader(browser, link(server, number), **context)
    reader.open()
    reader.register()
    return reader


def events(server: Server, number: int) -> list[chain.Event]:
    engine = opened_store(server)
    try:
        return store.events(engine, list(server.links)[number])
    finally:
        engine.dispose()


def opened_store(server: Server):
    folder = server.root / "outputs" / reading_studies.STUDY / "07_read_cases"
    return store.open_store(folder / "readings.sqlite")


def test_a_long_dialog_opens_at_its_title(browser, server):
    reader = started(browser, server, 12, height=480)
    reader.page.keyboard.press("?")
    title = reader.page.locator("dialog.ask h2")
    title.wait_for()
    assert title.bounding_box()["y"] >= 0
    assert reader.page.evaluate(
        "() => [document.querySelector('dialog.ask').scrollHeight > innerHeight,"
        " document.activeElement.tagName]"
    ) == [True, "BUTTON"]
    reader.page.keyboard.press("Enter")
    assert reader.page.locator("dialog.ask").count() == 0


def touch(reader: Reader, kind: str, *fingers: tuple[int, int, int]) -> None:
    """One touch event with these fingers (id, x, y) down, as the browser's own input."""
    if not hasattr(reader, "fingers"):
        reader.fingers = reader.context.new_cdp_session(reader.page)
    points = [{"id": number, "x": x, "y": y} for number, x, y in fingers]
    reader.fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_lifting_one_finger_of_a_pinch_leaves_the_window(browser, server):
    reader = started(browser, server, 0, width=834, height=1112, has_touch=True)
    box = reader.page.locator("canvas.picture").bounding_box()
    x, y = int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)
    window = "Window 100 % · Level 0 %"
    touch(reader, "touchStart", (1, x - 40, y))
    touch(reader, "touchMove", (1, x - 46, y + 8))
    touch(reader, "touchStart", (1, x - 46, y + 8), (2, x + 40, y))
    touch(reader, "touchMove", (1, x - 90, y), (2, x + 90, y))
    touch(reader, "touchEnd", (1, x - 90, y))
    for step in range(1, 5):
        touch(reader, "touchMove", (1, x - 90 + 15 * step, y + 15 * step))
    touch(reader, "touchEnd")
    reader.page.wait_for_timeout(100)
    told = reader.page.inner_text(".window")
    assert told.startswith(window) and "Zoom 100 %" not in told
    touch(reader, "touchStart", (1, x, y))
    touch(reader, "touchMove", (1, x + 60, y))
    touch(reader, "touchEnd")
    reader.page.wait_for_timeout(100)
    assert not reader.page.inner_text(".window").startswith(window), "one finger windows again"


def test_one_to_one_shows_a_pixel_per_pixel_and_the_numbers_begin_alike(browser, server):
    reader = started(browser, server, 1)
    page, seen = reader.page, set()
    page.keyboard.press("z")
    page.wait_for_timeout(100)
    size = page.evaluate(
        "import('/reading/static/app.js').then(({ app: { screen: { viewer } } }) =>"
        " [viewer.fit() * viewer.zoom, viewer.canvas.height])"
    )
    assert size[0] == pytest.approx(1) and size[1] > 512
    page.click("[data-tool=reset]")
    page.click("[data-tool=actual]")
    for _ in range(3):
        page.keyboard.press("0")
        page.wait_for_timeout(100)
        seen.add(page.inner_text(".window"))
        page.keyboard.press("1")
        before = reader.answer("f")
        reader.shown(before)
    assert seen == {"Window 100 % · Level 0 % · Zoom 100 %"}


def test_a_poor_image_is_ticked_beside_the_label_and_reaches_the_tables(browser, server, tmp_path):
    reader = started(browser, server, 2)
    page = reader.page
    page.keyboard.press("q")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    assert "Still needed: This image is" in page.inner_text(".finish .problem"), (
        "never instead of a label"
    )
    poor = reader.answer("u")
    reader.shown(poor)
    assert not page.is_checked("#poor_quality")
    while not reader.finished():
        page.keyboard.press("1")
        blind_id = reader.answer("r")
        page.wait_for_function(
            "id => document.querySelector('form.lock') ||"
            " (document.querySelector('canvas.picture')?.dataset.shown ?? id) !== id",
            arg=blind_id,
        )
    reader.lock(link(server, 2).split("#")[1])
    assert server.command("export", "--to", str(tmp_path)).returncode == 0
    readings = tables.read(tmp_path / "readings.csv").set_index("blind_id")
    assert readings.loc[poor, "poor_quality"] and readings["poor_quality"].sum() == 1
    assert readings.loc[poor, "label"] == "uncertain"


@pytest.mark.parametrize(
    ("number", "width", "height", "by_touch"),
    [(3, 1440, 900, False), (4, 834, 1112, True), (5, 390, 844, True), (6, 1024, 768, False)],
)
def test_twenty_images_are_read_without_a_jump(browser, server, number, width, height, by_touch):
    reader = started(browser, server, number, width=width, height=height, has_touch=by_touch)
    page = reader.page
    press = (lambda place: page.locator(place).tap()) if by_touch else None
    reader.saved()
    page.evaluate(JUMPS)
    places = {name: page.locator(name).bounding_box() for name in (".labels", ".save", ".film")}
    before = ""
    for turn in range(20):
        before = reader.shown(before)
        if by_touch:
            press(f".labels [data-value={('real', 'fake', 'uncertain')[turn % 3]}]")
            press(".steps-of .choice >> nth=1")
            press("button.save")
        else:
            for key in ("rfu"[turn % 3], "2", "Enter"):
                page.keyboard.press(key)
    reader.shown(before)
    reader.saved()
    assert page.evaluate("window.jumps") == []
    assert places == {name: page.locator(name).bounding_box() for name in places}
    assert sum(event.event == "answered" for event in events(server, number)) == 20


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (834, 1112), (390, 844)])
def test_what_an_answer_needs_is_on_the_screen(browser, server, width, height):
    """The label, the step and Save at once; the reason too while an answer is being changed."""
    reader = Reader(browser, link(server, 7), width, height, has_touch=width < 1440)
    reader.open()
    page = reader.page
    if page.locator("#agree").count():
        reader.register()
    reader.shown()

    def inside(place: str) -> bool:
        box, panel = page.locator(place).bounding_box(), page.locator(".answer").bounding_box()
        return panel["y"] <= box["y"] and box["y"] + box["height"] <= panel["y"] + panel["height"]

    assert inside(".labels") and inside("#poor_quality") and inside(".steps-of")
    save = page.locator("button.save").bounding_box()
    assert save["y"] + save["height"] <= height and save["height"] >= 44
    assert page.locator(".answer").bounding_box()["height"] >= 200
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("1")
    reader.shown(reader.answer("f"))
    page.click("text=Change the last answer")
    page.wait_for_selector("#reason")
    assert inside("#reason")


def test_the_display_check_warns_can_be_passed_and_is_recorded(browser, server):
    reader = Reader(browser, link(server, 8))
    reader.open()
    page = reader.page
    reader.come_to_the_display_check()
    page.click("button.primary")
    assert "Please choose a field" in page.inner_text(".problem")
    reader.check_display(right=False, room="Bright", device="Tablet")
    page.wait_for_selector("dialog[open] >> text=does not show all greys")
    page.click("dialog button:has-text('Look again')")
    assert page.locator(".fields .choice[aria-pressed=true]").count() == 0, "asked afresh"
    for row in page.locator(".fields").all():
        row.locator("[data-value=none]").click()
    page.click("button.primary")
    page.click("dialog button:has-text('Continue anyway')")
    reader.shown()
    reader.saved()
    kept = next(event.payload for event in events(server, 8) if event.event == "display")
    assert kept["steps_seen"] is kept["dark_seen"] is kept["light_seen"] is False
    assert (kept["room_light"], kept["device"], kept["attempts"]) == ("bright", "tablet", 2)
    assert {kept["room_light"]} <= set(messages.ROOM_LIGHTS) and kept["device"] in messages.DEVICES


def test_a_shared_workstation_keeps_readers_apart(browser, server):
    first = started(browser, server, 9)
    page = first.page
    page.wait_for_timeout(2500)
    page.fill("#description", "a draft of the first")
    first.saved()
    page.goto("about:blank")
    page.goto(link(server, 10))
    page.wait_for_selector("#agree")
    first.register()
    assert page.input_value("#description") == ""
    page.keyboard.press("1")
    shown = first.answer("r")
    first.saved()
    kept = next(event for event in events(server, 10) if event.event == "answered")
    assert kept.blind_id == shown and kept.payload["seconds"] < 2.4
    page.click("text=Sign out")
    page.wait_for_selector("input.code")
    names = page.evaluate("[...Object.keys(localStorage), ...Object.keys(sessionStorage)]")
    name = list(server.links)[10]
    assert not any(name in kept_name for kept_name in names)


def test_signing_out_without_network_is_said_and_done_when_it_can_be(browser, server):
    reader = started(browser, server, 11)
    page = reader.page
    reader.saved()
    reader.context.set_offline(True)
    page.keyboard.press("1")
    shown = reader.answer("f")
    page.click("text=Sign out")
    page.wait_for_selector("dialog[open] >> text=You are not signed out yet", timeout=20_000)
    assert not page.locator("canvas.picture").is_visible()
    reader.context.set_offline(False)
    page.wait_for_selector("input.code", timeout=20_000)
    assert page.evaluate("Object.keys(localStorage).length") == 0
    answered = [event.blind_id for event in events(server, 11) if event.event == "answered"]
    assert answered == [shown]


def new_reader(server: Server, name: str) -> str:
    """The code of a reader who is added now."""
    engine = opened_store(server)
    try:
        return accounts.new_code(engine, accounts.add_reader(engine, name), 1)
    finally:
        engine.dispose()


def test_a_new_link_in_an_open_sign_in_page_works_for_any_id(browser, server):
    code = new_reader(server, "dr.müller")
    reader = Reader(browser, link(server, 0).split("#")[0] + "#AAAAA-AAAAA-AAAAA-AAAAA")
    reader.page.goto(reader.link)
    reader.page.wait_for_selector("text=This code is unknown")
    reader.page.evaluate("code => { location.hash = code }", code)
    reader.page.wait_for_selector("#agree")
    reader.register()
    assert reader.shown() and reader.problems == []


def test_a_withdrawal_by_the_team_in_mid_read_is_told_as_such(browser, server):
    code = new_reader(server, "reader-withdrawn")
    reader = Reader(browser, link(server, 0).split("#")[0] + "#" + code)
    reader.open()
    reader.register()
    reader.saved()
    assert server.command("withdraw", "reader-withdrawn").returncode == 0
    reader.page.keyboard.press("1")
    reader.answer("f")
    reader.page.wait_for_selector("h1:has-text('The study team has recorded your withdrawal')")


def test_an_image_that_is_not_given_is_said_and_not_asked_for_for_ever(browser, server):
    code = new_reader(server, "reader-without-image")
    reader = Reader(browser, link(server, 0).split("#")[0] + "#" + code)
    asked = []
    refuse = lambda route: (asked.append(1), route.fulfill(status=404, body="{}"))  # noqa: E731
    reader.context.route("**/reading/image/**", refuse)
    reader.open()
    page = reader.page
    reader.come_to_the_display_check()
    reader.check_display()
    page.wait_for_selector(".loading:has-text('cannot be loaded')")
    count = len(asked)
    page.wait_for_timeout(2000)
    assert len(asked) == count < 12


def test_the_page_is_what_the_widget_s_traits_say(browser, server):
    code = new_reader(server, "reader-of-traits")
    reader = Reader(browser, link(server, 0).split("#")[0] + "#" + code)
    reader.page.add_init_script(
        "const later = window.setTimeout; window.setTimeout ="
        " (act, wait, ...more) => wait === 12000 ? 0 : later(act, wait, ...more)"
    )

    def other_title(route) -> None:
        told = route.fetch().json()
        route.fulfill(json=told | {"title": "what HTTP says", "consent": "what HTTP says"})

    reader.context.route("**/reading/settings", other_title)
    reader.page.goto(reader.link)
    reader.page.wait_for_selector("#agree", timeout=60_000)
    assert "what HTTP says" not in reader.page.inner_text("#reading")
    assert "You may stop at any moment." in reader.page.inner_text("#reading")
