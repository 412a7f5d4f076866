"""Measure every hot path beside its plain baseline, in one run on one machine: `make speed`.

Writes speed.csv, machine.json and speed.png into outputs/speed/ (elsewhere by OUTPUTS=). Every path
is measured in a process of its own, so that what one imports or leaves in memory does not weigh on
the next.
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from helpers import figures
from helpers.files import write_atomically
from speed import measurement, results

# What is measured: module, function, and its sizes.
PATHS = {
    "importing": ("importing", "measure", {"files": 1000}),
    "masking": ("importing", "masking", {"files": 200}),
    "memory": ("importing", "memory", {"files": 20_000}),
    "generating": ("generating", "measure", {"images": 48}),
    "training": ("training", "measure", {"images": 192, "steps": 30, "rounds": 3}),
    "training profile": ("training", "profile", {}),
    "sampling": ("sampling", "measure", {"samples": 32}),
    "cluster": ("clusters", "measure", {}),
    "auditing": ("auditing", "measure", {"samples": 8}),
    "reading": ("reading", "measure", {"sizes": ["1024", "2048"], "answers": 30, "openings": 5}),
    "analysis": ("analysis", "measure", {"images": 100_000, "replicates": 2000}),
}


def measure(module: str, function: str, sizes: dict) -> pd.DataFrame:
    """The rows of one measurement, with columns measurement.COLUMNS."""
    return getattr(import_module(f"speed.{module}"), function)(**sizes)


def main(folder: Path, sizes: dict[str, dict] | None = None) -> pd.DataFrame:
    """Measure every path with its sizes (`sizes` replaces them by name) and write table, machine
    and chart.
    """
    rows = []
    for name, (module, function, usual) in PATHS.items():
        print(f"Measuring {name} ...", flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            rows.append(
                apart.submit(measure, module, function, (sizes or {}).get(name, usual)).result()
            )
        print(
            rows[-1].to_string(index=False, columns=["what", "baseline", "ours", "unit", "ratio"]),
            flush=True,
        )
    speed = pd.concat(rows)[measurement.COLUMNS]
    write_atomically(folder / "speed.csv", speed.to_csv(index=False).encode())
    write_atomically(folder / "machine.json", json.dumps(results.machine(), indent=1).encode())
    write_atomically(folder / "speed.png", figures.as_bytes(results.chart(speed), "png"))
    return speed


if __name__ == "__main__":
    target = (
        Path(os.environ.get("OUTPUTS") or Path(__file__).resolve().parents[2] / "outputs") / "speed"
    )
    main(target)
    print(f"Written to {target}: speed.csv, machine.json, speed.png.")
    sys.exit(0)
