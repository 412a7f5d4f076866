"""Counts in sentences."""


def counted(number: int, one: str, several: str = "") -> str:
    """1 image, 0 images, 1,200 images. `several`: the plural, if it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
