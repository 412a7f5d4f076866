"""What happens to readers at real devices: input methods, clocks, long sessions, slow networks,
large type, other scripts. No answer is lost, refused or sent by accident.
"""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
import reading_studies
from reading_browser import Reader
from test_reading_page import link, record, serve

from helpers.reading import setting

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
    given = {"read": 8, "training": 0, "bits": 16, "number_of_readers": 19}
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


def test_an_image_that_stays_silent_is_asked_for_again_within_seconds(browser, server):
    reader, asked = Reader(browser, link(server, 13)), set()
    reader.page.route(
        "**/reading/image/**",
        lambda route: (
            route.continue_() if route.request.url in asked else asked.add(route.request.url)
        ),
    )
    reader.open()
    began = time.monotonic()
    reader.register()
    assert asked and time.monotonic() - began < 20


def test_a_page_that_cannot_ask_says_so_and_goes_on_by_itself(browser, server):
    reader, away = Reader(browser, link(server, 15)), lambda route: route.abort()
    page = reader.page
    down = lambda route: route.fulfill(status=503, body='{"saved": false}')  # noqa: E731
    page.route("**/reading/state", down)
    page.goto(reader.link)
    page.wait_for_selector("#reading-wait:has-text('cannot be opened just now')")
    page.unroute("**/reading/state", down)
    page.wait_for_selector("h1:has-text('Before you begin')")
    page.route("**/reading/image/**", away)
    reader.come_to_the_display_check()
    reader.check_display()
    page.wait_for_selector(".loading:has-text('has not arrived yet')")
    page.unroute("**/reading/image/**", away)
    reader.shown()
    assert page.locator(".loading").is_hidden() and reader.unexpected() == []


def test_a_long_consent_is_printed_whole_and_black_on_white(browser, server):
    reader = Reader(browser, link(server, 16))
    reader.open()
    page = reader.page
    page.evaluate("document.querySelector('.text').textContent = 'You may stop.\\n'.repeat(200)")
    assert len(re.findall(rb"/Type /Page\b", page.pdf())) > 2
    page.emulate_media(media="print")
    look = "getComputedStyle(document.querySelector('.check'))"
    assert page.evaluate(f"[{look}.color, {look}.backgroundColor]") == [
        "rgb(0, 0, 0)",
        "rgb(255, 255, 255)",
    ]


def test_the_image_that_the_reader_waits_for_comes_before_the_next_ones(browser, server):
    reader = started(browser, server, 17)
    asked, early = [], []

    def slowly(route):
        asked.append(route.request.url)
        reader.page.wait_for_timeout(500)
        early.append(len(asked))
        route.continue_()

    reader.context.route("**/reading/image/**", slowly)
    reader.page.reload()
    reader.shown()
    reader.page.wait_for_timeout(2500)
    assert early[0] == 1 and len(asked) == 3


def test_an_image_that_arrives_slowly_is_asked_for_once(browser, server):
    slow = """const direct = window.fetch; window.fetch = async (to, how) => {
      const answer = await direct(to, how);
      if (!String(to).includes("/image/")) return answer;
      const bytes = new Uint8Array(await answer.arrayBuffer());
      const part = Math.ceil(bytes.length / 3);
      let n = 0;
      const pull = async (on) => {
        await new Promise((done) => setTimeout(done, 1800));
        on.enqueue(bytes.slice(n * part, ++n * part));
        if (n === 3) on.close();
      };
      return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), answer);
    }"""
    asked = []
    reader = Reader(browser, link(server, 14))
    reader.page.on("request", lambda one: "/image/" in one.url and asked.append(one.url))
    reader.page.add_init_script(slow)
    reader.open()
    reader.register()
    assert asked and len(asked) == len(set(asked))


