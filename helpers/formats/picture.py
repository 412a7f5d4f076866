"""One image read from a file of any format, and the error for a file without one."""

from dataclasses import dataclass, field

import numpy as np


class ImageError(ValueError):
    """An image that cannot be read or does not fit; the message is the reason given in
    rejected.csv.
    """


@dataclass
class Header:
    """The columns of a DICOM header that may be used; empty for other files."""

    modality: str = ""
    view: str = ""
    patient_id: str = ""
    sex: str = ""
    age: str = ""
    study: str = ""
    series: str = ""
    position: float | None = None


@dataclass
class Picture:
    """One image as read: pixels (H, W) of values 0..2**bits-1, before it is standardised.

    `hounsfield` (CT only) has the same shape in HU; `window` says how values became grey, `clipped`
    is the share of the pixels outside it, and `header` holds the few columns that a DICOM header
    gives. `aspect` is the height of a pixel over its width; `doubt` says what is unknown about the
    orientation of a CT image.
    """

    pixels: np.ndarray
    bits: int
    kind: str
    frame: int = 0
    header: Header = field(default_factory=Header)
    hounsfield: np.ndarray | None = None
    window: str = ""
    clipped: float = 0.0
    original_bits: int = 8
    aspect: float = 1.0
    doubt: str = ""
