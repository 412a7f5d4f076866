"""What happens to readers at real devices: input methods, clocks, long sessions, slow networks,
large type, other scripts. No answer is lost, refused or sent by accident.
"""

from datetime import UTC, datetime, timedelta

import pytest
import reading_studies
from reading_browser import Reader
from test_reading_page import link, record, serve

LABEL = {"id": "label", "text": "This image is", "kind": "choice", "required": "true"}
LABEL |= {"options": "real=Real|fake=Fake|uncertain=Uncertain"}
ASKED = [
    *reading_studies.YOU,
    {"id": "hobby", "block": "reader", "text": "Reads a day", "kind": "number"},
    LABEL,
    {"id": "description", "text": "In a few words", "kind": "text"},
    {"id": "main", "text": "Main finding", "kind": "text"},
    {"id": "other", "text": "Anything else?", "kind": "text"},
    {"id": "many", "text": "Which of these?", "kind": "choices"}
    | {"options": "|".join([f"n{number}" for number in range(45)] + ["a long one " * 25])},
    {"id": "prior", "text": "Comparison", "kind": "choice", "options": "None|Yes|\u05d0\u200f"},
    {"id": "how", "text": "How?", "kind": "text", "required": "true", "shown_when": "prior=None"},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    given = {"read": 8, "training": 0, "bits": 16, "number_of_readers": 13}
    running = serve(tmp_path_factory.mktemp("circumstances"), asked=ASKED, **given)
    yield running
    running.stop()


def started(browser, server, number, init="", **context) -> Reader:
    reader = Reader(browser, link(server, number), **context)
    if init:
        reader.page.add_init_script(init)
    reader.open()
    reader.register()
    return reader


def answers(server, number) -> dict[str, dict]:
    return {e.blind_id: e.payload for e in record(server, number) if e.event == "answered"}


def test_a_window_dragged_far_is_no_reason_to_refuse_the_answer(browser, server):
    reader = started(browser, server, 0)
    page, first = reader.page, reader.shown()
    for _ in range(4):
        page.mouse.move(50, 200)
        page.mouse.down()
        page.mouse.move(900, 800, steps=3)
        page.mouse.up()
    reader.answer("f")
    reader.shown(first)
    reader.saved()
    assert [*answers(server, 0)] == [first]


def test_a_page_that_is_open_for_days_goes_on(browser, server):
    later = "const was = performance.now.bind(performance); performance.now = () => was() + 4e8"
    reader = started(browser, server, 1, later)
    first = reader.answer("f")
    reader.shown(first)
    reader.saved()
    assert [*answers(server, 1)] == [first]
    assert "shown" in [event.event for event in record(server, 1)]


def test_long_answers_in_any_script_are_kept(browser, server):
    reader = started(browser, server, 2)
    page, first = reader.page, reader.shown()
    long = "肺" * 1990 + "🫁🫁"
    page.keyboard.press("f")
    for name in ("description", "main", "other"):
        page.fill(f"textarea#{name}", long)
    page.keyboard.press("Enter")
    reader.shown(first)
    reader.saved()
    assert answers(server, 2)[first]["main"] == long


def test_options_of_any_number_length_and_script_are_accepted(browser, server):
    reader = started(browser, server, 3)
    page, first = reader.page, reader.shown()
    page.keyboard.press("f")
    for choice in page.locator("[aria-label='Which of these?'] .choice").all():
        choice.click()
    page.locator("[aria-label='Comparison'] .choice").nth(2).click()
    page.keyboard.press("Enter")
    reader.shown(first)
    reader.saved()
    assert len(answers(server, 3)[first]["many"]) == 46


def test_a_follow_up_to_an_answer_called_none_is_not_asked_without_it(browser, server):
    reader = started(browser, server, 4)
    first = reader.answer("f")
    reader.shown(first)
    reader.saved()
    assert [*answers(server, 4)] == [first]


def test_enter_that_ends_a_composition_does_not_save(browser, server):
    reader = started(browser, server, 5)
    page, first = reader.page, reader.shown()
    page.keyboard.press("f")
    page.evaluate(
        "document.querySelector('#description').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', bubbles: true, isComposing: true}))"
    )
    page.wait_for_timeout(300)
    assert reader.shown() == first and answers(server, 5) == {}


@pytest.mark.parametrize(("number", "before", "after"), [(6, -3650, 0), (7, 0, 3650)])
def test_a_clock_that_is_set_in_mid_read_loses_no_answer(browser, server, number, before, after):
    reader, right = Reader(browser, link(server, number)), datetime.now(UTC)
    reader.page.clock.set_system_time(right + timedelta(days=before))
    reader.open()
    reader.register()
    reader.saved()
    reader.page.clock.set_system_time(right + timedelta(days=after))
    first = reader.answer("f")
    reader.shown(first)
    reader.saved()
    assert [*answers(server, number)] == [first]


def test_a_clock_set_back_leaves_unsent_answers_in_their_order(browser, server):
    reader = Reader(browser, link(server, 8))
    reader.page.clock.set_system_time(datetime.now(UTC))
    reader.open()
    reader.register()
    reader.saved()
    reader.context.route("**/reading/record", lambda route: route.abort())
    given = [reader.answer("f")]
    reader.shown(given[0])
    reader.page.clock.set_system_time(datetime.now(UTC) - timedelta(days=900))
    given.append(reader.answer("r"))
    reader.page.wait_for_timeout(300)
    reader.context.unroute("**/reading/record")
    reader.page.reload()
    reader.shown(given[1])
    reader.saved()
    assert [*answers(server, 8)] == given


def test_a_number_out_of_range_is_said_and_not_dropped(browser, server):
    reader = Reader(browser, link(server, 9))
    reader.open()
    page = reader.page
    page.check("#agree")
    page.click("button.primary")
    page.fill("input[name=years]", "12")
    page.fill("input[name=specialty]", "Radiology")
    page.fill("input[name=hobby]", "1500")
    page.click(".choice:has-text('No')")
    page.click("button.primary")
    page.wait_for_timeout(500)
    assert "Reads a day" in page.inner_text(".problem")


def test_the_hash_is_called_copied_only_if_it_is(browser, server):
    reader = started(browser, server, 10)
    reader.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    while not reader.finished():
        reader.answer("f")
        reader.page.wait_for_timeout(100)
    reader.lock(server.code(10))
    reader.page.click("text=Copy")
    reader.page.wait_for_timeout(200)
    head = reader.page.inner_text("code.head")
    assert reader.page.evaluate("getSelection().toString()").strip() == head
    assert reader.page.locator("text=Copied").count() == 0


def test_who_signs_in_again_is_not_signed_out_by_an_earlier_wish(browser, server):
    reader = started(browser, server, 11)
    page = reader.page
    reader.saved()
    reader.context.set_offline(True)
    page.click("text=Sign out")
    page.wait_for_selector("dialog[open] >> text=You are not signed out yet", timeout=20_000)
    page.close()
    reader.context.set_offline(False)
    reader.page = reader.context.new_page()
    reader.page.goto(reader.link)
    reader.shown()
    reader.page.wait_for_timeout(1500)
    assert reader.page.locator("canvas.picture").is_visible()


def test_a_slow_network_delays_the_read_and_no_more(browser, server):
    slow = """const direct = window.fetch; window.fetch = (to, how = {}) => {
      return new Promise((done, failed) => {
        how.signal?.addEventListener("abort", () => failed(how.signal.reason));
        setTimeout(() => direct(to, how).then(done, failed), 4000);
      }) }"""
    reader = started(browser, server, 12, slow)
    shown = reader.answer("f")
    reader.shown(shown)
    reader.saved()
    assert [*answers(server, 12)] == [shown]
