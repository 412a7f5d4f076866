"""Sending the orders: so many requests in flight as the service allows, within the budget, nothing
ever paid twice.

What is on disk at any moment: before a request is sent its line in ledger.csv; after its answer
paid/<image_id>.json (what was asked and answered), then paid/<image_id>.<suffix> byte for byte as
received, then the settled line. So a kill at any moment loses at most the answers that were on
their way, and those stay in the ledger as perhaps billed.
"""

import asyncio
import heapq
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path

from helpers.generate_openai import attempts, paid_images
from helpers.generate_openai.image_service import BuyingError, Service
from helpers.generate_openai.prompts import Order
from helpers.runner import runs
from helpers.services import ledger as ledgers
from helpers.services import prices, retry_policy

FAILURES_IN_A_ROW = 5


class Purchase:
    """The orders of one run against one service: what is on disk, what is still wanted, what it
    costs.
    """

    def __init__(
        self,
        run: runs.Run,
        asked: Service,
        orders: list[Order],
        budget_usd: float,
        batch: bool = False,
    ):
        self.run, self.asked, self.orders, self.budget_usd, self.batch = (
            run,
            asked,
            orders,
            budget_usd,
            batch,
        )
        self.by_id = {order.image_id: order for order in orders}
        self.paid = run.folder / "paid"
        self.ledger = ledgers.Ledger(run.folder / "ledger.csv")
        if not run.finished:
            reconcile(self.ledger, self.paid)
        asked_alike = [
            row
            for row in self.ledger.rows.values()
            if (row["model"], row["size"], row["quality"])
            == (asked.model, asked.size, asked.quality)
        ]
        self.seen_tokens = [
            int(row["output_tokens"]) for row in asked_alike if row["output_tokens"]
        ]
        self.rest()

    def rest(self) -> None:
        """Work out anew what is still wanted: not on disk, not refused, not waiting in a batch."""
        settled = {
            row["image_id"]
            for row in self.ledger.rows.values()
            if row["status"] in ("refused", "submitted")
        }
        self.wanted = [
            order
            for order in self.orders
            if order.image_id not in settled and not paid_images.on_disk(self.paid, order.image_id)
        ]

    def estimate(self, prompt: str) -> prices.Estimate:
        """Expected cost of one image, and what is set aside for it."""
        return prices.estimate(
            self.asked.price,
            prompt,
            self.asked.size,
            self.asked.quality,
            self.seen_tokens,
            self.batch,
        )

    def plan(self) -> str:
        """What will be asked for and what it is expected to cost, in a few sentences."""
        there = len(self.orders) - len(self.wanted)
        text = (
            f"{len(self.orders)} images ordered, {there} on disk, refused or in a batch:"
            f" {len(self.wanted)} requests to send."
        )
        unanswered = [row for row in self.ledger.rows.values() if row["status"] == "unknown"]
        if unanswered:
            usd = sum(row["cost_usd"] or 0 for row in unanswered)
            text += (
                f" {len(unanswered)} earlier attempts have no answer on record and may have been"
                f" billed: {usd:.4f} USD are counted for them."
            )
        if self.wanted:
            each = self.estimate(max((order.prompt for order in self.wanted), key=len))
            total = each.usd * len(self.wanted)
            text += (
                f" Estimated {total:.4f} USD ({each.basis}). Spent so far"
                f" {self.ledger.spent_usd:.4f} of a budget of {self.budget_usd:g} USD."
            )
            if self.ledger.spent_usd + total > self.budget_usd:
                text += " The budget will not reach for all of them: buying stops where it ends."
        return text


def reconcile(ledger: ledgers.Ledger, paid: Path) -> None:
    """Settle the attempts that a killed process left open: from what it put on disk, else as
    perhaps billed.
    """
    for half_written in [*ledger.path.parent.glob(".*.part"), *paid.rglob(".*.part")]:
        half_written.unlink()
    left_open = [row for row in ledger.rows.values() if row["status"] == "sent"]
    for row in left_open:
        sidecar = paid / f"{row['image_id']}.json"
        record = json.loads(sidecar.read_text()) if sidecar.is_file() else {}
        if record.get("request_id") != row["request_id"]:
            ledger.settle(row["request_id"], "unknown", error=ledgers.LOST)
        elif paid_images.on_disk(paid, row["image_id"]):
            ledger.settle(row["request_id"], "ok", **record["settled"])
        else:
            ledger.settle(
                row["request_id"],
                "unknown",
                **{
                    **record["settled"],
                    "error": "answered and billed, but lost before it was on disk",
                },
            )
    if left_open:
        ledger.save_now()


