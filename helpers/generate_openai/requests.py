"""Sending the requests: as many in parallel as the service allows, within the budget, and without
paying twice.

What is on disk at any moment: before a request is sent its line in ledger.csv; after its answer
paid/<image_id>.json (request and answer), then paid/<image_id>.<suffix> byte for byte as
received, then the settled line. So a kill at any moment loses at most the answers that were on
their way, and those stay in the ledger as perhaps billed.
"""

import asyncio
import contextlib
import heapq
import json
import random
import re
import shutil
import time
from collections import Counter, defaultdict

from helpers.generate_openai import answers, paid_images
from helpers.generate_openai import service as services
from helpers.generate_openai.prompts import Order
from helpers.generate_openai.service import GenerationError, Service
from helpers.runner import runs
from helpers.services import budget, prices, retry_policy
from helpers.services.ledger import LOST, Ledger

FAILURES_IN_A_ROW = 5
# Different prompts that fail alike, one after the other, before it cannot be their own fault: where
# nothing came or each is paid for, and where others came.
FAILED_ALIKE, FAILED_ALIKE_LATER = 3, 10
PAID_FOR_NOTHING = 2  # new requests for an image whose answers came whole and are no image
ABOUT_THE_PROMPT = {400, 413, 422, 451}
AGAIN = "Run the stage again to continue."
# What to change when a service does not take a field of the request.
FIELDS = {
    "quality": "set quality to auto, then it is not sent",
    "size": "set size to one that it takes, or to auto",
    "response_format": "set request_shape to gpt-image, then it is not sent",
    "moderation": "set moderation to auto, then it is not sent",
    "model": "set model to a name that it lists",
}
LEFT = {
    "rejected": "Reword or remove that prompt, or correct the parameter that is named.",
    "unusable": "The answers are kept in paid/unusable.",
}


