"""The form that all speed measurements share, and the one meaning of their ratio.

Light: what is imported here is measured with.
"""

from importlib import import_module

COLUMNS = ["path", "what", "baseline", "ours", "unit", "ratio", "note"]
BETTER_WHEN_LESS = ("s", "ms", "MB", "mean squared error")


def measure(module: str, function: str, sizes: dict):
    """The rows of one measurement, a frame with COLUMNS.

    A process started for it finds this function here; it would not find one of speed/__main__.
    """
    return getattr(import_module(f"speed.{module}"), function)(**sizes)


def row(
    path: str, what: str, baseline: float | None, ours: float | None, unit: str, note: str = ""
) -> dict:
    """One measurement under COLUMNS; `ratio` says how many times better ours is, whether less or
    more of the unit is better.
    """
    ratio = None
    if baseline and ours:
        ratio = baseline / ours if unit in BETTER_WHEN_LESS else ours / baseline
    return dict(zip(COLUMNS, (path, what, baseline, ours, unit, ratio, note)))