async def buy(
    purchase: Purchase,
    in_flight: int = 8,
    tries: int = 8,
    ask_again: int = 6,
    patience_seconds: float = 900.0,
    seed: int = 0,
) -> None:
    """Buy everything that is still wanted.

    `tries` bounds attempts that failed before an answer, `ask_again` those that were perhaps billed
    and lost, and `patience_seconds` the waiting under rate limits while nothing gets through.
    Raises BuyingError, after every open request has been settled, when images remain to be bought:
    the budget or quota is used up, a request is wrong, too much failed.
    """
    if purchase.run.finished:
        return
    in_batches = sum(row["status"] == "submitted" for row in purchase.ledger.rows.values())
    if in_batches:
        raise BuyingError(
            f"{in_batches} images are waiting in a batch: set mode to batch and run again to"
            " collect them first."
        )
    if not purchase.wanted:
        return
    purchase.paid.mkdir(parents=True, exist_ok=True)
    needed = len(purchase.wanted) * 3 * prices.area(purchase.asked.size)
    free = shutil.disk_usage(purchase.paid).free
    if free < needed:
        raise BuyingError(
            f"The images may take {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free: free"
            " space or set OUTPUTS to another drive."
        )
    desk = _Desk(purchase, in_flight, tries, ask_again, patience_seconds, random.Random(seed))
    async with purchase.asked.client() as client:
        await desk.serve(client)
    if not desk.stopped:
        await purchase.ledger.save()
    remaining = [order for order in purchase.wanted if order.image_id not in desk.settled]
    if remaining:
        why = desk.stopped or desk.last_failure
        there = len(purchase.orders) - len(remaining)
        lost = sum(row["status"] in ("unknown", "sent") for row in purchase.ledger.rows.values())
        perhaps = f" {lost} attempts have no answer and may have been billed." if lost else ""
        raise BuyingError(
            f"{len(remaining)} of {len(purchase.orders)} images are missing, {there} are safe:"
            f" {why}.{perhaps} Run the stage again to go on."
        )


