"""Simulated readers: they answer through the same store as people will, with stated sensitivity,
specificity and habits.

Everything they do follows from the study's seed, so an interrupted rehearsal ends in the same
record.
"""

import hashlib
import random
from datetime import UTC, datetime, timedelta

from helpers.assemble_reading_set import seal
from helpers.files import utc
from helpers.findings import FINDINGS, SIDES, UNSIDED
from helpers.reading import accounts, reader_state, record, store
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
SEEN_ANEW = 0.25  # share of hidden repeats that a simulated reader judges afresh
CUES_OF_FAKE, CUES_OF_REAL = ("texture", "borders", "sharpness"), ("anatomy", "markers")


def read(run: runs.Run) -> None:
    """Let every simulated reader answer every image and lock.

    What is in the store already is not answered again.
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
    start = BEGIN + timedelta(
        minutes=random.Random(f"{setting.parameters.seed}/{reader_id}").randrange(600)
    )
    reader_state.enter(engine, setting, reader_id, lambda: utc(start))

    def send(event: str, minute: int, blind_id: str = "", **payload) -> None:
        """The store recognises what it has: sending all again is how an interrupted rehearsal goes
        on.
        """
        identity, moment = (
            f"{event}-{blind_id or reader_id}",
            utc(start + timedelta(minutes=minute, seconds=payload.get("seconds", 0) / 5)),
        )
        message = record.clean(
            {
                "id": identity,
                "event": event,
                "blind_id": blind_id,
                "payload": payload,
                "browser_utc": moment,
            }
        )
        message["payload"]["salt"] = hashlib.sha256(
            f"{setting.parameters.seed}/{reader_id}/{identity}".encode()
        ).hexdigest()[:16]
        store.append(
            engine,
            reader_id,
            message,
            lambda kept, sent: record.refuse(record.fold(kept), sent, setting.parameters),
            lambda: moment,
        )

    send("consented", 1)
    send(
        "registered",
        2,
        years=12 if knows_ai else 9,
        specialty="Radiology (simulated)",
        prior_ai=knows_ai,
    )
    send("display", 3, steps_seen=True, room_light="dimmed", device="desktop")
    order = record.fold(store.events(engine, reader_id)).order
    for minute, blind_id in enumerate(order, 4):
        send("shown", minute, blind_id)
        send(
            "answered",
            minute,
            blind_id,
            **answer(truth[blind_id], setting.parameters, reader_id, knows_ai),
        )
    send("locked", 4 + len(order))


def answer(truth: dict, parameters, reader_id: str, knows_ai: bool) -> dict:
    """The simulated answer to one image.

    `truth` is its row of the key; a hidden repeat is mostly seen as it was the first time.
    """
    looked = truth["blind_id"]
    if (
        truth.get("repeat_of")
        and random.Random(f"{parameters.seed}/{reader_id}/{looked}/again").random() > SEEN_ANEW
    ):
        looked = truth["repeat_of"]
    drawn = random.Random(f"{parameters.seed}/{reader_id}/{looked}")
    fake = truth["origin"] == "generated"
    right = parameters.simulated_sensitivity if fake else parameters.simulated_specificity
    right += parameters.simulated_ai_gain * (1 - right) if knows_ai else 0
    uncertain = drawn.random() < parameters.simulated_uncertain * (0.6 if knows_ai else 1)
    says_fake = fake == (drawn.random() < right)
    label = "uncertain" if uncertain else "fake" if says_fake else "real"
    seconds = round(
        min(240.0, drawn.lognormvariate(2.6 if knows_ai else 2.9, 0.5) * (1.4 if uncertain else 1)),
        1,
    )
    seen, side = _seen(truth, parameters, drawn)
    words = " and ".join(FINDINGS[finding].lower() for finding in seen) or "no finding"
    described = f"{side} {words}".strip() if seen != ["no_finding"] else "normal lungs"
    given = {
        "label": label,
        "description": described,
        "findings": seen,
        "side": side,
        "seconds": seconds,
    }
    steps = record.CONFIDENCE_STEPS[parameters.confidence]
    if steps:
        given["confidence"] = 1 if uncertain else drawn.randint(1 + steps // 3, steps)
    if parameters.cues_asked:
        likely = CUES_OF_FAKE if label == "fake" else CUES_OF_REAL
        given["cues"] = [
            cue for cue in parameters.cues if cue in likely and drawn.random() < 0.6
        ] or parameters.cues[:1]
    return given


def _seen(truth: dict, parameters, drawn: random.Random) -> tuple[list[str], str]:
    """What the reader sees: mostly what is there, now and then something like it or nothing."""
    there = [
        finding for finding in truth["finding"].split("|") if finding in parameters.findings_offered
    ] or ["no_finding"]
    seen = [
        CONFUSED.get(finding, finding) if drawn.random() < 0.15 else finding for finding in there
    ]
    seen = [finding for finding in seen if finding in parameters.findings_offered] or there
    if seen != ["no_finding"] and drawn.random() < 0.08:
        seen = ["no_finding"]
    sided = any(finding not in UNSIDED for finding in seen)
    return seen, drawn.choice(SIDES) if sided else ""
