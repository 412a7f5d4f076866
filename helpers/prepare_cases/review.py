"""Images with burned-in text that wait for a person's decision: crops to look at and a list to fill
in.

Both may show names, so they lie in .keys/<study>/ and nowhere else.
"""

import base64
from pathlib import Path

import pandas as pd

from helpers import files

DECISIONS = ("mask", "reject", "keep")


class ReviewError(ValueError):
    """A list of decisions that cannot be used; the message says which line and what to write."""


def decisions(folder: Path) -> dict[str, str]:
    """The decisions in `folder`/list.csv: image id -> mask, reject or keep; those left empty are
    still waited for.
    """
    path = folder / "list.csv"
    if not path.is_file():
        return {}
    listed = pd.read_csv(path, dtype=str, keep_default_na=False)
    for line, row in enumerate(listed.to_dict("records"), start=2):
        if row.get("decision", "") not in ("", *DECISIONS):
            raise ReviewError(
                f"{path} line {line}: decision is '{row['decision']}'; write"
                f" {', '.join(DECISIONS)}, or nothing to decide later."
            )
    return {
        row["image_id"]: row["decision"] for row in listed.to_dict("records") if row.get("decision")
    }


def ask(folder: Path, waiting: pd.DataFrame) -> None:
    """Write the crops of the images that wait (columns image_id, file, crops) and add them to
    list.csv; what is decided stays.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "list.csv"
    rows = (
        pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
        if path.is_file()
        else []
    )
    listed = {row["image_id"] for row in rows}
    for row in waiting.to_dict("records"):
        for number, crop in enumerate(row["crops"]):
            files.write_atomically(
                folder / f"{row['image_id']}_{number}.png", base64.b64decode(crop), mode=0o600
            )
        if row["image_id"] not in listed:
            rows.append(
                {
                    "image_id": row["image_id"],
                    "file": row["file"],
                    "crops": str(len(row["crops"])),
                    "decision": "",
                }
            )
    frame = pd.DataFrame(rows, columns=["image_id", "file", "crops", "decision"])
    files.write_atomically(
        path, frame.to_csv(index=False).encode("utf-8", "surrogateescape"), mode=0o600
    )
