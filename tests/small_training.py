"""A study of a few small images and a training that takes a second: shared by the tests of stages
03 and 04.
"""

import multiprocessing
import os

import numpy as np
import pandas as pd

from helpers import images
from helpers.files import sha256
from helpers.runner import folders, parameters, runs

FINDINGS = (("no_finding", ""), ("effusion", "left"), ("effusion", "right"), ("cardiomegaly", ""))
QUICK = {
    "base": "tiny",
    "method": "full_text",
    "size": 32,
    "steps": 6,
    "batch": 4,
    "learning_rate": 1e-3,
    "warmup": 2,
    "ema": 0.9,
    "log_every": 2,
    "validate_every": 3,
    "validation_images": 4,
    "grid_every": 0,
    "checkpoint_every": 2,
    "vae_steps": 4,
    "vae_batch": 2,
    "precision": "fp32",
}


def picture(finding: str, side: str, seed: int, size: int = 32) -> np.ndarray:
    """A 12-bit cartoon of a chest that shows its finding."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    grey = np.full((size, size), 3000.0)
    for centre in (-0.2, 0.2):
        grey[((x - centre) / 0.14) ** 2 + (y / 0.35) ** 2 < 1] = 900
    if finding == "effusion":
        grey[(y > 0.1) & ((x < 0) == (side == "right")) & (abs(x) < 0.34)] = 3300
    if finding == "cardiomegaly":
        grey[(x / 0.25) ** 2 + ((y - 0.15) / 0.2) ** 2 < 1] = 3600
    return np.clip(grey + rng.normal(0, 60, grey.shape), 0, 4095).astype(np.uint16)


def write_cases(
    study: str, count: int = 24, held_out: int = 6, size: int = 32, **changes
) -> runs.Run:
    """A finished run of 01 with cartoons; `changes` overwrite columns of its images.csv."""
    values = {
        name: parameter.default
        for name, parameter in parameters.schema(
            folders.NOTEBOOKS / "01_prepare_cases.ipynb"
        ).items()
    }
    values = {key: value for key, value in values.items() if key not in ("study", "variant")}
    run = runs.begin(study, "01_prepare_cases", {**values, "source": "phantom"})
    rows = []
    for index in range(count + held_out):
        finding, side = FINDINGS[index % len(FINDINGS)]
        path = run.write_bytes(
            f"images/c{index:03d}.png", images.write_png(picture(finding, side, index, size))
        )
        rows.append(
            {
                "image_id": f"c{index:03d}",
                "path": f"images/{path.name}",
                "sha256": sha256(path),
                "modality": "xray",
                "view": "PA",
                "finding": finding,
                "side": side or pd.NA,
                "caption": f"chest X-ray, PA view, with {side} {finding}".replace("  ", " "),
                "origin": "real",
                "simulated": True,
                "split": "train" if index < count else "validation",
                "patient": f"p{index // 2}",
                "width": size,
                "height": size,
                "bits": 12,
                "licence": "MIT",
            }
        )
    run.mark_simulated("cartoons")
    run.write("images.csv", pd.DataFrame(rows).assign(**changes))
    run.finish()
    return run


def recipe(**values) -> parameters.Record:
    """The parameters of notebook 03 with its defaults but for `values`."""
    declared = parameters.schema(folders.NOTEBOOKS / "03_finetune_diffusion.ipynb")
    defaults = {name: parameter.default for name, parameter in declared.items()}
    return parameters.Record({**defaults, **parameters.check(values, declared, "test")})


def begin(notebook: str, study: str, variant: str = "", **values) -> runs.Run:
    """A run of 03 or 04 with the notebook's defaults and these values."""
    declared = parameters.schema(folders.NOTEBOOKS / f"{notebook}.ipynb")
    checked = parameters.check(values, declared, "test")
    defaults = {
        name: parameter.default
        for name, parameter in declared.items()
        if name not in ("study", "variant")
    }
    return runs.begin(
        study, f"{notebook}.{variant}" if variant else notebook, {**defaults, **checked}
    )


def training(study: str, variant: str = "", **values) -> runs.Run:
    """A quick run of 03, begun."""
    return begin("03_finetune_diffusion", study, variant, **{**QUICK, **values})


def process(study: str, variant: str, **values) -> multiprocessing.Process:
    """A quick training in a process of its own, started; for tests that kill it. It is forked from
    a process that has imported torch and trained nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.finetune_diffusion.training_run"])
    made = context.Process(target=_train, args=(dict(os.environ), study, variant, values))
    made.start()
    return made


def _train(environment: dict, study: str, variant: str, values: dict) -> None:
    from helpers.finetune_diffusion import training_run

    os.environ.clear()
    os.environ.update(environment)
    run = training(study, variant, **values)
    training_run.fine_tune(run)
    run.finish()