def test_keys_do_nothing_where_nothing_is_asked(browser, tmp_path):
    asked = [
        {"id": "odd", "text": "Odd?", "kind": "yes/no", "required": "true"},
        {"id": "what", "text": "What?", "kind": "choice", "options": "big|small"},
        {"id": "much", "text": "How much?", "kind": "scale", "options": "Little|Much"},
        {"id": "sure", "text": "Sure", "kind": "yes/no"},
        {"id": "where", "text": "Where?", "kind": "marks"},
    ]
    asked = [asked[0], *(row | {"shown_when": "odd=yes"} for row in asked[1:]), LABEL]
    running = serve(tmp_path, read=2, training=0, number_of_readers=1, asked=asked)
    try:
        reader = Reader(browser, link(running, 0))
        reader.open()
        page = reader.page
        page.check("#agree")
        page.click("button.primary")
        page.click("button.primary")
        page.click("button.primary")
        reader.check_display()
        reader.shown()
        page.keyboard.type("b1qm")
        assert page.locator("canvas.marking").count() == 0
        page.click(".choice[data-value=true]")
        assert page.locator(".answer [aria-pressed=true]").all_inner_texts() == ["Yes"]
        assert not page.is_checked("#sure")
        page.keyboard.type("b1q")
        assert page.locator(".answer [aria-pressed=true]").all_inner_texts() == [
            "Yes",
            "big",
            "Little",
        ]
        assert page.is_checked("#sure")
    finally:
        running.stop()


def test_forced_colours_hide_neither_the_greys_of_the_check_nor_what_is_chosen(browser, server):
    reader = Reader(browser, link(server, 18), forced_colors="active")
    page = reader.page
    reader.open()
    reader.come_to_the_display_check()
    greys = page.locator(".patch, .patch span").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    assert {f"rgb({n}, {n}, {n})" for n in (0, 13, 255, 242)} <= set(greys)
    reader.check_display()
    reader.shown()
    page.click(".choice[data-value=real]")
    grounds = page.locator(".labels .choice").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    assert grounds[0] != grounds[1] == grounds[2]


@pytest.mark.parametrize(
    ("width", "height"), [(720, 450), (640, 360), (512, 384), (844, 390), (410, 590)]
)
def test_with_large_type_the_answer_and_the_image_have_room(browser, server, width, height):
    """Windows of 1440 × 900, 1280 × 720 and 1024 × 768 at 200 %, a phone held sideways, and a
    tablet of 820 × 1180 at 200 %.
    """
    reader = Reader(browser, link(server, 0))
    reader.open()
    page = reader.page
    reader.shown() if page.locator("canvas").count() else reader.register()
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(300)
    assert page.locator(".answer").bounding_box()["height"] >= 100
    box = page.locator("canvas.picture").bounding_box()
    assert min(box["width"], box["height"]) >= 200
    save = page.locator("button.save").bounding_box()
    assert save["y"] + save["height"] <= height


def test_a_screen_reader_is_told_the_image_and_its_place(browser, server):
    reader = Reader(browser, link(server, 0))
    reader.open()
    reader.shown() if reader.page.locator("canvas").count() else reader.register()
    name = reader.page.inner_text(".progress")
    assert reader.page.get_by_role("img", name=name, exact=True).count() == 1


def test_a_text_from_right_to_left_begins_on_the_right(browser, tmp_path):
    asked = [LABEL | {"text": "هل تبدو هذه الصورة حقيقية؟ (اختر واحدة)."}]
    block = reading_studies.BLOCK | {"title": "دراسة (1).", "instructions": asked[0]["text"]}
    running = serve(tmp_path, read=2, training=0, number_of_readers=1, asked=asked, blocks=[block])
    try:
        reader = Reader(browser, link(running, 0))
        reader.open()
        first, last = reader.page.locator(".study").evaluate(
            """(node) => [0, node.firstChild.length - 1].map((at) => {
              const range = document.createRange();
              range.setStart(node.firstChild, at);
              range.setEnd(node.firstChild, at + 1);
              return range.getBoundingClientRect().right - node.getBoundingClientRect().right })"""
        )
        assert last < first and first > -3, "the first letter at the right edge, the stop behind"
    finally:
        running.stop()


def test_a_translation_that_lacks_a_word_has_the_english_one(monkeypatch, tmp_path):
    (tmp_path / "texts.en.json").write_text((setting.STATIC / "texts.en.json").read_text())
    own = {"language": "yy", "page": {"sign_in": "Entrer"}}
    (tmp_path / "texts.yy.json").write_text("\ufeff" + json.dumps(own), encoding="utf-8")
    monkeypatch.setattr(setting, "STATIC", tmp_path)
    words = setting.page_words("yy")
    assert (words["language"], words["page"]["sign_in"]) == ("yy", "Entrer")
    assert words["page"]["cancel"] == "Cancel" and words["told"]["title"] == "What it is"
