"""A model as a reader: what it is sent, what it costs, and which answers are still missing.

services/sending.py sends. What is on disk at any moment: before a request is sent its line in
ledger.csv; after its answer paid/<request_id>.json as received, then the settled line. The content
of an answer is read from that file whenever it is needed, so a kill loses no paid answer.
"""

import asyncio
import base64
import functools
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helpers import files, images, protocol
from helpers.ask_models import replies
from helpers.files import utc_now, write_atomically
from helpers.reading import setting
from helpers.runner import runs
from helpers.services import budget, connection, prices, retry_policy, secrets, sending
from helpers.services.work import Work, record

OWN_FIELDS = {"model", "messages"}  # the client would parse a schema, 15 ms per request
LEFT = {"unusable": "The answers are kept in paid/."}
# What to change when a service does not accept a field of the request.
FIELDS = {
    "response_format": "set reply_format to json_object or text",
    "temperature": "leave temperature empty, so that it is not sent",
    "max_completion_tokens": "set limit_field to max_tokens",
    "max_tokens": "set limit_field to max_completion_tokens",
    "image_url": "set model to one that accepts images",
    "model": "set model to one that it lists and that sees images",
}
NAMES = {"xray": "Chest X-ray", "ct": "CT slice of the chest"}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Order:
    """One image for one run of the model through the set."""

    reader_id: str
    block: str
    blind_id: str
    image_id: str  # of the ledger: reader, image, digest of instructions and settings
    earlier: tuple[str, ...] = ()  # blind_ids shown before in this block, for a model with memory

    @property
    def group(self) -> str:
        """The group of orders that fail together: each image is a group of its own."""
        return self.image_id

    prompt_id = property(lambda self: self.block)
    prompt = property(lambda self: "")  # the same texts for every image of a block: not repeated


