"""Is training right and how fast is it on this machine's GPU? `python -m speed.gpu`, ten minutes.

First the checks: a step gives the same loss on CPU and GPU, training that continues from a
checkpoint ends in the same bits, float16 learns as fp32 does, each for a tiny model of every
family. Then the ready recipes of params/paper, with the networks' real architecture and random
weights: images per second, share of the GPU's matrix rate, and memory. Writes gpu.csv and
machine.json into outputs/speed/. Without a GPU it checks the CPU against itself and times nothing.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import tiny_families
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.diffusion import base_models, families
from helpers.files import write_atomically
from helpers.finetune_diffusion import checkpoints, latents, tiny_model, training_loop
from helpers.runner import folders, parameters
from helpers.runner.parameters import Record
from speed import models, results, training

SECONDS = 600  # after these no further recipe is begun
TINY = {
    "Stable Diffusion": lambda: tiny_model.build(["chest X-ray"], models.recipe(size=32)),
    "Stable Diffusion XL": tiny_families.xl,
    "Sana": tiny_families.sana,
}
QUICK = {"method": "full", "size": 32, "batch": 4, "warmup": 0, "schedule": "constant"}
QUICK |= {"learning_rate": 1e-3, "grid_every": 0, "log_every": 1, "validation_images": 4}
COLUMNS = ["what", "value", "unit", "holds", "note"]


def check(steps: int = 2) -> pd.DataFrame:
    """One row per tiny family and check: the largest relative difference, and whether it holds."""
    with tempfile.TemporaryDirectory() as folder:
        frame, rows = training.pictures(Path(folder) / "files", 32, 12), []
        with _without_a_gpu(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            on_cpu = apart.submit(_losses_of_one_step, frame, folder).result()
        here = _losses_of_one_step(frame, folder)
        for name, build in TINY.items():
            apart = max(abs(a / b - 1) for a, b in zip(here[name], on_cpu[name], strict=True))
            rows.append((f"{name}: one step, this device against the CPU", apart, apart < 1e-3))
            apart = _resumed(build, frame, folder, steps)
            rows.append((f"{name}: bits of a continued training", apart, apart == 0))
            if families.of(build()).fp16:
                exact, halved = (
                    _losses(build, frame, folder, precision=precision, steps=steps)[-1]
                    for precision in ("fp32", "fp16")
                )
                apart = abs(halved / exact - 1)
                rows.append((f"{name}: held-out loss in fp16 against fp32", apart, apart < 0.02))
    checks = pd.DataFrame(rows, columns=["what", "value", "holds"])
    return checks.assign(unit="relative difference", note="")[COLUMNS]


@contextlib.contextmanager
def _without_a_gpu():
    with patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": ""}):
        yield


def _losses_of_one_step(frame: pd.DataFrame, folder: str) -> dict[str, tuple[float, float]]:
    return {
        name: _losses(build, frame, folder, precision="fp32", steps=1)
        for name, build in TINY.items()
    }


def _losses(build: Callable, frame: pd.DataFrame, folder: str, **values) -> tuple[float, float]:
    """The last loss and held-out loss of a training from scratch."""
    recipe = models.recipe(**{**QUICK, **values})
    with tempfile.TemporaryDirectory(dir=folder) as state:
        last = _trained(build(), frame, recipe, state, folder).iloc[-1]
    return last.loss, last.validation_loss


def _trained(
    pipeline, frame: pd.DataFrame, recipe: Record, state: str, folder: str
) -> pd.DataFrame:
    cache, grids = Path(folder) / "cache", Path(folder) / "grids"
    with contextlib.redirect_stdout(io.StringIO()):
        return training_loop.train(pipeline, frame, recipe, Path(state), cache, grids, [])


def _resumed(build: Callable, frame: pd.DataFrame, folder: str, steps: int) -> float:
    """The largest difference of the weights of a training that was cut in two, to one that was
    not, in the arithmetic that this device is fastest in.
    """
    both = []
    for parts in ([steps], [steps // 2, steps]):
        with tempfile.TemporaryDirectory(dir=folder) as state:
            for until in parts:
                pipeline = build()
                _trained(pipeline, frame, models.recipe(**QUICK, steps=until), state, folder)
        both.append(families.network(pipeline).state_dict())
    return max((both[0][key] - both[1][key]).abs().max().item() for key in both[0])


def recipes() -> dict[str, Record]:
    """The ready recipes of the published study: the one in force, and those beside it."""
    folder = folders.params_folder("paper")
    files = [folder / "03_finetune_diffusion.yaml", *sorted((folder / "gpus").glob("03*.yaml"))]
    declared = parameters.schema(folders.NOTEBOOKS / "03_finetune_diffusion.ipynb")
    given = {path: parameters.read_yaml(path) for path in files}
    return {
        path.stem: models.recipe(**parameters.check(values, declared, path.name))
        for path, values in given.items()
    }


def measure(
    asked: dict[str, Record], build: Callable, steps: int = 6, seconds: float = SECONDS
) -> pd.DataFrame:
    """Three rows per recipe, from a few steps of it on random images: images per second, share of
    the matrix rate, memory. `build(recipe)` gives its pipeline. No recipe is begun after `seconds`.
    """
    began, rate, rows = time.monotonic(), training.matrix_rate(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in asked.items():
            if time.monotonic() - began > seconds:
                rows.append((name, None, "images/s", "left out: no time"))
                continue
            frame = training.pictures(Path(folder) / f"{recipe.size}", recipe.size, 16)
            try:
                rows += _of_recipe(name, recipe, build, frame, folder, steps, rate)
            except torch.OutOfMemoryError:
                rows.append((name, None, "images/s", "does not fit into this GPU's memory"))
            torch.cuda.empty_cache()
    measured = pd.DataFrame(rows, columns=["what", "value", "unit", "note"])
    return measured.assign(holds=None)[COLUMNS]


def _of_recipe(
    name: str, recipe: Record, build: Callable, frame: pd.DataFrame, folder: str, steps: int, rate
) -> list[tuple]:
    pipeline = build(recipe)
    # As in the recipe, but for what would only take time: it changes neither memory nor speed.
    short = {"accumulate": 1, "grid_every": 0, "validation_images": 0, "compile": False}
    short |= {"steps": steps, "log_every": max(steps // 2, 1), "patience": 0}
    each = operations(pipeline, recipe)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with patch.object(checkpoints, "save"):  # tens of GB
        table = _trained(pipeline, frame, Record({**recipe, **short}), f"{folder}/{name}", folder)
    speed = float(table.images_per_second.iloc[-1])
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
    about = f"{recipe.method}, {recipe.size} px, batch {recipe.batch}, not compiled"
    return [
        (name, speed, "images/s", about),
        (name, 100 * speed * each / rate, "% of the bf16 matrix rate", "without what is repeated"),
        (name, peak, "GB", "the largest, caching of latents and text included"),
    ]


def operations(pipeline, recipe: Record) -> float:
    """Floating-point operations of one training image, as torch counts them: forward and backward,
    with LoRA without the gradients of the frozen weights.
    """
    network, family = families.network(pipeline), families.of(pipeline)
    side = recipe.size // pipeline.vae_scale_factor
    with tempfile.TemporaryDirectory() as cache, torch.no_grad():
        told = latents.of_captions([""], pipeline, recipe.size, Path(cache))
        told = {key: value.to(network.device) for key, value in told.items()}
        noisy = torch.randn(1, network.config.in_channels, side, side, device=network.device)
        with FlopCounterMode(display=False) as counter:
            family.predict(network, noisy, torch.tensor([500], device=network.device), **told)
    return (2 if recipe.method == "lora" else 3) * float(counter.get_total_flops())


def main(folder: Path, asked: dict[str, Record], build: Callable, seconds: float = SECONDS):
    """Check, time, and write gpu.csv and machine.json; returns the table."""
    began = time.monotonic()
    base_models.use_cores()
    table = check()
    print(table.to_string(index=False), flush=True)
    if asked:
        left = seconds - (time.monotonic() - began)
        table = pd.concat([table, measure(asked, build, seconds=left)])
        print(table.iloc[len(table) - 3 * len(asked) :].to_string(index=False), flush=True)
    write_atomically(folder / "gpu.csv", table.to_csv(index=False).encode())
    write_atomically(folder / "machine.json", json.dumps(results.machine(), indent=1).encode())
    return table


if __name__ == "__main__":
    target = Path(os.environ.get("OUTPUTS") or folders.ROOT / "outputs") / "speed"
    ready = recipes() if torch.cuda.is_available() else {}
    done = main(target, ready, models.of_recipe)
    print(f"Written to {target}: gpu.csv, machine.json.")
    sys.exit(int((done.holds == False).any()))  # noqa: E712
