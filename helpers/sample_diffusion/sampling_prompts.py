"""The prompts of stage 04, read without torch: a study checks them before anything runs."""

from pathlib import Path

import pandas as pd

from helpers import findings, tables


class SamplingError(RuntimeError):
    """The images cannot be drawn; the message says what to do."""


def read_prompts(path: Path, modality: str) -> pd.DataFrame:
    """The prompts of one modality: columns prompt_id, modality, view, finding, side, wording,
    count, and the text `prompt`: the row's own, as in the prompts of 02, or one made from its
    findings.

    Raises TableError naming file, row and column of a wrong value, SamplingError for an id that
    appears twice.
    """
    table = tables.filled_in(path, "sampling_prompts")
    prompts = table[table["modality"] == modality].reset_index(drop=True).fillna("")
    if repeated := list(prompts.prompt_id[prompts.prompt_id.duplicated()]):
        raise SamplingError(f"{Path(path).name}: prompt_id '{repeated[0]}' appears twice.")
    texts = [
        row.prompt
        or findings.prompt(
            row.modality, row.view, row.finding.split("|"), row.side, row.wording or "caption"
        )
        for row in prompts.itertuples()
    ]
    return prompts.assign(prompt=texts, count=prompts["count"].astype(int))