class ModelReading(Work):
    """The answers that a run of 07_ask_models needs from its model."""

    things, groups, doing = "answers", "images", "Reading"
    left, fields, elsewhere = LEFT, FIELDS, "on disk or refused"
    unlike = "Does this model see images and answer in JSON? Its answers are in paid/."

    def __init__(
        self,
        run: runs.Run,
        service: connection.Connection,
        opened: setting.Setting,
        instructions: str,
        orders,
    ):
        super().__init__(run, service, orders)
        self.opened, self.instructions = opened, instructions
        self.resume()

    def rest(self) -> None:
        """Recompute the missing orders. A model with memory gets one image at a time per
        reading.
        """
        rows = self.ledger.rows.values()
        ended = [row for row in rows if row["status"] in ("refused", "unusable")]
        ended += [row for row in rows if row["status"] == "ok" and self._kept(row).exists()]
        self.over = {row["image_id"]: row for row in ended}
        self.wanted = [order for order in self.orders if order.image_id not in self.over]
        self.open = len(self.wanted)
        if self.run.parameters.memory:
            first = {order.reader_id: order for order in reversed(self.wanted)}
            self.wanted = list(first.values())

    def outcome(self, order: Order) -> dict | None:
        """The outcome of an order: its answers, or the reason why there are none; None while it is
        open.

        Both include seconds, reply.request, reply.utc and reply.model, the model that the service
        names. (No question can have an id with a dot.)
        """
        if (row := self.over.get(order.image_id)) is None:
            return None
        kept = record(self._kept(row))
        about = {
            "seconds": round(row["seconds"] or 0.0, 3),
            "reply.request": row["request_id"],
            "reply.utc": kept.get("received_utc", row["requested_utc"]),
        }
        if row["status"] != "ok":
            return about | {"reason": row["error"] or "refused"}
        text, model = replies.read(replies.parse(kept["answer"].encode()))
        return about | {
            "reply.model": model,
            "answers": replies.answers(text, self.opened.protocol.questions_of(order.block)),
        }

    def _kept(self, row: dict) -> Path:
        """The file that holds the answer to a request as received."""
        return self.paid / f"{row['request_id']}.json"

    @property
    def leaves_out(self) -> bool:
        """Whether an image may stay without an answer: only where others have one."""
        return any(row["status"] == "ok" for row in self.ledger.rows.values())

    def leave_out(self, order: Order, request_id: str, verdict: retry_policy.Verdict) -> bool:
        """Unusable and lost answers count as missing, unless no other answer ever comes."""
        rows = self.ledger.rows.values()
        few = sum(row["status"] == "unusable" for row in rows) < sending.FAILED_ALIKE
        if verdict.action not in ("unusable", "empty") or not (self.leaves_out or few):
            return False
        self.ledger.settle(request_id, "unusable")
        return True

    def begin(self, order: Order, reserve_usd: float) -> str:
        """Enter a request in the ledger before it is sent; returns its id."""
        model = self.service.parameters.model
        return self.ledger.begin(order, reserve_usd, model=model, size=None, quality=None)

    def most_expensive(self) -> budget.Estimate:
        """The expected cost of one answer, and the amount set aside for it."""
        parameters = self.run.parameters
        seen = [
            (row["input_tokens"] or 0, row["output_tokens"])
            for row in self.ledger.rows.values()
            if row["model"] == parameters.model and row["output_tokens"] is not None
        ]
        return budget.estimate_answer(
            *(self.service.price, self.longest, 1 + parameters.memory),
            *(parameters.longest_answer, seen),
        )

    @functools.cached_property
    def longest(self) -> int:
        """Characters of the longest texts that go with one image."""
        shown = 1 + self.run.parameters.memory
        firsts = {order.block: order for order in self.orders}.values()
        return len(self.instructions) + shown * max(len(self.question_text(one)) for one in firsts)

    async def send(self, client, order: Order, request_id: str) -> tuple[bytes, dict]:
        """Send one image with its questions; returns the answer's bytes and headers."""
        create = client.chat.completions.with_streaming_response.create
        return await connection.ask(create, self.request(order), OWN_FIELDS, request_id)

    async def keep(
        self, order: Order, request_id: str, content: bytes, headers: dict, seconds: float
    ) -> retry_policy.Verdict:
        """Put an answer on disk as received, then settle its line in the ledger."""
        kept = {
            "request_id": request_id,
            "image_id": order.image_id,
            "received_utc": utc_now(),
            "seconds": seconds,
            "service_request_id": headers.get("x-request-id"),
            "answer": secrets.clean_bytes(content).decode("utf-8", "replace"),
        }
        text = json.dumps(kept, indent=1, sort_keys=True) + "\n"
        await asyncio.to_thread(write_atomically, self._kept(kept), text.encode())
        status, settled, action = self._judged(order, kept)
        self.ledger.settle(request_id, status, **settled)
        return retry_policy.Verdict(action, settled["error"] or "")

    def _judged(self, order: Order, kept: dict) -> tuple[str, dict, str]:
        """Status and ledger fields of an attempt by its answer, and the action that follows.
        Without a count, the amount set aside stays charged.
        """
        body, price = replies.parse(kept["answer"].encode()), self.service.price
        given, out = prices.tokens(replies.usage(body))
        settled = {"seconds": kept["seconds"], "input_tokens": given, "output_tokens": out}
        if out is not None or not price.by_tokens:
            settled["cost_usd"] = prices.cost(price, "", given, out, batch=False)
        elif not self.ledger.rows[kept["request_id"]]["cost_usd"]:  # its line was lost
            settled["cost_usd"] = self.most_expensive().reserve_usd
        settled["error"] = None
        try:
            questions = self.opened.protocol.questions_of(order.block)
            replies.answers(replies.read(body)[0], questions)
        except connection.Unusable as error:
            settled["error"] = str(error)
            return "refused" if error.action == "refused" else "failed", settled, error.action
        return "ok", settled, "done"

    def ending(self, row: dict) -> tuple[str, dict] | None:
        """How an attempt ended by what is on disk: status and ledger fields, or None."""
        kept, order = record(self._kept(row)), self.by_id.get(row["image_id"])
        return self._judged(order, kept)[:2] if kept and order else None

    # --- the request

    def request(self, order: Order) -> dict:
        """The JSON body for one image: the instructions, the texts that a reader has met by then,
        the questions, and the pixels in a fresh PNG.
        """
        parameters = self.run.parameters
        messages = [{"role": "system", "content": self.instructions}]
        for blind_id in order.earlier[-parameters.memory :] if parameters.memory else ():
            before = next(
                o for o in self.orders if (o.reader_id, o.blind_id) == (order.reader_id, blind_id)
            )
            if answers := (self.outcome(before) or {}).get("answers"):
                messages += [self._shown(before)]
                messages += [{"role": "assistant", "content": json.dumps(answers)}]
        body = {
            "model": parameters.model,
            "messages": [*messages, self._shown(order)],
            parameters.limit_field: parameters.longest_answer,
        }
        if parameters.temperature.strip():
            body["temperature"] = float(parameters.temperature)
        if parameters.reply_format != "text":
            body["response_format"] = {"type": parameters.reply_format}
        if parameters.reply_format == "json_schema":
            schema = replies.schema(self.opened.protocol.questions_of(order.block))
            strict = {"name": "answers", "strict": True, "schema": schema}
            body["response_format"]["json_schema"] = strict
        return body | self.service.extra_body

    def _shown(self, order: Order) -> dict:
        link = {"url": f"data:image/png;base64,{base64.b64encode(self.picture(order)).decode()}"}
        if self.run.parameters.detail != "auto":
            link["detail"] = self.run.parameters.detail
        text = {"type": "text", "text": self.question_text(order)}
        return {"role": "user", "content": [text, {"type": "image_url", "image_url": link}]}

    def picture(self, order: Order) -> bytes:
        """The image as every reader first sees it: its whole grey range, in its own size."""
        array = images.read_png(self.opened.images[order.blind_id].path)
        bits = 8 if array.dtype == "uint8" else self.opened.texts.get("bits") or 16
        return images.write_png(images.eight_bits(array, bits))

    def question_text(self, order: Order) -> str:
        """The texts of earlier blocks without images, then this block's own texts and questions."""
        blocks = self.opened.protocol.blocks
        here = next(block for block in blocks if block.block == order.block)
        earlier = [block for block in blocks[: blocks.index(here)] if not block.images]
        width, height, _, _ = setting.decoded(self.opened.images[order.blind_id].path)
        return TEMPLATES.get_template("question.txt").render(
            title=here.title,
            texts=[
                *(f"{block.title}\n{block.instructions}" for block in earlier),
                here.instructions,
            ],
            modality=NAMES[self.opened.images[order.blind_id].modality],
            width=width,
            height=height,
            questions=self.opened.protocol.questions_of(order.block),
            many=protocol.MANY,
        )


