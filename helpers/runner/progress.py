"""Progress: a bar in a terminal or notebook, plain lines in a log."""

import os
import sys
import time

from helpers.runner import workers


def progress(items, label: str, total: int | None = None, every: float = 5.0):
    """Iterate with progress: a bar when interactive, else plain lines with the time left.

    The first line comes after `every` seconds. Each later line comes when the elapsed time has
    grown by a quarter, so a log has about thirty lines for an hour.
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if not os.environ.get("STUDY_BATCH") and ("ipykernel" in sys.modules or sys.stdout.isatty()):
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=label, total=total)
        return
    began = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if total and now - said >= max(every, (said - began) / 4):
            each = (now - began) / done
            # The first item also waited for models and workers to start, so it does not predict the
            # rate.
            rate = f", {1 / each:.3g} per second, {each * (total - done):.0f} s left"
            tasks = workers.tally()
            print(f"{label}: {done} of {total}{rate if done > 1 else ''}{tasks}", flush=True)
            said = now
