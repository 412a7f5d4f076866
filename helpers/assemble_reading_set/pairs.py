"""Pairs for a forced choice. In every block with pairs, each generated image gets a real image of
its modality, as similar as possible in finding and view, and a side.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from helpers import protocol


def paired(
    shown: pd.DataFrame, designed: protocol.Protocol, secret: Callable[[str], bytes]
) -> pd.DataFrame:
    """The presentations (blocks.presented) with `left`: the image_id of the left image of their
    pair, missing if an image is shown alone. Hidden repeats are not shown in pairs.

    In each modality the generated image is on the left in half of the pairs. `secret` decides which
    pairs, and nobody without the study's seal can compute it.
    """
    shown = shown.assign(left=pd.Series(pd.NA, index=shown.index, dtype="string"))
    for block in designed.blocks:
        if not block.pairs:
            continue
        shown = shown[(shown["block"] != block.block) | ~shown["repeat"]].copy()
        for _, rows in shown[shown["block"] == block.block].groupby("training"):
            found = _matched_by_modality(rows)
            drawn = {pair: secret(f"side {block.block} {'|'.join(pair)}") for pair in found}
            # Sides are balanced within a modality; with odd numbers, one modality balances another.
            ordered = sorted(found, key=lambda pair: (found[pair], drawn[pair]))
            first = secret(f"first side {block.block}")[0] % 2
            for number, (made, real) in enumerate(ordered, first):
                here = rows.index[rows["image_id"].isin([made, real])]
                shown.loc[here, "left"] = made if number % 2 else real
    return shown


def _matched_by_modality(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(generated, real) image_ids of the pairs, to their modality. They have as much as possible
    in common: finding (2), view (1).
    """
    found = {}
    rows = rows.sort_values("image_id").fillna({"finding": "", "view": ""})
    for modality, of_it in rows.groupby("modality"):
        made, real = (of_it[of_it["origin"] == origin] for origin in ("generated", "real"))
        alike = sum(
            weight * np.equal.outer(made[name].to_numpy(), real[name].to_numpy())
            for name, weight in (("finding", 2), ("view", 1))
        )
        ours, theirs = linear_sum_assignment(alike.astype(float), maximize=True)
        pairs = zip(made["image_id"].iloc[ours], real["image_id"].iloc[theirs])
        found |= dict.fromkeys(pairs, modality)
    return found