def orders(
    opened: setting.Setting, blocks: dict[str, dict[str, list[str]]], digest: str
) -> list[Order]:
    """One order per reader and image, in the reader's own order. `blocks` maps reader_id to block
    to blind_ids; `digest` is that of the instructions and settings.
    """
    return [
        Order(reader, block, name, f"{reader}.{name}.{digest[:8]}", tuple(shown[:place]))
        for reader, own in blocks.items()
        for block, shown in own.items()
        for place, name in enumerate(shown)
    ]


def settings(run: runs.Run, instructions: str, commitment: str) -> dict:
    """The instructions and settings for the model, and their SHA-256: if it differs, the reading
    is a different one. The server's address is not included.

    Raises ServiceError for a setting that cannot be one.
    """
    given = run.parameters
    if given.repeats < 1 or given.memory < 0:
        raise connection.ServiceError("repeats must be 1 or more, and memory 0 or more.")
    if not re.fullmatch(r"\s*(\d+(\.\d*)?\s*)?", given.temperature, re.ASCII):
        raise connection.ServiceError(
            f"temperature must be a number such as 0.2, or empty; it is '{given.temperature}'."
        )
    names = "provider model reply_format temperature longest_answer detail memory extra_body seed"
    chosen = {name: run.parameters[name] for name in names.split()}
    sent = hashlib.sha256(instructions.encode()).hexdigest()
    whole = chosen | {"instructions_sha256": sent, "set": commitment}
    # The report gives the hash of the file, which is also the one in the sealed plan.
    of_file = files.sha256(run.beside(run.parameters.instructions))
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return chosen | {"instructions_sha256": of_file, "sha256": digest}


async def read(reading: ModelReading) -> None:
    """Request every missing answer. Raises ServiceError if some are still missing and another run
    may get them.
    """
    while not reading.run.finished and reading.wanted:
        try:
            await sending.serve(reading)
        finally:
            reading.rest()