class Generation:
    """The orders of one run and the service that gets them: what is on disk, what is still wanted,
    what it costs.
    """

    def __init__(self, run: runs.Run, service: Service, orders: list[Order]):
        self.run, self.service, self.orders = run, service, orders
        self.budget_usd = run.parameters.budget_usd
        self.batch = run.parameters.mode == "batch"
        self.by_id = {order.image_id: order for order in orders}
        self.paid = run.folder / "paid"
        self.ledger = Ledger(run.folder / "ledger.csv")
        self.seen_tokens = [
            row["output_tokens"] * 1024**2 / prices.area(row["size"] or "auto")
            for row in self.ledger.rows.values()
            if self._alike(row) and row["output_tokens"]
        ]
        if not run.finished:
            self._reconcile()
        self.rest()

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

    def on_disk(self, order: Order):
        """The image as received, or None."""
        return paid_images.on_disk(self.paid, order.image_id)

    def begin(self, order: Order, reserve_usd: float, status: str = "sent") -> str:
        """Put a request down in the ledger as it is sent; returns its id."""
        service = self.service
        sent = {"model": service.parameters.model, "size": service.size(order)}
        return self.ledger.begin(order, reserve_usd, status, **sent, quality=service.quality)

    def estimate(self, order: Order) -> budget.Estimate:
        """Expected cost of one image, and what is set aside for it."""
        return self._estimate(order.prompt, order.size, self.batch)

    def _estimate(self, prompt: str, size: str, batch: bool) -> budget.Estimate:
        service = self.service
        return budget.estimate(
            service.price, prompt, size, service.quality or "auto", self.seen_tokens, batch
        )

    def dearest(self) -> budget.Estimate:
        """The estimate for the wanted image that may cost most."""
        area = max((order.size for order in self.wanted), key=prices.area)
        prompt = max((order.prompt for order in self.wanted), key=len)
        return self._estimate(prompt, area, self.batch)

    def learn(self, size: str, output_tokens: int | None) -> None:
        """Note the tokens of an answer. From then on the known cost of an image is reserved for
        attempts without an answer.
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

    def plan(self) -> str:
        """The number of requests to come and their expected cost, in a few sentences."""
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
            each = self.dearest()
            total = each.usd * len(self.wanted)
            text += (
                f" Estimated {total:.4f} USD ({each.basis}). Spent so far"
                f" {self.ledger.spent_usd:.4f} of a budget of {self.budget_usd:g} USD."
            )
            if self.ledger.spent_usd + total > self.budget_usd:
                text += " The budget does not cover all of them: the stage stops when it is spent."
        return text

    def _reconcile(self) -> None:
        """Settle the attempts that a killed process left open: from what it put on disk, else as
        perhaps billed.
        """
        for half_written in [*self.run.folder.glob(".*.part"), *self.paid.rglob(".*.part")]:
            half_written.unlink()
        left_open = [row for row in self.ledger.rows.values() if row["status"] == "sent"]
        for row in left_open:
            name, sidecar = row["request_id"], self.paid / f"{row['image_id']}.json"
            record = json.loads(sidecar.read_text()) if sidecar.is_file() else {}
            if record.get("request_id") != name:
                self.ledger.settle(name, "unknown", error=LOST)
            elif paid_images.on_disk(self.paid, row["image_id"]):
                self.ledger.settle(name, "ok", **record["settled"])
            else:
                lost = {"error": "answered and billed, but lost before it was on disk"}
                self.ledger.settle(name, "unknown", **record["settled"] | lost)
        self.learn("auto", None)
        if left_open:
            self.ledger.save_now()


async def generate(generation: Generation) -> None:
    """Ask for everything that is still wanted.

    `tries` bounds attempts that failed before an answer, `ask_again` those that were perhaps billed
    and lost, and `patience_seconds` the waiting under rate limits while nothing gets through.
    Raises GenerationError, after every open request has been settled, when images are still
    missing: the budget or quota is used up, a request is wrong, too much failed.
    """
    if generation.run.finished:
        return
    in_batches = sum(row["status"] == "submitted" for row in generation.ledger.rows.values())
    if in_batches:
        raise GenerationError(
            f"{in_batches} images are waiting in a batch: set mode to batch and run again to"
            " collect them first."
        )
    if await answers.read_again(generation):
        generation.rest()
    if generation.wanted:
        _check_space(generation)
        sender = _Sender(generation)
        async with generation.service.client() as client:
            await sender.serve(client)
        with contextlib.suppress(OSError):  # of a full disk it is said what stopped the run
            await generation.ledger.save()
        sender.check_complete()


def _check_space(generation: Generation) -> None:
    each, left = generation.dearest(), generation.budget_usd - generation.ledger.spent_usd
    count = len(generation.wanted)
    if each.usd:
        count = min(count, max(0, int(left / each.usd)))
    generation.paid.mkdir(parents=True, exist_ok=True)
    needed = count * 3 * max(prices.area(order.size) for order in generation.wanted)
    free = shutil.disk_usage(generation.paid).free
    if free < needed:
        raise GenerationError(
            f"The images may take {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free: free"
            " space or set OUTPUTS to another drive."
        )


class _Sender:
    """One loop that starts requests, waits until one ends, and alone decides what to do next."""

    def __init__(self, generation: Generation):
        self.generation, self.limits = generation, generation.run.parameters
        self.chance = random.Random(self.limits.seed)
        self.flow = retry_policy.InFlight(self.limits.in_flight)
        self.queue = [(0.0, number, order) for number, order in enumerate(generation.wanted)]
        self.few = len({order.prompt for order in generation.wanted}) < FAILED_ALIKE
        self.failures: Counter = Counter()
        self.alike: dict[tuple[str, str], set] = defaultdict(set)
        self.settled: set[str] = set()
        self.stopped = self.remedy = ""
        self.last = retry_policy.Verdict("done")
        self.silent, self.came, self.paused_until = 0, 0, 0.0
        self.came_before: dict[str, int] = {}  # its first rejection
        self.last_answer = time.monotonic()
        self.each = self.unforeseen = None

    def check_complete(self) -> None:
        """Raises GenerationError when images are missing, with the reason and what to do."""
        missing = [o for o in self.generation.wanted if o.image_id not in self.settled]
        if not missing:
            return
        orders, rows = self.generation.orders, self.generation.ledger.rows.values()
        lost = sum(row["status"] in ("unknown", "sent") for row in rows)
        perhaps = f" {lost} attempts have no answer and may have been billed." if lost else ""
        raise GenerationError(
            f"{len(missing)} of {len(orders)} images are missing, {len(orders) - len(missing)} are"
            f" safe: {self.stopped or self.last.message}.{perhaps}"
            f" {self.remedy or LEFT.get(self.last.action, AGAIN)}"
        )

    def stop(self, why: str, remedy: str = AGAIN) -> None:
        """Start nothing more; the first reason counts."""
        if not self.stopped:
            self.stopped, self.remedy = why, remedy

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
                        self._decide(*running.pop(task), self._result(task), len(running))
                else:
                    await asyncio.sleep(wait)
                if time.monotonic() - said > 5:
                    said = time.monotonic()
                    self._say(said - began)
        except asyncio.CancelledError:
            if running:
                self.generation.run.say(
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
        generation = self.generation
        while (
            self.queue
            and not self.stopped
            and len(running) < self.flow.allowed
            and self._due() <= time.monotonic()
        ):
            alike = self._failed_alike()
            if alike:
                if not running:
                    self._stop_alike(*alike)
                return  # what is under way may still show that others get through
            _, number, order = self.queue[0]
            rows, spent = generation.ledger.rows, generation.ledger.spent_usd
            self.each = self.each or generation.dearest()
            under_way = [rows[request_id]["cost_usd"] for _, _, request_id in running.values()]
            reserve = budget.affordable(self.each, generation.budget_usd - spent, under_way)
            if reserve is None:
                if not running:
                    self.stop(
                        f"the budget of {generation.budget_usd:g} USD does not cover another image"
                        f" ({spent:.4f} USD spent or set aside)",
                        "Raise budget_usd to continue.",
                    )
                return
            heapq.heappop(self.queue)
            request_id = generation.begin(order, reserve)
            task = asyncio.create_task(attempt(client, generation, order, request_id))
            running[task] = (number, order, request_id)

    def _failed_alike(self) -> tuple[str, str] | None:
        """Action and words of what several different prompts got one after the other."""
        for (action, words), failed in self.alike.items():
            later = self.came and action == "rejected"
            if len(failed) >= (FAILED_ALIKE_LATER if later else FAILED_ALIKE):
                return action, words
        return None

    def _stop_alike(self, action: str, words: str):
        remedy = "Is this an image service? Its answers are in paid/unusable."
        if action == "rejected":
            named = [hint for name, hint in FIELDS.items() if re.search(rf"\b{name}\b", words)]
            remedy = f"What may help: {(named or ['correct the parameter that is named'])[0]}."
        self.stop(f"several different prompts failed in the same way ({words})", remedy)

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

    def _decide(self, number, order, request_id, verdict: retry_policy.Verdict, others: int):
        action = verdict.action
        if action == "throttled":
            self.flow.throttled(others)
        else:
            self.flow.answered()
            self.last_answer = time.monotonic()
        self.silent = self.silent + 1 if action == "retry" else 0
        if action == "stop":
            self.stop(verdict.message, verdict.remedy or AGAIN)
        elif action in ("done", "refused"):
            self.settled.add(order.image_id)
        else:
            self._again(number, order, request_id, verdict, others)
        if action == "done":
            self.came, self.each = self.came + 1, None
            self.alike.clear()

    def _again(self, number, order, request_id, verdict, others):
        """Put an order back into the queue, later, unless it has had its share."""
        action, limits, self.last = verdict.action, self.limits, verdict
        now, name = time.monotonic(), order.image_id
        self.failures[action, name] += 1
        failed = self.failures[action, name]
        wait = retry_policy.wait_seconds(failed - 1, verdict.retry_after, self.chance)
        since = self.last_answer if action == "throttled" else now
        too_long = now + wait - since > limits.patience_seconds
        most = {"retry": limits.tries - 1, "rejected": 1, "empty": 1, "again": limits.ask_again}
        most |= {"unusable": min(PAID_FOR_NOTHING, limits.ask_again)}
        given_up = too_long if action == "throttled" else failed > most[action]
        if action == "rejected" and given_up and self._others_get_through(name, verdict):
            # It is this prompt alone that the service will not take.
            self.generation.ledger.settle(request_id, "refused")
            same = {o.image_id for _, _, o in self.queue if o.prompt == order.prompt}
            self.settled |= {name} | same
            self.queue = [item for item in self.queue if item[2].image_id not in same]
            heapq.heapify(self.queue)
        elif action in ("rejected", "empty", "unusable"):
            # But for the status, what has digits in it is a number of the request.
            words = re.sub(r"(?<=\s)\S*\d\S*", "…", verdict.message)
            self.alike[action, words].add(name if self.few else order.prompt)
            self.came_before.setdefault(name, self.came)
            if not self.few:
                self._after_all_others(order.prompt, now + wait)
        elif not others and action != "again":
            # Nothing gets through at all: the other orders would only run into the same wall.
            self.paused_until = now + max(
                wait, retry_policy.wait_seconds(self.silent // self.flow.most, 0.0, self.chance)
            )
        if not given_up:
            heapq.heappush(self.queue, (now + wait, number, order))
        if too_long:
            seconds = f"{limits.patience_seconds:g} s"
            self.stop(f"the service asks to wait longer than {seconds} ({verdict.message})")
        if self.silent >= FAILURES_IN_A_ROW * limits.tries:
            self.stop(f"{self.silent} attempts in a row failed, the last with: {verdict.message}")

    def _after_all_others(self, prompt: str, due: float):
        """Let the other images of a prompt wait until the failed one has been tried again."""
        self.queue = [(due if o.prompt == prompt else when, n, o) for when, n, o in self.queue]
        heapq.heapify(self.queue)

    def _others_get_through(self, name: str, verdict) -> bool:
        if self.came > self.came_before.get(name, self.came):
            return True
        rows = self.generation.ledger.rows.values()
        return verdict.status in ABOUT_THE_PROMPT and any(row["status"] == "ok" for row in rows)

    def _result(self, task) -> retry_policy.Verdict:
        """The result of an attempt; a full disk or a programming error stops the run once the
        others have ended.
        """
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, OSError):
            said = f"the run folder cannot be written ({error.strerror or error})"
            return retry_policy.Verdict("stop", said)
        self.unforeseen = self.unforeseen or error
        return retry_policy.Verdict("stop", f"an unforeseen error ({error!r})")

    def _say(self, seconds):
        got, total = len(self.settled), len(self.generation.wanted)
        left = f", about {seconds / got * (total - got):.0f} s left" if got and got < total else ""
        self.generation.run.say(
            f"Generating: {got} of {total} images, {self.generation.ledger.settled_usd:.4f} USD so"
            f" far, {self.flow.allowed} in flight{left}."
        )


async def attempt(
    client, generation: Generation, order: Order, request_id: str
) -> retry_policy.Verdict:
    """One request for one image from its ledger line to its settled line; raises for nothing that
    the service or the network does.
    """
    ledger, began = generation.ledger, time.monotonic()
    await ledger.save()
    try:
        body = generation.service.request(order)
        content, headers = await services.ask(client, body, request_id)
        seconds = time.monotonic() - began
        verdict = await answers.keep(generation, order, request_id, content, headers, seconds)
    except services.Failed as error:
        verdict = error.verdict
        settled = {"seconds": time.monotonic() - began, "error": str(error)}
        if error.billed:
            ledger.settle(request_id, "unknown", **settled)
        else:
            status = "refused" if verdict.action == "refused" else "failed"
            ledger.settle(request_id, status, cost_usd=0.0, **settled)
    await ledger.save()
    return verdict
