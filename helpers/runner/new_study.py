"""make new: the parameters of your own study, copied from another study."""

import re
import shutil
from pathlib import Path

from helpers.runner import folders, runs


def copy(study: str, like: str) -> None:
    """Copy a study's parameters to begin a new study."""
    source, target = folders.existing(like), folders.params_folder(study)
    if target.exists():
        raise runs.RunError(
            f"{target} exists already; nothing was changed. Choose another name, as in make new"
            " STUDY=mine."
        )
    shutil.copytree(source, target)
    _without_what_only_simulated_images_may_have(target)
    print(
        f"Made {target}, a copy of '{like}'. Edit its YAML files (each key is explained in its"
        f" notebook's parameters cell), then: make study STUDY={study}"
    )


def _without_what_only_simulated_images_may_have(folder: Path) -> None:
    """Lines marked `(simulated)` or `simulated only` are false, or unsafe, for images of patients:
    they are left out, and study.yaml asks for what takes their place.
    """
    for path in folder.glob("*.yaml"):
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not re.search(r"\(simulated\)|simulated only", line)]
        if path.name == "study.yaml":
            missing = [line.partition(":")[0] for line in lines if line not in kept]
            kept += [f"{key}: enter the {key} of your study\n" for key in missing]
        path.write_text("".join(kept))
    consent = folder / "consent.txt"
    if consent.is_file() and "This is a rehearsal" in consent.read_text():
        consent.write_text("enter what your readers are told before they agree to read\n")
