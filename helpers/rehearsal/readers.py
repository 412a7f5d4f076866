"""Simulated readers. They answer through the same store as people, with given sensitivity,
specificity and habits.

All their actions follow from the study's seed, so an interrupted rehearsal ends in the same record.
"""

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from helpers import protocol
from helpers.assemble_reading_set import seal
from helpers.files import utc
from helpers.findings import FINDINGS, SIDES, UNSIDED
from helpers.reading import accounts, messages, reader_state, record, store
from helpers.reading.setting import Setting, setting_of
from helpers.runner import runs

BEGIN = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
CONFUSED = {
    "infiltrates": "consolidation",
    "consolidation": "infiltrates",
    "nodule": "mass",
    "effusion": "pleural_thickening",
    "opacity": "infiltrates",
}
# Share of images that are marked, and added share of generated images for readers who notice.
UNUSUAL, NOTICED = (0.1, 0.35)
# Place on generated images that simulated readers mark, as shares of the side.
GIVEN_AWAY = (0.25, 0.75)
SEEN_ANEW = 0.25  # share of hidden repeats that a simulated reader judges afresh
CUES_OF_FAKE, CUES_OF_REAL = ("texture", "borders", "sharpness"), ("anatomy", "markers")


def read(run: runs.Run) -> None:
    """Let every simulated reader answer every image and lock.

    Answers that are already in the store are not given again.
    """
    set_run = run.reads(run.parameters["reading_set"])
    reading_set, sealed = set_run.folder / "reading_set", set_run.folder / "sealed"
    key = seal.unseal(reading_set, sealed, run.study, {}, simulated=True)
    truth = {
        row["blind_id"]: row
        for row in key[["blind_id", "origin", "finding", "repeat_of"]].fillna("").to_dict("records")
    }
    setting = setting_of(run)
    engine = store.open_store(setting.store_place)
    try:
        for number in range(setting.parameters.number_of_readers):
            _read_all(engine, setting, truth, f"simulated-{number + 1}", knows_ai=number % 2 == 1)
    finally:
        engine.dispose()
    reader_state.mark_begun(setting, clock=lambda: utc(BEGIN))


def _read_all(engine, setting: Setting, truth: dict, reader_id: str, knows_ai: bool) -> None:
    accounts.add_reader(engine, reader_id, simulated=True)
    settings, designed = setting.parameters, setting.protocol
    start = BEGIN + timedelta(minutes=random.Random(f"{settings.seed}/{reader_id}").randrange(600))
    reader_state.enter(engine, setting, reader_id, lambda: utc(start))
    person = Person(reader_id, knows_ai, settings, setting.texts.get("size", 1))

    def send(event: str, minute: float, name: str = "", blind_id: str = "", **payload) -> None:
        """Send messages to the store, which recognises repeated ones: an interrupted rehearsal
        continues by sending all again.
        """
        identity = f"{event}-{blind_id or name or reader_id}"
        moment = utc(start + timedelta(minutes=minute, seconds=payload.get("seconds", 0) / 5))
        message = {"id": identity, "event": event, "blind_id": blind_id, "payload": payload}
        known = [question.id for question in designed.questions]
        message = messages.clean(message | {"browser_utc": moment}, known)
        salt = hashlib.sha256(f"{settings.seed}/{reader_id}/{identity}".encode()).hexdigest()[:16]
        message["payload"]["salt"] = salt
        store.append(
            engine,
            reader_id,
            message,
            lambda kept, sent: record.refuse(record.fold(kept), sent, setting, moment),
            lambda: moment,
        )

    send("consented", 1)
    send("registered", 2, **person.once(designed.questions_of(protocol.READER)))
    send("display", 3, steps_seen=True, room_light="dimmed", device="desktop")
    minute, learnt, informed = 4.0, False, True
    orders = record.fold(store.events(engine, reader_id)).blocks
    for number, block in enumerate(designed.blocks, 1):
        questions = designed.questions_of(block.block)
        if number > 1 or not block.images:
            minute += 1 + 1440 * block.after_days
            once = person.once(questions) if not block.images else {}
            send("begun", minute, block.block, block=number, **once)
        informed = not block.unaware
        for blind_id in orders[block.block]:
            minute += 1
            send("shown", minute, blind_id=blind_id)
            given = person.answer(truth[blind_id], questions, informed, learnt)
            send("answered", minute, blind_id=blind_id, **given)
        learnt = learnt or block.tell_truth
        if block.images and block.lock and block is not designed.blocks[-1]:
            minute += 1
            send("closed", minute, block.block, block=number)
    send("locked", minute + 1)


