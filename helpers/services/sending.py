"""Sends many requests: as many in parallel as the service allows, within the budget, and without
paying twice.

Before a request is sent its line is in ledger.csv; its answer is on disk before the line is
settled. So a kill at any moment loses at most the answers that were on their way, and those stay in
the ledger as perhaps billed.
"""

import asyncio
import contextlib
import heapq
import random
import re
import time
from collections import Counter, defaultdict

from helpers.plurals import counted
from helpers.services import budget, connection, retry_policy
from helpers.services.connection import ServiceError
from helpers.services.work import Work

FAILURES_IN_A_ROW = 5
# When this many different groups have failed alike in a row, the groups are not to blame. The first
# number holds if no answer came or each failure is paid for, the second if others were answered.
FAILED_ALIKE, FAILED_ALIKE_LATER = 3, 10
PAID_FOR_NOTHING = 2  # new requests after complete but useless answers
ABOUT_THE_PROMPT = {400, 413, 422, 451}
AGAIN = "Run the stage again to continue."
SPACE = "Free some space, then run the stage again."


async def serve(work: Work) -> None:
    """Request everything that `work` still needs. Raises ServiceError if something is missing after
    every open request has been settled.
    """
    sender = Sender(work)
    work.check_space()
    async with work.service.client() as client:
        await sender.serve(client)
    with contextlib.suppress(OSError):  # with a full disk, the error says what stopped the run
        await work.ledger.save()
    sender.check_complete()


