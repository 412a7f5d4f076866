"""Studies finished up to 09 for tests of the poster, made without a training."""

import numpy as np
import test_report
import yaml

from helpers import images
from helpers.poster import making, showing
from helpers.runner import folders, parameters, runs

TOLD = {
    "title": "Real or generated? A small study",
    "question": "Can radiologists tell generated lung images from real ones?",
    "contact": "somebody@example.org",
    "authors": ["Ann Author (1)", "Ben Builder (1, 2)"],
    "affiliations": ["Department of Radiology", "Institute of Rehearsals"],
}


def tell(study="small", **told):
    """Write study.yaml with what differs from TOLD."""
    folder = folders.params_folder(study)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(TOLD | told, allow_unicode=True))


def analysed(study="small", frames=0, **options):
    """A study with 01 to 08 finished; returns its results.

    `frames`: how many stages of its last sample 04 has kept.
    """
    tell(study)
    run, found, *_ = test_report.analyse(study, **options)
    run.finish()
    if frames:
        _keep_frames(runs.load(study, "04_sample_diffusion"), frames)
    return found


def _keep_frames(sampling, frames):
    name = sampling.read("images.csv")["image_id"].iloc[-1]
    random = np.random.default_rng(1)
    finished = images.read_png(sampling.folder / "images" / f"{name}.png")
    for step in range(frames):
        share = step / (frames - 1)
        mixed = share * finished + (1 - share) * random.integers(0, 256, finished.shape)
        path = sampling.folder / "frames" / f"{name}-{step:03d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(images.write_png(mixed.astype(np.uint8)))


def begin(study="small", variant="", **values):
    """Begin a run of 10 with its notebook's defaults but for `values`; no comparison."""
    declared = parameters.schema(folders.NOTEBOOKS / "10_make_poster.ipynb")
    defaults = {name: parameter.default for name, parameter in declared.items()}
    known = defaults | {"comparison": ""} | values
    return runs.begin(
        study,
        f"10_make_poster.{variant}" if variant else "10_make_poster",
        {name: value for name, value in known.items() if name not in ("study", "variant")},
    )


def poster(study="small", **values):
    """What notebook 10 does: returns the run, poster.json and the texts of the sections."""
    run = begin(study, **values)
    found = making.read_results(run)
    rows, frames = showing.read_images(run), showing.read_frames(run)
    chosen = making.choose(run, rows, frames)
    said = making.say(run, found, rows, chosen, frames)
    about = making.write_poster(run, found, said, chosen, frames)
    making.write_companion(run, found, said, rows, chosen, frames, about)
    run.finish()
    return run, about, said