@dataclass(frozen=True)
class Person:
    """A simulated reader. `settings` has the parameters of 07, which set ability and habits; `size`
    is the side of the images, pixels.
    """

    reader_id: str
    knows_ai: bool
    settings: Mapping
    size: float = 1

    def drawn(self, about: str) -> random.Random:
        """The random numbers of this reader for one subject."""
        return random.Random(f"{self.settings.seed}/{self.reader_id}/{about}")

    @property
    def notices(self) -> bool:
        """Whether this reader notices, before the page says so, that images are generated."""
        return self.drawn("notices").random() < self.settings.simulated_noticed

    def once(self, questions: list[protocol.Question]) -> dict:
        """Answers to the questions that are asked once."""
        said = "Some images look generated" if self.notices else "Nothing in particular"
        known = {
            "years": 12 if self.knows_ai else 9,
            "specialty": "Radiology (simulated)",
            "prior_ai": self.knows_ai,
            "noticed": self.notices,
            "remark": said,
        }
        return self.rest(questions, known, self.drawn("once"))

    def answer(
        self, truth: Mapping, questions: list[protocol.Question], informed=True, learnt=False
    ) -> dict:
        """The answers to one image.

        `truth` is its row of the key; a hidden repeat is mostly judged as the first time. Informed
        readers give lower scale values; readers who have seen examples make fewer errors.
        """
        looked = truth["blind_id"]
        if truth.get("repeat_of") and self.drawn(f"{looked}/again").random() > SEEN_ANEW:
            looked = truth["repeat_of"]
        settings, drawn = self.settings, self.drawn(looked)
        fake = truth["origin"] == "generated"
        right = settings.simulated_sensitivity if fake else settings.simulated_specificity
        right += settings.simulated_ai_gain * (1 - right) if self.knows_ai else 0
        right += settings.simulated_learning * (1 - right) if learnt else 0
        uncertain = drawn.random() < settings.simulated_uncertain * (0.6 if self.knows_ai else 1)
        says_fake = fake == (drawn.random() < right)
        label = "uncertain" if uncertain else "fake" if says_fake else "real"
        typical = drawn.lognormvariate(2.6 if self.knows_ai else 2.9, 0.5)
        seconds = round(min(240.0, typical * (1.4 if uncertain else 1)), 1)
        offered = {question.id: [value for value, _ in question.options] for question in questions}
        seen, side = _seen(truth, offered.get("findings", FINDINGS), drawn)
        words = " and ".join(FINDINGS[finding].lower() for finding in seen) or "no finding"
        described = f"{side} {words}".strip() if seen != ["no_finding"] else "normal lungs"
        steps, cues = len(offered.get("confidence", ())), offered.get("cues", [])
        likely = CUES_OF_FAKE if label == "fake" else CUES_OF_REAL
        marked = [one for one in questions if one.kind == protocol.MARKS]
        strange = UNUSUAL + (NOTICED if fake and self.notices else 0)
        sure = steps and not uncertain
        # The order of these random draws is fixed.
        known = {
            "label": label,
            "description": described,
            "findings": seen,
            "side": side,
            "poor_quality": False,
            "confidence": drawn.randint(1 + steps // 3, steps) if sure else 1 if steps else None,
            protocol.WHICH: protocol.WHICH in offered and self.picked(fake, learnt, drawn),
            "cues": [c for c in cues if c in likely and drawn.random() < 0.6] or cues[:1],
            **{one.id: self.marked(fake, one, drawn) for one in marked},
            "unusual": drawn.random() < strange,
        }
        lower = settings.simulated_quality_gap * fake + settings.simulated_informed_gap * informed
        return self.rest(questions, known, drawn, lower) | {"seconds": seconds}

    def marked(self, fake: bool, question: protocol.Question, drawn: random.Random) -> list[dict]:
        """A point where generated images give themselves away, or anywhere else."""
        there = fake and drawn.random() < self.settings.simulated_marks
        x, y = (drawn.gauss(n, 0.04) if there else drawn.uniform(0.05, 0.95) for n in GIVEN_AWAY)
        cues = [value for value, _ in question.options]
        cue = drawn.choice(cues) if cues else ""
        return [
            {"x": round(x * self.size, 2), "y": round(y * self.size, 2), "w": 0, "h": 0, "cue": cue}
        ]

    def picked(self, left: bool, learnt: bool, drawn: random.Random) -> str:
        """The image of a pair that this reader takes for the generated one, which is the `left`
        one.
        """
        right = self.settings.simulated_pairs
        right += self.settings.simulated_learning * (1 - right) if learnt else 0
        says_left = (right if left else 1 - right) + self.settings.simulated_left
        return "left" if drawn.random() < says_left else "right"

    def rest(self, questions, known: dict, drawn: random.Random, lower: float = 0) -> dict:
        """These answers, plus a value for every other question that is shown."""
        given: dict = {}
        for question in questions:
            if not question.is_shown(given):
                continue
            value = known.get(question.id)
            if value is None:
                value = _anything(question, drawn, lower)
            if not protocol.empty(value):
                given[question.id] = value
        return given


def _anything(question: protocol.Question, drawn: random.Random, lower: float):
    values = [value for value, _ in question.options]
    if question.kind == "scale":
        step = round(drawn.gauss(0.75 * len(values) - lower, 0.8))
        return min(max(step, 1), len(values))
    if question.kind in ("choice", "side"):
        return drawn.choice(values)
    if question.kind in protocol.MANY:
        return [drawn.choice(values)]
    return {"text": "nothing to add", "number": 1, "yes/no": drawn.random() < 0.5}[question.kind]


def _seen(truth: Mapping, offered: Iterable, drawn: random.Random) -> tuple[list[str], str]:
    """The finding that the reader sees: mostly the real one, sometimes a similar one or none."""
    there = [finding for finding in truth["finding"].split("|") if finding in offered]
    there = there or ["no_finding"]
    seen = [
        CONFUSED.get(finding, finding) if drawn.random() < 0.15 else finding for finding in there
    ]
    seen = list(dict.fromkeys(finding for finding in seen if finding in offered)) or there
    if seen != ["no_finding"] and drawn.random() < 0.08:
        seen = ["no_finding"]
    sided = any(finding not in UNSIDED for finding in seen)
    return seen, drawn.choice(SIDES) if sided else ""
