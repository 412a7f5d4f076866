"""What a single fact of a file still tells after standardising, per modality.

500 phantoms as stage 01 keeps them against 500 other phantoms as a generator would return them:
the two sources differ only in shape, bars, levels and clipping. And cases of the rehearsal against
images of its stand-in service, of the same findings; a rehearsal has too few of them to show it.

`make soak` keeps the results in outputs/soak/.
"""

import io
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from helpers import images
from helpers.assemble_reading_set import framing
from helpers.audit import leakage, signs
from helpers.files import write_atomically
from helpers.formats.windowing import window
from helpers.generate_openai import prompts
from helpers.rehearsal import image_api_answers, phantom_ct, phantom_xray
from helpers.runner import folders, parameters

COUNT, SIDE, LIMIT = 500, 128, 0.6
SHAPES = ((1.0, 1.0), (1.0, 0.8), (0.8, 1.0), (1.0, 0.9))
PROMPTS = {
    modality: list(rows.fillna("").itertuples())
    for modality, rows in prompts.read_prompts(folders.ROOT / "params/rehearsal/prompts.csv")
    .iloc[:-1]  # a gunshot: no case of the rehearsal has one
    .groupby("modality")
}
SIGNS = ("level_", "clip_", "border_top_bar", "border_left_bar", "border_right_bar")


def real(modality: str, seed: int) -> tuple[np.ndarray, int]:
    """A phantom in its own shape, 12 bits, as 01 keeps it."""
    high, wide = (round(share * SIDE) for share in SHAPES[seed % len(SHAPES)])
    if modality == "xray":
        array = phantom_xray.xray(seed, size=SIDE)
    else:
        array, _ = window(phantom_ct.ct_slice(seed, size=SIDE), -600, 1500, 12)
    top, left = (SIDE - high) // 2, (SIDE - wide) // 2
    return array[top : top + high, left : left + wide], 12


def generated(modality: str, seed: int) -> tuple[np.ndarray, int]:
    """Another phantom as a generator returns it: 8 bits, another window, clipped whites, nearly
    black bars that make it square.
    """
    array, bits = real(modality, seed)
    random = np.random.default_rng([seed, 77])
    grey = np.clip(array / (2**bits - 1) * 1.12 - 0.03, 0, 1) ** random.uniform(0.85, 1.18)
    shown = np.round(12 + 235 * grey).astype(np.uint8)
    square = images.standardise(shown, SIDE, 8)
    return np.where(square == 0, random.integers(0, 9, square.shape), square).astype(np.uint8), 8


def case(modality: str, seed: int) -> tuple[np.ndarray, int]:
    """A case of the rehearsal, with the finding of one of its prompts."""
    asked = PROMPTS[modality][seed % len(PROMPTS[modality])]
    if modality == "xray":
        return phantom_xray.xray(seed, asked.finding, asked.side, 256, asked.view), 12
    hounsfield = phantom_ct.ct_slice(seed, asked.finding, asked.side, 256)
    return window(hounsfield, -600, 1500, 12)[0], 12


def answer(modality: str, seed: int) -> tuple[np.ndarray, int]:
    """What the stand-in service draws for one of the rehearsal's prompts."""
    asked = PROMPTS[modality][seed % len(PROMPTS[modality])]
    png = image_api_answers.draw(asked.prompt, 256, 256, seed)
    return np.asarray(Image.open(io.BytesIO(png)).convert("L")), 8


def facts(task: tuple) -> list[dict]:
    """The facts before and after the standardisation of one image."""
    make, modality, seed = task
    array, bits = make(modality, seed)
    declared = parameters.schema(folders.NOTEBOOKS / "05_audit_images.ipynb")
    asked = {key: parameter.default for key, parameter in declared.items()} | {"reading_size": 112}
    shown = framing.for_reading(array, bits, modality, 8, asked)
    return [signs.picture_facts(array, bits), signs.picture_facts(shown, 8)]


def measure(sources: tuple, modality: str, workers: ProcessPoolExecutor) -> pd.DataFrame:
    """One row per sign and stage: how well it alone tells the two sources."""
    tasks = [(sources[0], modality, seed) for seed in range(COUNT)]
    tasks += [(sources[1], modality, COUNT + seed) for seed in range(COUNT)]
    found = list(workers.map(facts, tasks, chunksize=10))
    truth, alone = np.arange(2 * COUNT) >= COUNT, np.arange(2 * COUNT)
    rows = []
    for stage, known in zip(("before", "after"), zip(*found)):
        for sign, values in pd.DataFrame(known).items():
            if sign.startswith(SIGNS):
                auc, low, high = leakage.clustered_auc(values.to_numpy(float), truth, alone)
                auc, low, high = (auc, low, high) if auc >= 0.5 else (1 - auc, 1 - high, 1 - low)
                rows.append((modality, stage, sign, auc, low, high))
    return pd.DataFrame(rows, columns=["modality", "stage", "sign", "auc", "low", "high"])


def measured(name: str, *sources) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The signs before and after standardising; kept in outputs/soak/<name>.csv."""
    with ProcessPoolExecutor() as workers:
        table = pd.concat([measure(sources, modality, workers) for modality in ("xray", "ct")])
    kept = folders.ROOT / "outputs" / "soak" / f"{name}.csv"
    write_atomically(kept, table.round(3).to_csv(index=False).encode())
    return table[table["stage"] == "before"], table[table["stage"] == "after"]


@pytest.mark.soak
def test_no_single_sign_tells_sources_that_differ_in_shape_bars_and_levels_alone():
    before, after = measured("blinding", real, generated)
    assert (before["low"] > LIMIT).sum() >= 8, "they are told before"
    assert after[after["high"] >= LIMIT].empty


@pytest.mark.soak
def test_no_level_tells_the_images_of_the_stand_in_service_from_the_cases():
    before, after = measured("blinding_rehearsal", case, answer)
    assert (before["low"] > LIMIT).sum() >= 4, "they are told before"
    # All that touches the border of a CT is the table's line, which the service draws softer; the
    # mean grey of the border differs by less than half of one of 256 levels.
    table_line = (after["modality"] == "ct") & (after["sign"] == "level_border")
    assert after[(after["high"] >= LIMIT) & ~table_line].empty
