"""Keeps a model's answers in a record like the readers': its own reader ids, events in a hash
chain, its own order, then the lock. Also makes the tables of the run.
"""

import json
import re
from dataclasses import replace

import pandas as pd
from sqlalchemy import Engine

from helpers import protocol, tables
from helpers.ask_models import asking
from helpers.assemble_reading_set import seal
from helpers.files import utc_now
from helpers.reading import accounts, export, reader_state, setting, store
from helpers.runner import parameters, runs
from helpers.services.connection import ServiceError

MISSING = "missing"  # event for an image without an answer; its payload has the reason


def open_set(run: runs.Run, set_run: runs.Run) -> setting.Setting:
    """The reading set as a model reads it: the images that are scored and shown alone, all blocks,
    all texts, and the questions that can be answered in writing.

    Raises ServiceError if the key has been opened already: then nobody may read.
    """
    folder = set_run.folder / "reading_set"
    designed, settings = setting.read_protocol(folder), run.parameters
    kept = tuple(one for one in designed.questions if one.kind != protocol.MARKS)
    designed = replace(designed, questions=kept)
    texts = setting.read_texts(folder, run.study)
    known = {name: settings[name] for name in ("seed", "mixing", "reading_set")}
    scored = {
        name: image
        for name, image in setting.read_images(folder, designed).items()
        if not (image.training or image.beside or image.second)
    }
    openings = [
        entry
        for entry in seal.openings(set_run.folder / "sealed")
        if entry["how"] != "simulated readers"
    ]
    if openings and not run.finished:
        raise ServiceError(
            f"The key of {set_run.name} was opened on {openings[0]['utc'][:10]}: a model must read"
            " before that. Give it a reading set that is still sealed."
        )
    return setting.Setting(run.study, parameters.Record(known), designed, texts, scored, run.folder)


def instructions(run: runs.Run, opened: setting.Setting) -> str:
    """The text for the model. Raises ServiceError when it is empty or not UTF-8, or names
    generation although an unaware block must not.
    """
    try:
        text = run.beside(run.parameters.instructions).read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ServiceError(
            f"{run.parameters.instructions} is not UTF-8: save it in that encoding."
        ) from None
    if not text:
        raise ServiceError(
            f"{run.parameters.instructions} is empty: write the instructions for the model."
        )
    found = protocol.NAMES_GENERATION.search(text)
    if found and any(block.unaware for block in opened.protocol.blocks):
        raise ServiceError(
            f"{run.parameters.instructions}: '{found[0]}' would reveal to the reader of an unaware"
            " block what blocks.csv reveals later."
        )
    return text


def open_record(run: runs.Run, opened: setting.Setting, about: dict) -> tuple[Engine, dict]:
    """The record and each reader's order by block. The first event fixes the order and `about`, the
    instructions and settings.

    Raises StoreError if the record was begun with other settings.
    """
    engine, settings = store.open_store(run.folder / "readings.sqlite"), run.parameters
    name = re.sub(r"[^\w.-]+", "-", settings.label or settings.model).strip("-_.")[-32:] or "model"
    orders, first = {}, {"kind": "model", **about}
    for number in range(1, settings.repeats + 1):
        reader_id = f"{name.lower()}-{number}"
        accounts.add_reader(engine, reader_id, simulated=settings.provider == "rehearsal")
        reader_state.enter(engine, opened, reader_id, about=first)
        begun = store.events(engine, reader_id)[0].payload
        if begun.get("sha256") != about["sha256"]:
            raise store.StoreError(
                f"{run.folder / 'readings.sqlite'} was begun with other instructions, settings or"
                " images; nothing in it was changed. Use another variant for this model."
            )
        own = reader_state.read_record(engine, reader_id).blocks
        orders[reader_id] = {block: images for block, images in own.items() if images}
    reader_state.mark_begun(opened)
    return engine, orders


