"""Which block's answers are the published analysis."""

import pandas as pd

from helpers import protocol
from helpers.analyse_readings.joined import AnalysisError


def main_block(asked: str, designed: protocol.Protocol) -> str:
    """The block whose labels are analysed as the published study's were: the one that is `asked`
    for (parameter `block` of 08), else the first scored one with the published question.

    Raises AnalysisError for a block that does not ask it.
    """
    able = [
        block.block
        for block in designed.scored()
        if protocol.LABEL in {question.id for question in designed.asked(block.block)}
    ]
    if asked and asked not in able:
        raise AnalysisError(
            f"block: '{asked}' is no block with the question '{protocol.LABEL}'; those are"
            f" {', '.join(able)}."
        )
    return asked or able[0]


def of_block(frame: pd.DataFrame, block: str) -> pd.DataFrame:
    """The rows of a block."""
    return frame[frame["block"] == block].reset_index(drop=True)
