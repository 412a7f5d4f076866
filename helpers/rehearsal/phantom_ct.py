"""CT slices of the simulated chest in anatomy.py, in Hounsfield units, cut as the patient lies on
the back.
"""

import numpy as np
from scipy import ndimage

from helpers.rehearsal.anatomy import (
    RIB_SPACING,
    TOP,
    Patient,
    rib_drop,
    smooth_step,
    vessel_points,
)
from helpers.rehearsal.drawing import noise, vessels

AIR, FAT, MUSCLE, FLUID, LIVER = -1000, -95, 48, 8, 62
SLICE_MM = 3.0


def ct_slice(
    seed: int,
    finding: str = "no_finding",
    side: str = "",
    size: int = 512,
    level: float = -1.0,
    visit: int = 0,
    sex: str = "",
) -> np.ndarray:
    """An axial slice, (size, size) int16 in HU, the patient's right on the image's left and the
    front on top.

    `level` runs from 0 (domes of the diaphragm) to 1 (apex). Below 0, the height is chosen so that
    the finding is visible.
    """
    patient = Patient(seed, finding, side, "AP", visit, sex)
    rng = np.random.default_rng([seed, 7, visit])
    p = patient.p
    low = p["dome"] - 12
    z = low + (level if level >= 0 else _telling_level(patient, rng, low)) * (TOP - 30 - low)
    step = 2.1 * (p["width"] + p["wall"]) * p["zoom"] / size
    along = ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
    x, y = along[None, :] - p["shift_x"], along[:, None] + p["depth"] * 0.02 - 6
    hu = _tissues(patient, x, y, z, step)
    lung = _lung_mask(patient, x, y, z, step)
    hu = hu + lung * (_lung_hu(patient, x, y, z, size, step) - hu)
    hu = _airways(patient, x, y, z, _bones(patient, x, y, z, step, hu), step)
    hu = np.where(np.abs(y - (p["depth"] + 0.8 * p["wall"] + 14 - 0.0011 * x**2)) < 2.2, -350, hu)
    grain = ndimage.gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), 0.7)
    return np.clip(ndimage.gaussian_filter(hu, 0.6) + 55 * grain, -1024, 3000).astype(np.int16)


def _telling_level(patient, rng, low):
    if len(patient.lesions):
        lesion = patient.lesions[rng.integers(len(patient.lesions))]
        return float(np.clip((lesion[2] - low) / (TOP - 30 - low), 0.05, 0.95))
    return {"effusion": 0.15, "cardiomegaly": 0.25}.get(patient.finding, 0.0) + rng.uniform(
        0.05, 0.45
    )


def _filled(span, y, step):
    """The share of every pixel that lies in a solid at one height, 0 to 1; `span` is (middle y,
    half), functions of x.
    """
    middle, half = span
    return np.clip((half - np.abs(y - middle)) / step + 0.5, 0, 1) * (half > 0)


def _tissues(patient, x, y, z, step):
    """Everything but lung, airways and bone."""
    p = patient.p
    flat = np.full(x.shape, z, np.float32)
    wall = 1 - p["fat"] / (p["width"] + p["wall"])
    skin = _body(patient, x, y, z, 1.0, step)
    hu = AIR + skin * (FAT - AIR)
    for middle, half in patient.breasts(x, flat):
        hu = np.maximum(hu, AIR + (FAT - AIR + 40) * _filled((middle + 6, half), y, step))
    hu = hu + _body(patient, x, y, z, wall, step) * (
        MUSCLE - FAT + 14 * noise(patient.seed, x.shape[1], 60)
    )
    blood = (patient.heart(x, flat), *patient.aorta(x, flat), *patient.hila(x, flat))
    layers = [
        (patient.cage(x, flat), -40),
        (patient.mediastinum(x, flat), -12),
        *((span, LIVER) for span in patient.abdomen(x, flat)),
        *((span, p["contrast_hu"]) for span in blood),
    ]
    inside = _filled(patient.cage(x, flat), y, step)
    for span, value in layers:
        share = _filled(span, y, step) * inside
        hu = hu + share * (value - hu)
    return hu


def _body(patient, x, y, z, scale, step):
    p = patient.p
    width, depth = (p["width"] + p["wall"]) * scale, (p["depth"] + 0.8 * p["wall"]) * scale
    wide = 1 + 0.12 * smooth_step((z - 40) / 80)
    # The back is flatter than the front: the patient lies on it.
    back = np.where(y > 4, 0.93, 1.0)
    r = (np.abs(x) / (width * wide)) ** 2.5 + (np.abs(y - 4) / (depth * back)) ** 2.5
    return np.clip((1 - r) * depth / 2.5 / step + 0.5, 0, 1)


def _lung_mask(patient, x, y, z, step):
    """Share of lung (tissue, free air or lesion) in every pixel."""
    flat = np.full(x.shape, z, np.float32)
    middle, half = patient.cage(x, flat)
    mask = _filled((middle, half - 3), y, step)
    for span in (
        patient.heart(x, flat),
        patient.mediastinum(x, flat),
        patient.spine(x, flat),
        *patient.aorta(x, flat),
        *patient.hila(x, flat),
        *patient.abdomen(x, flat),
    ):
        mask = mask * (1 - _filled((span[0], span[1] + 1.5 * (span[1] > 0)), y, step))
    return mask


