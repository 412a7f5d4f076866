"""The ledger of paid requests: one line per attempt, written before the request is sent and updated
after its answer.
"""

import asyncio
import csv
import io
import math
import uuid
from collections import Counter
from pathlib import Path

import pandas as pd

from helpers import table_columns, tables
from helpers.files import utc_now, write_atomically
from helpers.services import secrets

OPEN = ("sent", "submitted")  # no answer is recorded yet; submitted: waiting in a batch
STATUSES = {*OPEN, "ok", "refused", "unusable", "failed", "unknown"}
LOST = "no answer is on record: may have been billed"


class Ledger:
    """ledger.csv in memory and on disk, with a copy in paid/.

    While an attempt is open or unknown its cost is the amount set aside for it.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.copy = self.path.parent / "paid" / self.path.name
        found = _read(self.path)
        # The copy is written after the ledger: a line that only the copy has was lost.
        self.rows = _read(self.copy) | found
        self._loop = self._lock = None
        self._changes, self._saved = len(self.rows) - len(found), 0
        # begin and settle update these: a sum over all rows for every request would be slow in a
        # long ledger.
        self._attempts = Counter(row["image_id"] for row in self.rows.values())
        self._spent = math.fsum(row["cost_usd"] or 0.0 for row in self.rows.values())
        self._unanswered = {name for name, row in self.rows.items() if _unanswered(row)}

    @property
    def spent_usd(self) -> float:
        """The amount charged, set aside, or perhaps charged so far. The budget is compared
        with it.
        """
        return self._spent

    @property
    def settled_usd(self) -> float:
        """`spent_usd` without the amounts set aside for attempts in progress."""
        return sum(
            row["cost_usd"] or 0.0 for row in self.rows.values() if row["status"] not in OPEN
        )

    def frame(self) -> pd.DataFrame:
        """The ledger as its declared table, in the order of sending."""
        return (
            tables.check(pd.DataFrame(list(self.rows.values())), "ledger")
            if self.rows
            else tables.empty("ledger")
        )

    def begin(self, order, reserve_usd: float, status: str = "sent", **request) -> str:
        """Enter an attempt that is about to be sent, with the model, size and quality requested
        (`request`); returns its request id.

        Not on disk before `save`.
        """
        request_id = f"req-{uuid.uuid4().hex}"
        self._attempts[order.image_id] += 1
        self._spent += reserve_usd
        self.rows[request_id] = {
            "request_id": request_id,
            "image_id": order.image_id,
            "prompt_id": order.prompt_id,
            "prompt": order.prompt,
            **request,
            "attempt": self._attempts[order.image_id],
            "requested_utc": utc_now(),
            **dict.fromkeys(("seconds", "input_tokens", "output_tokens", "error")),
            "cost_usd": reserve_usd,
            "status": status,
        }
        self._changes += 1
        return request_id

    def restore(self, begun: str, request_id: str, **known) -> None:
        """Give an attempt that has just begun the id, and what else is known, of one whose line
        was lost.
        """
        self.rows[request_id] = self.rows.pop(begun) | {"request_id": request_id, **known}

    def settle(self, request_id: str, status: str, **answer) -> None:
        """Enter the outcome of an attempt.

        Fields that are not given stay as they are: an unknown cost stays the amount set aside.
        """
        row = self.rows[request_id]
        before = row["cost_usd"] or 0.0
        row.update(status=status, **answer)
        row["error"] = secrets.clean(row["error"]) if row["error"] else None
        self._spent += (row["cost_usd"] or 0.0) - before
        self._unanswered.discard(request_id)
        if _unanswered(row):
            self._unanswered.add(request_id)
        self._changes += 1

    def unanswered(self) -> list[dict]:
        """The attempts without a recorded answer or token count. They were perhaps billed; their
        cost is the amount set aside.
        """
        return [self.rows[name] for name in self._unanswered]

    async def save(self) -> None:
        """Return once everything entered so far is on disk; attempts at the same time share one
        write.
        """
        wanted, loop = self._changes, asyncio.get_running_loop()
        if loop is not self._loop:  # a lock belongs to one event loop, a ledger to several
            self._loop, self._lock = loop, asyncio.Lock()
        async with self._lock:
            if self._saved >= wanted:
                return
            changes, content = self._changes, self._content()
            await asyncio.to_thread(self._write, content)
            self._saved = changes

    @property
    def saved(self) -> bool:
        """Whether everything entered so far is on disk."""
        return self._saved == self._changes

    def save_now(self) -> None:
        """`save` outside of an event loop."""
        self._write(self._content())
        self._saved = self._changes

    def _write(self, content: bytes) -> None:
        for path in (self.path, self.copy):
            write_atomically(path, content)

    def _content(self) -> bytes:
        buffer = io.StringIO(newline="")
        names = table_columns.column_names("ledger")
        writer = csv.DictWriter(buffer, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        return buffer.getvalue().encode()


def _read(path: Path) -> dict[str, dict]:
    """The attempts in a ledger by request id, {} if there is no such file."""
    if not path.exists():
        return {}
    try:
        found = tables.read(path)
        if wrong := set(found["status"]) - STATUSES:
            raise tables.TableError(f"{path}: '{wrong.pop()}' is no status.")
    except tables.TableError as error:
        raise tables.TableError(
            f"{error} The ledger is damaged: restore it from a backup, or move it away; then it is"
            " restored from its other copy (ledger.csv and paid/ledger.csv are the same)."
        ) from None
    rows = found.astype(object).where(found.notna(), None).to_dict("records")
    return {row["request_id"]: row for row in rows}


def _unanswered(row: dict) -> bool:
    return row["status"] == "unknown" and row["output_tokens"] is None