class _Desk:
    """One loop that starts requests, waits for any to end, and decides what to do next; no request
    decides for itself.
    """

    def __init__(self, purchase, in_flight, tries, ask_again, patience_seconds, chance):
        self.purchase, self.tries, self.ask_again, self.patience, self.chance = (
            purchase,
            tries,
            ask_again,
            patience_seconds,
            chance,
        )
        self.flow = retry_policy.InFlight(in_flight)
        self.queue = [(0.0, number, order) for number, order in enumerate(purchase.wanted)]
        self.longest = max((order.prompt for order in purchase.wanted), key=len)
        self.failures = {action: Counter() for action in ("throttled", "retry", "again")}
        self.last_answer = time.monotonic()
        self.settled: set[str] = set()
        self.stopped = self.last_failure = ""
        self.silent, self.paused_until = 0, 0.0
        self.estimate = self.unforeseen = None

    async def serve(self, client):
        running: dict[asyncio.Task, tuple] = {}
        began = said = time.monotonic()
        try:
            while self.queue or running:
                self._start(client, running)
                if not running and self.stopped:
                    break
                wait = self._until_next(running)
                if running:
                    done, _ = await asyncio.wait(
                        running, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        self._decide(running.pop(task), self._result(task), len(running))
                else:
                    await asyncio.sleep(wait)
                if time.monotonic() - said > 5:
                    said = time.monotonic()
                    self._say(said - began)
        except asyncio.CancelledError:
            if running:
                self.purchase.run.say(
                    f"Interrupted: waiting for {len(running)} answers that may be billed; interrupt"
                    " again to give them up."
                )
                await asyncio.wait(running)
            raise
        finally:
            for task in running:
                task.cancel()
        if self.unforeseen:
            raise self.unforeseen
        self._say(time.monotonic() - began)

    def _start(self, client, running):
        """Start what is due, what the service allows and what the budget covers."""
        while (
            self.queue
            and not self.stopped
            and len(running) < self.flow.allowed
            and self._due() <= time.monotonic()
        ):
            _, number, order = self.queue[0]
            reserve = self._affordable([request_id for _, _, request_id in running.values()])
            if reserve is None:
                if not running:
                    spent = self.purchase.ledger.spent_usd
                    self.stopped = (
                        f"the budget of {self.purchase.budget_usd:g} USD does not cover another"
                        f" image ({spent:.4f} USD spent or set aside)"
                    )
                return
            heapq.heappop(self.queue)
            asked = self.purchase.asked
            request_id = self.purchase.ledger.begin(
                order, asked.model, asked.size, asked.quality, reserve
            )
            running[
                asyncio.create_task(attempts.attempt(client, self.purchase, order, request_id))
            ] = (number, order, request_id)

    def _affordable(self, under_way: list[str]) -> float | None:
        """What to set aside for an image, or None when the budget cannot cover it now, beside the
        requests under way.
        """
        if self.estimate is None:
            self.estimate = self.purchase.estimate(self.longest)
        each, rows = self.estimate, self.purchase.ledger.rows
        left = self.purchase.budget_usd - self.purchase.ledger.spent_usd + 1e-9
        if under_way:
            # Those under way were set aside before we knew what we know now, and may cost as much
            # as this one.
            more = sum(
                max(0.0, each.beside_usd - rows[request_id]["cost_usd"]) for request_id in under_way
            )
            return each.reserve_usd if more + each.beside_usd <= left else None
        if each.reserve_usd <= left:
            return each.reserve_usd
        # The very first image may use the budget to its end, alone: its answer tells what the
        # others will cost.
        return left if not each.seen and each.usd <= left else None

    def _due(self) -> float:
        return max(self.paused_until, self.queue[0][0])

    def _until_next(self, running) -> float:
        """Seconds to sleep unless a request ends before: until the next order is due, at most until
        the next line of progress.
        """
        if not self.queue or self.stopped or len(running) >= self.flow.allowed:
            return 5.0
        due = self._due() - time.monotonic()
        # Due and yet not started: the budget waits for what is under way.
        return min(5.0, due) if due > 0 else 5.0 if running else 0.0

    def _decide(self, started, outcome: attempts.Outcome, others_running: int):
        number, order, _ = started
        if outcome.action == "throttled":
            self.flow.throttled(others_running)
        else:
            self.flow.answered()
            self.last_answer = time.monotonic()
        self.silent = self.silent + 1 if outcome.action == "retry" else 0
        if outcome.action in ("done", "refused"):
            self.settled.add(order.image_id)
            self.estimate = None if outcome.action == "done" else self.estimate
        elif outcome.action == "stop":
            self.stopped = self.stopped or outcome.message
        else:
            self._again(number, order, outcome, others_running)

    def _again(self, number, order, outcome, others_running):
        """Put an order back into the queue, later, unless it has had its share."""
        self.last_failure = outcome.message
        now, name = time.monotonic(), order.image_id
        self.failures[outcome.action][name] += 1
        failed = self.failures[outcome.action][name]
        wait = retry_policy.wait_seconds(failed - 1, outcome.retry_after, self.chance)
        too_long = (
            now + wait - (self.last_answer if outcome.action == "throttled" else now)
            > self.patience
        )
        if outcome.action == "throttled":
            given_up = too_long
        else:
            given_up = (
                failed > self.ask_again if outcome.action == "again" else failed >= self.tries
            )
        if not others_running and outcome.action != "again":
            # Nothing gets through at all: the other orders would only run into the same wall.
            self.paused_until = now + max(
                wait, retry_policy.wait_seconds(self.silent // self.flow.most, 0.0, self.chance)
            )
        if not given_up:
            heapq.heappush(self.queue, (now + wait, number, order))
        if too_long:
            self.stopped = (
                self.stopped
                or f"the service asks to wait longer than {self.patience:g} s ({outcome.message})"
            )
        if self.silent >= FAILURES_IN_A_ROW * self.tries:
            self.stopped = (
                self.stopped
                or f"{self.silent} attempts in a row failed, the last with: {outcome.message}"
            )

    def _result(self, task) -> attempts.Outcome:
        """What came of an attempt; a disk that takes no more, or an error of our own, stops the run
        once the others have ended.
        """
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, OSError):
            return attempts.Outcome(
                "stop", f"the run folder cannot be written ({error.strerror or error})"
            )
        self.unforeseen = self.unforeseen or error
        return attempts.Outcome("stop", f"an unforeseen error ({error!r})")

    def _say(self, seconds):
        got, total = len(self.settled), len(self.purchase.wanted)
        left = f", about {seconds / got * (total - got):.0f} s left" if got and got < total else ""
        self.purchase.run.say(
            f"Buying: {got} of {total} images, {self.purchase.ledger.settled_usd:.4f} USD so far,"
            f" {self.flow.allowed} in flight{left}."
        )
