"""What a stage needs from a paid service: its orders, their outcomes, and the cost of the rest.

sending.py sends it.
"""

from helpers.plurals import counted
from helpers.runner import runs
from helpers.services.connection import Connection
from helpers.services.ledger import Ledger


class Work:
    """The orders of a run and the service that answers them. Orders have an image_id and a group;
    those of one group fail alike.

    A stage defines the orders still `wanted` (`rest` recomputes them), the number still `open`, and
    the expected cost of the most expensive one (`most_expensive`). It enters a request in its
    `ledger` (`begin`), sends it (`send`), keeps the answer (`keep`), and settles the attempts that
    a killed process left open (`settle_open`). Its words for messages are `things`, `groups`,
    `doing`, `left`, `fields`, `unlike` and `elsewhere`. If `leaves_out`, an order may stay without
    an answer, and useless answers stop nothing.
    """

    leaves_out = False

    def __init__(self, run: runs.Run, service: Connection, orders: list):
        self.run, self.service, self.orders = run, service, orders
        self.by_id = {order.image_id: order for order in orders}
        self.budget_usd, self.paid = run.parameters.budget_usd, run.folder / "paid"
        self.ledger = Ledger(run.folder / "ledger.csv")

    def resume(self) -> None:
        """Settle the attempts that a killed process left open, and recompute the missing orders."""
        rows = () if self.run.finished else self.ledger.rows.values()
        left_open = [row for row in rows if row["status"] == "sent"]
        for row in left_open:
            self.settle_open(row)
        if left_open:
            self.ledger.save_now()
        self.rest()

    def leave_out(self, order, request_id: str, verdict) -> bool:
        """Whether this order, which has used up its attempts, is settled without an answer."""
        return False

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
