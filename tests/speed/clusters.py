"""What a cluster costs: import and sampling by two of its workers beside a pool of two processes.

Both do the same tasks on one machine, by turns. The ratio is the median of the rounds'; the first
round, in which both import their packages, does not count.
"""

import tempfile
from pathlib import Path

import pandas as pd
import pytest
import small_training

from helpers.finetune_diffusion import dry_run, training_run
from helpers.runner import cluster, workers
from helpers.sample_diffusion import sampling_prompts, sampling_run
from speed import importing, measurement

PROMPT = "prompt_id,modality,view,finding,side,wording,count\nn,xray,PA,no_finding,,caption,"


def measure(files: int = 200, images: int = 64, steps: int = 20, rounds: int = 4) -> pd.DataFrame:
    """One row a stage, columns measurement.COLUMNS."""
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        folder = Path(place)
        for name in ("PARAMS", "OUTPUTS", "KEYS"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("OMP_NUM_THREADS", "1")  # two processes, one core each
        source = importing.slices(folder / "in", files)
        prompts = _trained(folder / "prompts.csv", images)

        def bring_in(turn: str) -> None:
            list(importing._import(source, folder, turn, workers=2))

        def sample(turn: str) -> None:
            asked = {"steps": [str(steps)], "shards": 2, "batch": 16, "precision": "fp32"}
            run = small_training.begin("04_sample_diffusion", "speed", turn, **asked)
            sampling_run.draw_missing(run, prompts)
            run.release()

        address = cluster.client("local:2").scheduler.address
        try:
            stages = (
                ("import", bring_in, files, "files/s"),
                ("sample", sample, images, "images/s"),
            )
            return pd.DataFrame([_by_turns(*stage, address, rounds, patch) for stage in stages])
        finally:
            cluster.disconnect()


def _trained(table: Path, images: int) -> pd.DataFrame:
    """A tiny model, trained for a few steps, and the prompts of `images` images."""
    small_training.write_cases("speed")
    run = small_training.training("speed")
    dry_run.check(run)
    run.finish(**training_run.summary(run, training_run.fine_tune(run)))
    table.write_text(f"{PROMPT}{images}\n")
    return sampling_prompts.read_prompts(table, "xray")


def _timed(work, turn: str) -> float:
    return importing._timed(lambda: work(turn))


def _by_turns(stage: str, work, count: int, unit: str, address: str, rounds: int, patch) -> dict:
    pool, there = [], []
    for turn in range(rounds):
        with patch.context() as here:
            here.setattr(
                workers, "executor", lambda _, preload, **needs: workers.worker_pool(2, preload)
            )
            pool.append(count / _timed(work, f"pool{turn}"))
        with patch.context() as away:
            away.setenv("CLUSTER", address)
            there.append(count / _timed(work, f"cluster{turn}"))
    pairs = sorted(zip(pool[1:], there[1:]), key=lambda pair: pair[1] / pair[0])
    plain, ours = pairs[len(pairs) // 2]
    ratios = ", ".join(f"{ours / plain:.2f}" for plain, ours in pairs)
    spread = f"baseline: a pool of two processes; ratios of {len(pairs)} rounds by turns: {ratios}"
    return measurement.row("cluster", f"{stage}, two workers", plain, ours, unit, spread)