def _lung_hu(patient, x, y, z, size, step):
    """Inside the lungs: tissue denser towards the back, vessels, lesions, free air and free fluid
    where they settle.
    """
    p = patient.p
    hu = -1000 + 1000 * p["lung"] * 0.62 * (1 + 0.3 * y / p["depth"]) * (
        1 + 0.06 * noise(patient.seed, size, 40)
    )
    hu = hu + np.minimum(1.0, _vessels(patient, x, y, z, size, step)) * (30 - hu)
    texture = (
        1 + 0.45 * noise(patient.seed, size, 48, draw=1) if patient.finding != "nodule" else 1.0
    )
    for cx, cy, cz, rx, ry, rz, density, sharp in patient.lesions:
        edge = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2 - ((z - cz) / rz) ** 2
        hu = hu + np.clip(sharp * 2 * edge, 0, 1) * np.clip(density * 1.1 * texture, 0, 1) * (
            20 - hu
        )
    for side in patient.sides:
        width, depth = patient.cage_size(np.float64(z))
        here = x * side > 0
        if patient.finding == "effusion":
            # Lying down, fluid runs to the back: a crescent, deeper near the diaphragm.
            height = (0.55 + 0.011 * p["fluid"]) * np.clip(1.15 - (z - p["dome"]) / 190, 0, 1.2)
            surface = (
                depth * (1.05 - 0.75 * height) - 0.1 * np.abs(x) - 0.0012 * (np.abs(x) - 70) ** 2
            )
            hu = hu + here * np.clip((y - surface) / step + 0.5, 0, 1) * (FLUID - hu)
        if patient.finding == "pneumothorax":
            collapsed = ((x - side * 60) / (width - 1.3 * p["gap"] - 40)) ** 2 + (
                (y - 0.9 * p["gap"] - 6) / (depth - 1.0 * p["gap"])
            ) ** 2
            hu = hu + here * np.clip((collapsed - 1) * 40 / step + 0.5, 0, 1) * (-995 - hu)
            hu = hu + here * np.exp(-(((collapsed - 1) * 40) ** 2) / 2) * (-500 - hu) * 0.7
    return hu


def _vessels(patient, x, y, z, size, step):
    """Filling of every pixel by pulmonary vessels that cross the slice, 0 to 1 and more."""
    points = vessel_points(patient)
    points = points[np.abs(points[:, 2] - z) < SLICE_MM / 2 + points[:, 3] * 0.5]
    column, row = (points[:, 0] - x[0, 0]) / step, (points[:, 1] - y[0, 0]) / step
    mass = np.pi * points[:, 3] ** 2 * points[:, 4] / step**2 / SLICE_MM
    blur = {"least": 0.5, "share": 0.5 / step, "widest": 3.6}
    return 1.5 * vessels(points, column, row, mass, size, **blur)


def _bones(patient, x, y, z, step, hu):
    """Ribs, breast bone, vertebra and shoulder blades painted over the soft tissue."""
    p = patient.p
    width, depth = patient.cage_size(np.float64(z))
    radial = ((np.abs(x) / width) ** 2.3 + (np.abs(y - 0.06 * width) / depth) ** 2.3) ** (1 / 2.3)
    outward = (radial - 1) * (width + depth) / 2
    angle = np.arctan2(np.abs(x) / width, (y - 0.06 * width) / depth)
    phase = (z + rib_drop(angle, p["rib_slope"]) - TOP + 14 - p["rib_phase"]) / RIB_SPACING
    number = np.round(phase)
    rib = np.maximum(np.abs((phase - number) * RIB_SPACING) / 6.2, np.abs(outward - 5) / 4.2)
    rib = np.where((number <= 0) & (number > -12) & (angle < 2.75), rib, 9)
    bone = [(rib, 330, 750)]
    front = 0.06 * width - depth
    bone.append(
        (np.maximum(np.abs(x) / 19, np.abs(y - front + 8) / 6.5), 220, 600)
        if -40 < z < 100
        else (rib, 330, 750)
    )
    sx, sy = patient.turned(0, p["depth"] - 16)
    dx = x - sx
    body = np.maximum((np.abs(dx) / 18) ** 2.4 + (np.abs(y - sy) / 17) ** 2.4, 0) ** (1 / 2.4)
    arch = np.abs(np.hypot(dx / 1.15, y - sy - 27) - 12.5) / 4
    process = np.maximum(np.abs(dx) / 3.4, np.abs(y - sy - 44) / 8)
    wing = np.maximum(np.abs(y - sy - 24 - 0.28 * np.abs(dx)) / 4.5, np.abs(np.abs(dx) - 26) / 14)
    bone += [(body, 210, 520), (arch, 380, 700), (process, 300, 600), (wing, 250, 550)]
    if z > 0:
        blade = np.maximum(
            np.abs(outward - 20 + 0.05 * (np.abs(x) - 90)) / 3.2,
            np.abs(angle - 1.0 + 0.003 * z) / 0.34,
        )
        bone.append((blade, 300, 620))
    for shape, marrow, cortex in bone:
        value = marrow + (cortex - marrow) * np.clip((shape - 0.62) / 0.3, 0, 1)
        hu = hu + np.clip((1 - shape) * 4 / step + 0.5, 0, 1) * (value * p["bone"] - hu)
    return hu


def _airways(patient, x, y, z, hu, step):
    """Trachea and main bronchi where the slice crosses them."""
    for (ax, ay, az), (bx, by, bz), radius in patient.airways():
        if min(az, bz) - radius / 2 <= z <= max(az, bz):
            t = np.clip((z - az) / (bz - az), 0, 1)
            distance = np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))
            hu = hu + np.clip((radius + 1.5 - distance) / step + 0.5, 0, 1) * (30 - hu)
            hu = hu + np.clip((radius - distance) / step + 0.5, 0, 1) * (-990 - hu)
    return hu
