"""Each reader's own order, reproducible from the study's seed and the reader's id."""

import random
from collections.abc import Iterable, Mapping


def reading_order(
    images: Iterable[Mapping], seed: int, reader_id: str, mixing: str = "mixed", block: str = ""
) -> list[str]:
    """blind_ids of a block in a reader's own order: training cases first, then the read.

    `images` have blind_id, modality, training and part. Images are shuffled only within the parts
    in which 06 put first presentations (1), images without repeat (2) and repeats (3). So repeats
    keep their distance, and this code does not need to know which images they are. `mixing` is
    "mixed" or "blocked" (one modality after the other, in random order).
    """
    drawn = random.Random(f"{seed}/{reader_id}/{block}")
    ordered = sorted(images, key=lambda image: image["blind_id"])
    blocks = sorted({image["modality"] for image in ordered})
    drawn.shuffle(blocks)

    def place(image: Mapping) -> tuple:
        block = blocks.index(image["modality"]) if mixing == "blocked" else 0
        return (not image["training"], block, image["part"], drawn.random())

    return [image["blind_id"] for image in sorted(ordered, key=place)]
