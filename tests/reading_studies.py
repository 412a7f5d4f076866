"""A small study whose reading set is ready to be read, made in a temporary folder for the tests of
stage 07.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from helpers import images, protocol_tables, tables
from helpers.assemble_reading_set import blocks as study_blocks
from helpers.assemble_reading_set import envelope, seal
from helpers.runner import folders, runs

STUDY = "reading_test"
SET = "06_assemble_reading_set"
BLOCK = {"block": "read", "order": 1, "title": "Reading test", "instructions": "Look and say."}
BLOCK |= {"images": "main", "lock": "true"}
YOU = [
    {"id": "years", "text": "Years of experience", "kind": "number"},
    {"id": "specialty", "text": "Specialty", "kind": "text"},
    {"id": "prior_ai", "text": "Prior knowledge of AI", "kind": "yes/no"},
]
YOU = [row | {"block": "reader", "required": "true"} for row in YOU]
STEPS = {"none": "", "3-step": "Guess|Fairly sure|Certain", "6-step": "1 Guess|2|3|4|5|6 Certain"}
CUES = (
    "anatomy=Anatomy|texture=Texture|borders=Borders|sharpness=Sharpness|markers=Text|other=Other"
)
CHOICES = {"confidence", "description_required", "cues_asked", "findings_required"}


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
    blocks: list[dict] | None = None,
    asked: list[dict] | None = None,
    **parameters,
) -> Path:
    """Write params, the finished 06 run with reading set and sealed key; returns reading_set/.

    Call `use(root)` first. `blocks` and `asked` are rows of blocks.csv and questions.csv; without
    `asked`, confidence and so on among `parameters` choose the questions (see `questions`). The
    images of a block are its own, `read` in each that shows any, or `read` pairs.
    """
    chosen = {name: parameters.pop(name) for name in CHOICES & parameters.keys()}
    designed = protocol_tables.build(
        asked or questions(**chosen), blocks or [BLOCK], str(folders.params_folder(STUDY))
    )
    folder = folders.params_folder(STUDY)
    folder.mkdir(parents=True)
    (folder / "07_read_cases.yaml").write_text(yaml.safe_dump({"code_days": 90, **parameters}))
    (folder / "study.yaml").write_text(f"title: A test\nlanguage: {language}\n")
    run = runs.Run(STUDY, SET, {}, {"study": STUDY, "run": SET, "parameters": {}, "simulated": []})
    rows, key = [], []
    shown = [block for block in designed.blocks if block.images]
    presented = [(n, shown[0], 0) for n in range(training)]
    presented += [
        (training + n, block, second)
        for block in shown
        for n in range(read)
        for second in range(1 + block.pairs)
    ]
    for order, (number, block, second) in enumerate(presented):
        blind_id = f"b{order:015d}"
        modality = ("xray", "ct")[number % 2]
        path = run.file(f"reading_set/images/{blind_id}.png")
        path.write_bytes(images.write_png(picture(size, bits, order), compress_level=0))
        part = 0 if number < training else 1 + (number - training) * 3 // read
        checksum = envelope.derive(STUDY, blind_id, path.read_bytes()).hex()
        rows.append(
            {
                "blind_id": blind_id,
                "path": f"images/{blind_id}.png",
                "checksum": checksum,
                "modality": modality,
            }
        )
        unscored = number < training or block.tell_truth
        rows[-1] |= {"training": unscored, "part": part, "block": block.block}
        pair = f"b{order - second:015d}" if block.pairs else None
        rows[-1] |= {"pair": pair}
        origin = ("real", "generated")[(number // 2 + second) % 2]
        key.append(
            {
                "blind_id": blind_id,
                "image_id": f"i{number}" + ("b" if second else ""),
                "modality": modality,
                "origin": origin,
                "training": unscored,
                "block": block.block,
                "pair": pair,
            }
        )
        key[-1] |= {
            "generator": None if origin == "real" else "a model",
            "finding": ("effusion", "nodule", "no_finding")[number % 3],
        }
    tables.write(pd.DataFrame(rows), run.folder / "reading_set/reading_set.csv")
    study_blocks.write(run.folder / "reading_set", designed, pd.DataFrame(key))
    told = {
        "study": STUDY,
        "consent": "You may stop at any moment.",
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


def questions(
    confidence: str = "none",
    description_required: bool = False,
    cues_asked: bool = False,
    findings_required: bool = False,
) -> list[dict]:
    """Rows of questions.csv: the published protocol and what it may be asked with."""
    label = {"id": "label", "text": "This image is", "kind": "choice", "required": "true"}
    rows = [label | {"options": "real=Real|fake=Fake|uncertain=Uncertain"}]
    rows.append({"id": "poor_quality", "text": "Image quality too poor to judge", "kind": "yes/no"})
    scale = {"id": "confidence", "text": "How sure are you?", "kind": "scale", "required": "true"}
    rows += [scale | {"options": STEPS[confidence]}] if STEPS[confidence] else []
    said = {"id": "description", "text": "Lung condition, in a few words", "kind": "text"}
    rows.append(said | {"required": str(description_required)})
    ticked = {"id": "findings", "text": "Findings", "kind": "findings"}
    rows.append(ticked | {"required": str(findings_required)})
    rows.append({"id": "side", "text": "Side (the patient's)", "kind": "side"})
    cues = {"id": "cues", "text": "What made you decide?", "kind": "choices", "options": CUES}
    return YOU + rows + ([cues] if cues_asked else [])


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
