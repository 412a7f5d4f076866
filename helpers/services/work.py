"""What a stage needs from a paid service: its orders, their outcomes, and the cost of the rest.

sending.py sends it.
"""

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from helpers.plurals import counted
from helpers.runner import runs
from helpers.services.connection import Connection, ServiceError
from helpers.services.ledger import LOST, Ledger


def record(path: Path, needs: tuple[str, ...] = ("image_id", "request_id")) -> dict:
    """A record in paid/ with the fields it `needs`, {} if there is none. Raises ServiceError for
    one that is damaged.
    """
    if not path.is_file():
        return {}
    with suppress(AttributeError, ValueError):
        kept = json.loads(path.read_text())
        if kept.keys() >= {*needs}:
            return kept
    raise ServiceError(
        f"{path} is damaged: restore it from a backup, or delete it and pay for it again."
    )


class Work:
    """The orders of a run and the service that answers them. Orders have an image_id and a group;
    those of one group fail alike.

    A stage defines the orders still `wanted` (`rest` recomputes them), the number still `open`, and
    the expected cost of the most expensive one (`most_expensive`). It enters a request in its
    `ledger` (`begin`), sends it (`send`), keeps the answer (`keep`), and reads from disk how an
    attempt ended (`ending`: status and ledger fields, or None). Its words for messages are
    `things`, `groups`, `doing`, `left`, `fields`, `unlike` and `elsewhere`. If `leaves_out`, an
    order may stay without an answer, and useless answers stop nothing.
    """

    leaves_out = False
    answer_bytes = 100_000  # the most that one answer may have

    def __init__(self, run: runs.Run, service: Connection, orders: list):
        self.run, self.service, self.orders = run, service, orders
        self.by_id = {order.image_id: order for order in orders}
        self.budget_usd, self.paid = run.parameters.budget_usd, run.folder / "paid"
        self.ledger = Ledger(run.folder / "ledger.csv")

    def resume(self) -> None:
        """Settle the attempts that a killed process left open, from the answers on disk, else as
        perhaps billed. Enter paid answers that the ledger does not have; recompute the missing
        orders.
        """
        rows = {} if self.run.finished else self.ledger.rows
        for path in [] if self.run.finished else sorted(self.paid.glob("*.json")):
            kept = record(path)
            if kept["request_id"] not in rows and (order := self.by_id.get(kept["image_id"])):
                begun, utc = self.begin(order, 0.0), kept["received_utc"]
                self.ledger.restore(begun, kept["request_id"], requested_utc=utc)
        left_open = [row for row in rows.values() if row["status"] == "sent"]
        for row in left_open:
            status, settled = self.ending(row) or ("unknown", {"error": LOST})
            self.ledger.settle(row["request_id"], status, **settled)
        if not self.run.finished and not self.ledger.saved:
            self.ledger.save_now()
        self.rest()

    def leave_out(self, order, request_id: str, verdict) -> bool:
        """Whether this order, which has used up its attempts, is settled without an answer."""
        return False

    def check_space(self) -> None:
        """Raises ServiceError if the answers could not be kept: they would be paid for and lost."""
        each, count = self.most_expensive().usd, len(self.wanted)
        if each:
            left = self.budget_usd - self.ledger.spent_usd
            count = min(count, max(0, int(left / each)))
        help_text = "free some space or set OUTPUTS to another drive"
        try:
            self.paid.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.paid) as file:
                file.write(bytes(self.answer_bytes))
        except OSError as error:
            raise ServiceError(
                f"Nothing is sent, because {self.paid} cannot hold an answer ({error.strerror}):"
                f" {help_text}."
            ) from None
        needed, free = count * self.answer_bytes, shutil.disk_usage(self.paid).free
        if free < needed:
            raise ServiceError(
                f"The {self.things} may take {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are"
                f" free: {help_text}."
            )

    def plan(self) -> str:
        """The number of requests to send and their expected cost, in a few sentences."""
        ledger, total = self.ledger, len(self.orders)
        text = (
            f"{total} {self.things} in all; {total - self.open} already {self.elsewhere}."
            f" {counted(self.open, 'request')} to send."
        )
        unanswered = [row for row in ledger.rows.values() if row["status"] == "unknown"]
        if unanswered:
            usd = sum(row["cost_usd"] or 0 for row in unanswered)
            text += (
                f" {counted(len(unanswered), 'earlier attempt has', 'earlier attempts have')} no"
                f" answer on record and may have been billed: {usd:.4f} USD are counted for them."
            )
        if self.open:
            each = self.most_expensive()
            text += (
                f" Estimated {each.usd * self.open:.4f} USD ({each.basis}). Spent so far"
                f" {ledger.spent_usd:.4f} of a budget of {self.budget_usd:g} USD."
            )
            if ledger.spent_usd + each.usd * self.open > self.budget_usd:
                text += (
                    " By this estimate the budget does not cover all of them; the stage stops"
                    " before it exceeds the budget."
                )
        return text