class Sender:
    """One loop that starts requests, waits until one ends, and decides what to do next.

    `work` says what to send, what it costs and what comes of it.
    """

    def __init__(self, work: Work):
        self.work, self.limits = work, work.run.parameters
        self.chance = random.Random(self.limits.seed)
        self.flow = retry_policy.InFlight(self.limits.in_flight)
        self.queue = [(0.0, number, order) for number, order in enumerate(work.wanted)]
        self.few = len({order.group for order in work.wanted}) < FAILED_ALIKE
        self.failures: Counter = Counter()
        tries, ask_again = self.limits.tries, self.limits.ask_again
        # Failed attempts of each kind before an order is given up.
        self.most = {"retry": tries - 1, "again": ask_again, "rejected": 1, "empty": 1}
        self.most["unusable"] = min(PAID_FOR_NOTHING, ask_again)
        self.alike: dict[tuple[str, str], set] = defaultdict(set)
        self.settled: set[str] = set()
        self.stopped = self.remedy = ""
        self.last = retry_policy.Verdict("done")
        self.silent, self.came, self.paused_until = 0, 0, 0.0
        self.came_before: dict[str, int] = {}  # order -> answers before its first rejection
        self.last_answer = time.monotonic()
        self.each = self.unforeseen = None

    def check_complete(self) -> None:
        """Raises ServiceError when something is missing, with the reason and what to do."""
        missing = [o for o in self.work.wanted if o.image_id not in self.settled]
        if not missing:
            return
        orders, rows = self.work.orders, self.work.ledger.rows.values()
        lost = sum(row["status"] in ("unknown", "sent") for row in rows)
        some = counted(lost, "attempt has", "attempts have")
        perhaps = f" {some} no answer and may have been billed." if lost else ""
        raise ServiceError(
            f"{len(missing)} of {len(orders)} {self.work.things}"
            f" {'is' if len(missing) == 1 else 'are'} missing ({len(orders) - len(missing)} safe):"
            f" {self.stopped or self.last.message}.{perhaps}"
            f" {self.remedy or self.work.left.get(self.last.action, AGAIN)}"
        )

    def stop(self, why: str, remedy: str = AGAIN) -> None:
        """Start nothing more; the first reason counts."""
        if not self.stopped:
            self.stopped, self.remedy = why, remedy

    async def serve(self, client):
        """Send requests until all orders are served or the run must stop."""
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
                self.work.run.say(
                    f"Interrupted: waiting for {counted(len(running), 'answer')} that may be"
                    " billed; interrupt again to abandon them."
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
        """Start the requests that are due, as far as the service allows and the budget
        covers them.
        """
        work = self.work
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
                return  # requests in progress may still succeed
            _, number, order = self.queue[0]
            rows, spent = work.ledger.rows, work.ledger.spent_usd
            self.each = self.each or work.most_expensive()
            under_way = [rows[request_id]["cost_usd"] for _, _, request_id in running.values()]
            reserve = budget.affordable(self.each, work.budget_usd - spent, under_way)
            if reserve is None:
                if not running:
                    self.stop(
                        f"the budget of {work.budget_usd:g} USD does not cover another"
                        f" {work.things[:-1]} ({spent:.4f} USD spent or set aside)",
                        "Raise budget_usd to continue.",
                    )
                return
            heapq.heappop(self.queue)
            request_id = work.begin(order, reserve)
            task = asyncio.create_task(attempt(client, work, order, request_id))
            running[task] = (number, order, request_id)

    def _failed_alike(self) -> tuple[str, str] | None:
        """The common action and message if several different groups failed alike in a row."""
        for (action, words), failed in self.alike.items():
            if self.work.leaves_out and action != "rejected":
                continue
            later = self.came and action == "rejected"
            if len(failed) >= (FAILED_ALIKE_LATER if later else FAILED_ALIKE):
                return action, words
        return None

    def _stop_alike(self, action: str, words: str):
        remedy = self.work.unlike
        if action == "rejected":
            named = [
                hint for name, hint in self.work.fields.items() if re.search(rf"\b{name}\b", words)
            ]
            if re.match(r"3\d\d|404|405", words):
                named.append("set base_url to the address of the API, such as https://…/v1")
            remedy = f"What may help: {(named or ['correct what the message names'])[0]}."
        self.stop(f"several different {self.work.groups} failed in the same way ({words})", remedy)

    def _due(self) -> float:
        return max(self.paused_until, self.queue[0][0])

    def _until_next(self, running) -> float:
        """Seconds to sleep unless a request ends before: until the next order is due, at most until
        the next line of progress.
        """
        if not self.queue or self.stopped or len(running) >= self.flow.allowed:
            return 5.0
        due = self._due() - time.monotonic()
        # It is due but not started: the budget waits for requests in progress.
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

    def _again(self, number, order, request_id, verdict, others: int):
        """Ask for an order again later, or give it up after its last attempt. Stop the run where
        waiting is useless.
        """
        action, name, now = verdict.action, order.image_id, time.monotonic()
        self.failures[action, name] += 1
        failed = self.failures[action, name]
        due = now + retry_policy.wait_seconds(failed - 1, verdict.retry_after, self.chance)
        since = self.last_answer if action == "throttled" else now
        too_long = due - since > self.limits.patience_seconds
        given_up = too_long if action == "throttled" else failed > self.most[action]
        if given_up:
            self.last = verdict
        else:
            heapq.heappush(self.queue, (due, number, order))
        settled = given_up and self._settled_without(order, request_id, verdict)
        if action in ("rejected", "empty", "unusable") and not settled:
            self._note_alike(order, verdict, due)
        elif action in ("throttled", "retry") and not others:
            # Nothing gets through at all, so the other orders would fail too.
            silent = self.silent // self.flow.most
            self.paused_until = max(due, now + retry_policy.wait_seconds(silent, 0.0, self.chance))
        if too_long:
            self.stop(
                f"the service asks to wait longer than {self.limits.patience_seconds:g} s"
                f" ({verdict.message})"
            )
        if self.silent >= FAILURES_IN_A_ROW * self.limits.tries:
            self.stop(f"{self.silent} attempts in a row failed, the last with: {verdict.message}")

    def _settled_without(self, order, request_id, verdict) -> bool:
        """Whether an order that was given up needs no answer: the service rejects only this group
        of orders, or the stage leaves it out.
        """
        same = {order.image_id}
        if verdict.action == "rejected" and self._others_get_through(order.image_id, verdict):
            self.work.ledger.settle(request_id, "refused")
            same |= {o.image_id for _, _, o in self.queue if o.group == order.group}
            self.queue = [item for item in self.queue if item[2].image_id not in same]
            heapq.heapify(self.queue)
        elif not self.work.leave_out(order, request_id, verdict):
            return False
        self.settled |= same
        return True

    def _note_alike(self, order, verdict, due: float):
        """Note a failure that other orders may share. The others of its group wait until it has
        been tried again (`due`).
        """
        # Apart from the status, words with digits are details of the single request.
        words = re.sub(r"(?<=\s)\S*\d\S*", "…", verdict.message)
        self.alike[verdict.action, words].add(order.image_id if self.few else order.group)
        self.came_before.setdefault(order.image_id, self.came)
        if not self.few:
            group = order.group
            self.queue = [(due if o.group == group else when, n, o) for when, n, o in self.queue]
            heapq.heapify(self.queue)

    def _others_get_through(self, name: str, verdict) -> bool:
        if self.came > self.came_before.get(name, self.came):
            return True
        rows = self.work.ledger.rows.values()
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
            return retry_policy.Verdict("stop", said, remedy=SPACE)
        self.unforeseen = self.unforeseen or error
        return retry_policy.Verdict("stop", f"an unexpected error ({error!r})")

    def _say(self, seconds):
        got, total = len(self.settled), len(self.work.wanted)
        without = "refused or unusable" if self.work.leaves_out else "refused"
        lacking = f", {got - self.came} {without}" if got > self.came else ""
        left = f", {self.flow.allowed} in flight" if got < total else ""
        if got and got < total:
            left += f", about {seconds / got * (total - got):.0f} s left"
        self.work.run.say(
            f"{self.work.doing}: {self.came} of {total} {self.work.things}{lacking},"
            f" {self.work.ledger.settled_usd:.4f} USD so far{left}."
        )


async def attempt(client, work, order, request_id: str) -> retry_policy.Verdict:
    """Carry out one request, from its ledger line to its settled line. Errors of the service or the
    network are not raised.
    """
    ledger, began = work.ledger, time.monotonic()
    await ledger.save()
    try:
        content, headers = await work.send(client, order, request_id)
        seconds = time.monotonic() - began
        verdict = await _keep(work, order, request_id, content, headers, seconds)
    except connection.Failed as error:
        verdict = error.verdict
        settled = {"seconds": time.monotonic() - began, "error": str(error)}
        if error.billed:
            ledger.settle(request_id, "unknown", **settled)
        else:
            status = "refused" if verdict.action == "refused" else "failed"
            ledger.settle(request_id, status, cost_usd=0.0, **settled)
    await ledger.save()
    return verdict


async def _keep(work, *answer) -> retry_policy.Verdict:
    """Keep a paid answer. If it cannot be written, it waits in memory for space on the disk, as
    long as `patience_seconds`.
    """
    until, said = time.monotonic() + work.run.parameters.patience_seconds, False
    while True:
        try:
            return await work.keep(*answer)
        except OSError as error:
            if time.monotonic() > until:
                raise
            if not said:
                why = error.strerror or error
                work.run.say(f"A paid answer cannot be written ({why}): free some space.")
            said = True
            await asyncio.sleep(1)
