"""The images that a run requests: which are on disk, which are missing, and what they cost.

services/sending.py sends. What is on disk at any moment: before a request is sent its line in
ledger.csv; after its answer paid/<image_id>.json (request and answer), then
paid/<image_id>.<suffix> byte for byte as received, then the settled line.
"""

from collections import Counter

from helpers.generate_openai import answers, paid_images
from helpers.generate_openai.prompts import Order
from helpers.generate_openai.service import OWN_FIELDS, Service
from helpers.plurals import counted
from helpers.runner import runs
from helpers.services import budget, connection, prices, sending
from helpers.services.connection import ServiceError
from helpers.services.work import Work, record

# What to change when a service does not accept a field of the request.
FIELDS = {
    "quality": "set quality to auto, so that it is not sent",
    "size": "set size to one that it accepts, or to auto",
    "response_format": "set request_shape to gpt-image, so that it is not sent",
    "moderation": "set moderation to auto, so that it is not sent",
    "model": "set model to a name that it lists",
}
LEFT = {
    "rejected": "Reword or remove that prompt, or correct what the message names.",
    "unusable": "The answers are kept in paid/unusable.",
}


class Generation(Work):
    """The images of one run: which are on disk, which are still missing, and what they cost."""

    things, groups, doing = "images", "prompts", "Generating"
    left, fields, elsewhere = LEFT, FIELDS, "on disk, refused or in a batch"
    keep = answers.keep
    unlike = "Is this an image service? Its answers are in paid/unusable."

    def __init__(self, run: runs.Run, service: Service, orders: list[Order]):
        super().__init__(run, service, orders)
        self.batch = run.parameters.mode == "batch"
        self.seen_tokens = [
            row["output_tokens"] * 1024**2 / prices.area(row["size"] or "auto")
            for row in self.ledger.rows.values()
            if self._alike(row) and row["output_tokens"]
        ]
        self.resume()
        if not run.finished:
            self.learn("auto", None)

    def open_batches(self) -> list[dict]:
        """The records of the batches whose results are not collected yet."""
        needs = ("submission", "status", "batch_id", "requests")
        paths = sorted((self.paid / "batches").glob("*.json"))
        kept = [record(path, needs) for path in paths]
        return [one for one in kept if one["status"] not in ("collected", "never created")]

    def resume(self) -> None:
        """Also enter the requests of open batches that the ledger does not have: their record is
        written first.
        """
        for kept in [] if self.run.finished else self.open_batches():
            for image_id, request_id in kept["requests"].items():
                if request_id not in self.ledger.rows and (order := self.by_id.get(image_id)):
                    begun = self.begin(order, self.estimate(order).reserve_usd, "submitted")
                    self.ledger.restore(begun, request_id)
        super().resume()

    def rest(self) -> None:
        """Recompute the missing images: not on disk, not in a batch, and not of a prompt that was
        only refused. Those that failed before come last.
        """
        rows = self.ledger.rows.values()
        there = {order.image_id for order in self.orders if self.on_disk(order)}
        settled = there | {
            row["image_id"] for row in rows if row["status"] in ("refused", "submitted")
        }
        refused = {row["prompt"] for row in rows if row["status"] == "refused"}
        refused -= {self.by_id[name].prompt for name in there}
        failed = Counter(row["image_id"] for row in rows if row["status"] == "failed")
        self.wanted = [
            order
            for order in self.orders
            if order.image_id not in settled and order.prompt not in refused
        ]
        self.wanted.sort(key=lambda order: failed[order.image_id])
        self.open = len(self.wanted)

    def on_disk(self, order: Order):
        """The image as received, or None."""
        return paid_images.on_disk(self.paid, order.image_id)

    @property
    def answer_bytes(self) -> int:
        """The most bytes that one wanted image may have: three a pixel."""
        return 3 * max(prices.area(order.size) for order in self.wanted)

    def begin(self, order: Order, reserve_usd: float, status: str = "sent") -> str:
        """Enter a request in the ledger before it is sent; returns its id."""
        request = {"size": self.service.size(order), "quality": self.service.quality}
        model = self.service.parameters.model
        return self.ledger.begin(order, reserve_usd, status, model=model, **request)

    async def send(self, client, order: Order, request_id: str) -> tuple[bytes, dict]:
        """Send one request; returns the answer's bytes and headers."""
        create = client.images.with_streaming_response.generate
        return await connection.ask(create, self.service.request(order), OWN_FIELDS, request_id)

    def estimate(self, order: Order) -> budget.Estimate:
        """Expected cost of one image, and the amount set aside for it."""
        return self._estimate(order.prompt, order.size, self.batch)

    def _estimate(self, prompt: str, size: str, batch: bool) -> budget.Estimate:
        service = self.service
        return budget.estimate(
            service.price, prompt, size, service.quality or "auto", self.seen_tokens, batch
        )

    def most_expensive(self) -> budget.Estimate:
        """The estimate for the wanted image that may cost most."""
        area = max((order.size for order in self.wanted), key=prices.area)
        prompt = max((order.prompt for order in self.wanted), key=len)
        return self._estimate(prompt, area, self.batch)

    def learn(self, size: str, output_tokens: int | None) -> None:
        """Note the tokens of an answer. From then on, attempts without an answer reserve the known
        cost of an image.
        """
        if output_tokens:
            self.seen_tokens.append(output_tokens * 1024**2 / prices.area(size))
        for row in self.ledger.unanswered() if self.seen_tokens else ():
            if self._alike(row):
                each = self._estimate(row["prompt"], row["size"] or "auto", batch=False)
                self.ledger.settle(row["request_id"], "unknown", cost_usd=each.reserve_usd)

    def _alike(self, row: dict) -> bool:
        wanted = (self.service.parameters.model, self.service.quality)
        return (row["model"], row["quality"]) == wanted

    def ending(self, row: dict) -> tuple[str, dict] | None:
        """How an attempt ended by what is on disk: status and ledger fields, or None."""
        kept = record(self.paid / f"{row['image_id']}.json")
        if kept.get("request_id") != row["request_id"]:
            return None
        if paid_images.on_disk(self.paid, row["image_id"]):
            return "ok", kept["settled"]
        lost = {"error": "answered and billed, but lost before it was on disk"}
        return "unknown", kept["settled"] | lost


async def generate(generation: Generation) -> None:
    """Request every missing image.

    `tries` limits the attempts that failed before an answer, `ask_again` those that were perhaps
    billed and lost, and `patience_seconds` the wait while rate limits let nothing through. Raises
    ServiceError if images are still missing after every open request has been settled: the budget
    or quota is used up, a request is wrong, or too many failed.
    """
    if generation.run.finished:
        return
    in_batches = sum(row["status"] == "submitted" for row in generation.ledger.rows.values())
    if in_batches:
        raise ServiceError(
            f"{counted(in_batches, 'image is', 'images are')} waiting in a batch: set mode to batch"
            " and run again to collect them first."
        )
    if await answers.read_again(generation):
        generation.rest()
    if generation.wanted:
        await sending.serve(generation)
