"""Images with burned-in text that wait for a person's decision: crops to look at and a list to fill
in.

Both may show names, so they lie in .keys/<study>/ and nowhere else.
"""

import base64
from pathlib import Path

import pandas as pd

from helpers import files, tables


def decisions(folder: Path) -> dict[str, str]:
    """The decisions in `folder`/list.csv: image id -> mask, reject or keep; rows without a decision
    still wait. Raises tables.TableError for a list that cannot be read.
    """
    listed = _listed(folder / "list.csv").dropna(subset="decision")
    return dict(zip(listed["image_id"], listed["decision"]))


def _listed(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return tables.empty("review")
    listed = tables.filled_in(path, "review")
    if "decision" not in " ".join(tables.read_spreadsheet(path).columns).lower():
        raise tables.TableError(f"{path}: column 'decision' is missing.")
    # A spreadsheet drops the zeros with which an id of digits begins.
    digits = listed["image_id"].str.isdigit()
    return listed.assign(image_id=listed["image_id"].mask(digits, listed["image_id"].str.zfill(12)))


def ask(folder: Path, waiting: pd.DataFrame) -> None:
    """Write the crops of the images that wait (columns image_id, file, crops) and add them to
    list.csv; what is written there stays.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "list.csv"
    for row in waiting.to_dict("records"):
        for number, crop in enumerate(row["crops"]):
            files.write_atomically(
                folder / f"{row['image_id']}_{number}.png", base64.b64decode(crop), mode=0o600
            )
    listed = _listed(path)
    new = waiting[~waiting["image_id"].isin(listed["image_id"])]
    new = new[["image_id", "file"]].assign(crops=new["crops"].map(len), decision="")
    content = pd.concat([listed, new]).to_csv(index=False)
    files.write_atomically(path, content.encode("utf-8", "surrogateescape"), mode=0o600)