async def read(engine: Engine, reading: asking.ModelReading) -> None:
    """Request every missing answer, and record all that came, even if something stops the run."""
    try:
        await asking.read(reading)
    finally:
        enter(engine, reading)


def enter(engine: Engine, reading: asking.ModelReading) -> None:
    """Record every known outcome in each reader's own order; lock the readers that have
    read all.
    """
    for reader_id in dict.fromkeys(order.reader_id for order in reading.orders):
        own = [order for order in reading.orders if order.reader_id == reader_id]
        kept = store.events(engine, reader_id)
        there = {event.blind_id for event in kept} | {event.event for event in kept}
        for order in own:
            if order.blind_id in there:
                continue
            if (outcome := reading.outcome(order)) is None:
                break
            given = outcome.pop("answers", {})
            event = "answered" if given else MISSING
            message = {"id": f"{event}-{order.blind_id}", "event": event}
            message |= {"blind_id": order.blind_id, "payload": outcome | given}
            store.append(engine, reader_id, message)
        else:
            if "locked" not in there:
                store.append(engine, reader_id, {"id": "locked", "event": "locked", "payload": {}})


def tables_of(engine: Engine, opened: setting.Setting, reading) -> dict[str, pd.DataFrame]:
    """The tables events, answers, readings and readers as for people, models (one row per reading)
    and missing_answers. Raises StoreError for a record that does not verify.
    """
    if wrong := store.verify(engine):
        raise store.StoreError(
            f"The record in {opened.folder} does not verify: {'; '.join(wrong[:3])}. Compare it"
            " with a backup."
        )
    found, models, missing = export.export(engine, opened), [], []
    costs = pd.DataFrame(reading.ledger.rows.values(), columns=["image_id", "cost_usd"])
    for reader, kept, own in reader_state.every_record(engine):
        reader_id, first = reader["reader_id"], kept[0].payload
        lost = [event for event in kept if event.event == MISSING]
        named = [answer["reply.model"] for answer in own.answers.values() if answer["reply.model"]]
        received = [event.payload["reply.utc"] for event in kept if "reply.utc" in event.payload]
        settings = {k: first[k] for k in first if k not in ("blocks", "salt", "kind", "simulated")}
        mine = costs["image_id"].str.startswith(f"{reader_id}.")
        models.append(
            {
                "reader_id": reader_id,
                "kind": first["kind"],
                "label": reading.run.parameters.label or first["model"],
                "model": first["model"],
                "answered_by": "|".join(dict.fromkeys(named)) or None,
                "provider": first["provider"],
                "first_utc": min(received, default=None),
                "last_utc": max(received, default=None),
                "instructions_sha256": first["instructions_sha256"],
                "settings": json.dumps(settings, sort_keys=True),
                "answered": len(own.answers),
                "missing": len(lost),
                "cost_usd": float(costs.loc[mine, "cost_usd"].fillna(0).sum()),
                "simulated": reader["simulated"],
            }
        )
        missing += [
            {
                "reader_id": reader_id,
                "block": opened.images[event.blind_id].block,
                "blind_id": event.blind_id,
                "reason": event.payload["reason"],
                "simulated": bool(reading.run.simulated),
            }
            for event in lost
        ]
    found["models"] = tables.check(pd.DataFrame(models), "models")
    found["missing_answers"] = (
        tables.check(pd.DataFrame(missing), "missing_answers")
        if missing
        else tables.empty("missing_answers")
    )
    return found


def finish(run: runs.Run, found: dict[str, pd.DataFrame], spent_usd: float) -> None:
    """Write the tables and finish the run."""
    for name, frame in found.items():
        if not run.finished:
            tables.write(frame, run.file(f"{name}.csv"), export.TABLES.get(name, name))
    run.finish(
        answers=int(found["models"]["answered"].sum()),
        missing=len(found["missing_answers"]),
        cost_usd=round(spent_usd, 6),
        read_utc=utc_now(),
    )
