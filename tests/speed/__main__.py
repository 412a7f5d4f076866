"""Measure every hot path beside its plain baseline, in one run on one machine: `make speed`.

Writes speed.csv, machine.json and speed.png into outputs/speed/ (elsewhere by OUTPUTS=). Every path
is measured in a process of its own, so that what one imports or leaves in memory does not weigh on
the next.
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
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


def main(folder: Path, sizes: dict[str, dict] | None = None) -> pd.DataFrame:
    """Measure every path, or those that `sizes` names with its sizes, and write table, machine and
    chart.
    """
    rows = []
    for name in sizes or PATHS:
        module, function, usual = PATHS[name]
        print(f"Measuring {name} ...", flush=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            rows.append(
                apart.submit(
                    measurement.measure, module, function, (sizes or {}).get(name, usual)
                ).result()
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
    # Other sizes as JSON: python -m speed '{"masking": {"files": 50}}' measures this path alone.
    main(target, json.loads(sys.argv[1]) if sys.argv[1:] else None)
    print(f"Written to {target}: speed.csv, machine.json, speed.png.")
    sys.exit(0)
