"""Small studies on disk, finished up to stage 07, for tests of stages 08 and 09."""

import json

import conftest
import numpy as np
import pandas as pd

from helpers import images, tables
from helpers.assemble_reading_set import blinding, seal
from helpers.files import sha256, write_atomically
from helpers.runner import folders, runs

WORDS = {
    "effusion": "left lower lobe effusion",
    "no_finding": "normal lungs, no effusion",
    "infiltrates": "bilateral infiltrates, possible pneumonia",
}
NONE_REAL = {"xray": (0, 6), "ct": (0, 6)}


def make(
    study,
    readers=2,
    per=None,
    repeats=4,
    training=2,
    seed=0,
    answer=None,
    skips=None,
    withdrawn=(),
    confidence="3-step",
    simulated=True,
    prompts=None,
):
    """Write the runs 01, 02, 04, 05, 06 and 07 of a study; returns the key.

    `per`: modality -> (real, generated) images; `answer(reader, image, random) -> label`;
    `skips(reader, position)` says which answers are missing; `withdrawn`: numbers of readers who
    withdrew; `prompts`: how many prompts (and patients) the images come from; by default each its
    own.
    """
    random = np.random.default_rng(seed)
    drawn = _pictures(
        study, per or {"xray": (6, 6), "ct": (6, 6)}, training, random, simulated, prompts
    )
    again = drawn[~drawn["training"]].sample(
        min(repeats, int((~drawn["training"]).sum())), random_state=seed
    )
    drawn = pd.concat([drawn.assign(repeat=False), again.assign(repeat=True)], ignore_index=True)
    drawn["part"] = np.where(drawn["training"], 0, np.where(drawn["repeat"], 3, 1))
    folder = folders.outputs_folder(study) / "06_assemble_reading_set"
    shown = {"reading_size": 48, "framing": "whole", "margin": 0.0}
    key = blinding.write_set(drawn, folder / "reading_set", study, shown)
    seal.seal(key, folder / "reading_set", folder / "sealed", study, readers)
    marks = ["phantom cases"] if simulated else []
    _finish(study, folder.name, {}, marks)
    answer = answer or (
        lambda reader, image, random: random.choice(
            ["real", "fake", "uncertain"], p=[0.4, 0.4, 0.2]
        )
    )
    _read(
        study,
        key,
        readers,
        answer,
        skips or (lambda reader, position: False),
        withdrawn,
        confidence,
        random,
        simulated,
    )
    return key


def _pictures(study, per, training, random, simulated, prompts):
    rows = []
    for modality, (real, generated) in per.items():
        for origin, count in (("real", real), ("generated", generated)):
            for number in range(count + (training if not rows else 0)):
                run = (
                    "01_prepare_cases"
                    if origin == "real"
                    else ("04_sample_diffusion" if number % 2 else "02_generate_openai")
                )
                identity = f"{modality}{origin[0]}{number:02d}"
                rows.append(
                    {
                        "image_id": identity,
                        "run": run,
                        "modality": modality,
                        "origin": origin,
                        "training": number >= count,
                    }
                )
    frame = pd.DataFrame(rows)
    finding = frame.index.to_series().map(lambda i: list(WORDS)[i % 3])
    frame = frame.assign(
        finding=finding,
        view=frame["modality"].map({"xray": "PA", "ct": "axial"}),
        simulated=simulated,
        bits=8,
        width=64,
        height=64,
    )
    generated = frame["origin"] == "generated"
    frame["generator"] = (
        frame["run"]
        .map({"02_generate_openai": "api-model", "04_sample_diffusion": "tiny-sd"})
        .where(generated)
    )
    own = frame["image_id"] if prompts is None else (frame.index % prompts).astype(str)
    frame["split"] = np.where(generated, None, "test")
    frame["prompt_id"] = np.where(generated, "p" + own, None)
    frame = frame.assign(
        path="images/" + frame["image_id"] + ".png",
        licence="CC0-1.0",
        credit="nobody",
        patient=None if prompts is None else np.where(generated, None, "c" + own),
    )
    files, sums = [], []
    for row in frame.to_dict("records"):
        path = folders.outputs_folder(study) / row["run"] / row["path"]
        write_atomically(path, images.write_png(random.integers(0, 256, (64, 64)).astype(np.uint8)))
        files.append(str(path))
        sums.append(sha256(path))
    frame = frame.assign(file=files, sha256=sums)
    for run, part in frame.groupby("run"):
        tables.write(
            part.drop(columns=["run", "file", "training"]),
            folders.outputs_folder(study) / run / "images.csv",
        )
        _finish(study, run, {}, ["phantom cases"] if simulated else [])
    sampled = frame[frame["run"] == "04_sample_diffusion"].reset_index(drop=True)
    nearest = pd.DataFrame(
        {
            "image_id": sampled["image_id"],
            "nearest_image_id": "case",
            "distance": 0.1 + sampled.index / 50,
        }
    )
    nearest = nearest.assign(copy=sampled.index == 0, release=sampled.index != 0)
    audit = folders.outputs_folder(study) / "05_audit_images"
    tables.write(nearest if len(nearest) else tables.empty("nearest"), audit / "nearest.csv")
    _finish(study, audit.name, {}, ["phantom cases"] if simulated else [])
    return frame


def _read(study, key, readers, answer, skips, withdrawn, confidence, random, simulated):
    rows, people = [], []
    shown = key[~key["training"].astype(bool)]
    order = pd.concat([shown[shown["repeat_of"].isna()], shown[shown["repeat_of"].notna()]])
    for reader in range(readers):
        for position, image in enumerate(order.to_dict("records"), 1):
            if skips(reader, position) or reader in withdrawn:
                continue
            row = {
                "reader_id": f"reader{reader}",
                "blind_id": image["blind_id"],
                "position": position,
                "label": answer(reader, image, random),
            }
            row |= {
                "confidence": int(random.integers(1, 4)) if confidence != "none" else None,
                "description": WORDS[image["finding"]],
            }
            rows.append(
                row
                | {
                    "findings": image["finding"],
                    "cues": "texture",
                    "seconds": float(random.integers(5, 60)),
                    "changes": 0,
                }
            )
        gone = "2026-01-03T00:00:00.000Z" if reader in withdrawn else None
        person = {
            "reader_id": f"reader{reader}",
            "years": 4 + 7 * reader,
            "specialty": "Radiology",
            "prior_ai": reader == 1,
            "simulated": simulated,
        }
        people.append(person | {"locked_utc": "2026-01-02T00:00:00.000Z", "withdrawn_utc": gone})
    folder = folders.outputs_folder(study) / "07_read_cases"
    tables.write(pd.DataFrame(rows) if rows else tables.empty("readings"), folder / "readings.csv")
    tables.write(pd.DataFrame(people), folder / "readers.csv")
    _finish(
        study,
        folder.name,
        {"going_back": "never", "confidence": confidence},
        ["phantom cases", "readers"] if simulated else [],
    )


def _finish(study, name, values, simulated):
    folder = folders.outputs_folder(study) / name
    manifest = {
        "study": study,
        "run": name,
        "status": "finished",
        "parameters": values,
        "simulated": simulated,
        "files": [],
        "inputs": {},
    }
    write_atomically(folder / "manifest.json", json.dumps(manifest).encode())


def begin(study, name, **changes):
    """Start a run as its notebook does, with the notebook's defaults but for `changes`."""
    return runs.begin(study, name, conftest.values(name, **changes))
