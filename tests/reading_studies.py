"""A small study whose reading set is ready to be read, made in a temporary folder for the tests of
stage 07.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from helpers import images, tables
from helpers.assemble_reading_set import seal
from helpers.runner import places, runs

STUDY = "reading_test"
SET = "06_assemble_reading_set"


def use(root: Path, setter=os.environ.__setitem__) -> None:
    """Point params, outputs and keys below `root`."""
    for name in ("PARAMS", "OUTPUTS", "KEYS"):
        setter(name, str(Path(root) / name.lower()))


def make(
    root: Path,
    read: int = 8,
    training: int = 2,
    size: int = 64,
    bits: int = 12,
    language: str = "en",
    **parameters,
) -> Path:
    """Write params, the finished 06 run with reading set and sealed key; returns reading_set/.

    Call `use(root)` first.
    """
    folder = places.params_folder(STUDY)
    folder.mkdir(parents=True)
    (folder / "07_read_cases.yaml").write_text(
        yaml.safe_dump({"description_required": False, **parameters})
    )
    (folder / "study.yaml").write_text(f"title: A test\nlanguage: {language}\n")
    run = runs.Run(STUDY, SET, {}, {"study": STUDY, "run": SET, "parameters": {}, "simulated": []})
    rows, key = [], []
    for number in range(training + read):
        blind_id = f"b{number:015d}"
        modality = ("xray", "ct")[number % 2]
        path = run.file(f"reading_set/images/{blind_id}.png")
        path.write_bytes(images.write_png(picture(size, bits, number)))
        part = 0 if number < training else 1 + (number - training) * 3 // read
        checksum = seal.derive(STUDY, blind_id, path.read_bytes()).hex()
        rows.append(
            {
                "blind_id": blind_id,
                "path": f"images/{blind_id}.png",
                "checksum": checksum,
                "modality": modality,
            }
        )
        rows[-1] |= {"training": number < training, "part": part}
        origin = ("real", "generated")[number // 2 % 2]
        key.append(
            {
                "blind_id": blind_id,
                "image_id": f"i{number}",
                "modality": modality,
                "origin": origin,
                "training": number < training,
            }
        )
        key[-1] |= {
            "generator": None if origin == "real" else "a model",
            "finding": ("effusion", "nodule", "no_finding")[number % 3],
        }
    tables.write(pd.DataFrame(rows), run.folder / "reading_set/reading_set.csv")
    told = {
        "study": STUDY,
        "title": "Reading test",
        "consent": "You may stop at any moment.",
        "instructions": "Look and say.",
        "bits": bits,
        "size": size,
        "language": language,
    }
    run.write_json("reading_set/study.json", told)
    seal.seal(
        pd.DataFrame(key), run.folder / "reading_set", run.folder / "sealed", STUDY, readers=2
    )
    run.finish()
    return run.folder / "reading_set"


def picture(size: int, bits: int, number: int) -> np.ndarray:
    """An image (size, size) that shows its number: a bright block at its place on a grid, on a
    noisy ramp.
    """
    random = np.random.default_rng(number)
    ramp = np.linspace(0.15, 0.6, size)[None, :] * np.ones((size, 1)) + random.normal(
        0, 0.02, (size, size)
    )
    tile = size // 8
    row, column = divmod(number % 64, 8)
    ramp[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = 0.95
    top = 2**bits - 1
    return np.clip(ramp * top, 0, top).astype(np.uint8 if bits == 8 else np.uint16)
