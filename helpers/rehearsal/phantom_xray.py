"""X-rays of the simulated chest in anatomy.py: its projection by the attenuation law, I = I0
exp(-sum of mu * path), with noise.

The patient's right is on the image's left, as in a clinic.
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
from helpers.rehearsal.drawing import noise, resized, vessels

# Per mm at about 70 keV; for bone, beyond the water that it displaces.
MU_WATER, MU_BONE = (0.0195, 0.034)
FIELD_MM = 400.0
COARSE = 160  # grid of the smooth organs; ribs, vessels and noise are drawn at full size


def xray(
    seed: int,
    finding: str = "no_finding",
    side: str = "",
    size: int = 512,
    view: str = "PA",
    visit: int = 0,
    sex: str = "",
) -> np.ndarray:
    """A frontal chest X-ray, (size, size) uint16 with 12 bits; bright pixels attenuate most."""
    patient = Patient(seed, finding, side, view, visit, sex)
    rng = np.random.default_rng([seed, 5, visit])
    path = resized(_organ_path(patient, *_frontal_grid(patient, min(size, COARSE))), size)
    x, z = _frontal_grid(patient, size)
    path += MU_WATER * _vessel_path(patient, size) + MU_BONE * patient.p["bone"] * _bone_path(
        patient, x, z
    )
    primary = np.exp(-path)
    scatter = _blurred(primary, 5)
    signal = primary + 0.25 * scatter + 0.002
    photons = (60_000 if view == "PA" else 30_000) * (FIELD_MM / size) ** 2
    signal += rng.standard_normal((size, size), dtype=np.float32) * np.sqrt(signal / photons)
    return _displayed(-np.log(np.maximum(signal, 1e-4)), patient.p["contrast"])


def _displayed(density, contrast):
    """The detector's image as a workstation shows it: a little edge enhancement, a soft shoulder,
    12 bits.
    """
    step = max(1, density.shape[0] // 128)
    density = density + 0.5 * (density - _blurred(density, 3))
    low, high = np.percentile(density[::step, ::step], [6, 97])
    level = np.clip((density - low) / (high - low), -0.35, 1.4)
    return (4095 / (1 + np.exp(-contrast * (level - 0.5)))).astype(np.uint16)


def _blurred(picture, sigma):
    """The image blurred widely; `sigma` in 64ths of its side."""
    return resized(ndimage.gaussian_filter(resized(picture, 64), sigma), picture.shape[0])


def _frontal_grid(patient, size):
    """x and z in mm of every pixel, as the patient stands before the detector."""
    p = patient.p
    step = FIELD_MM / p["zoom"] / size
    along = ((np.arange(size, dtype=np.float32) - (size - 1) / 2) * step).astype(np.float32)
    x, z = along[None, :] - p["shift_x"], -along[:, None] - p["shift_z"] + 6
    return x + p["tilt"] * z, z - p["tilt"] * x


def _organ_path(patient, x, z):
    """Sum of mu * path through everything smooth: body, lungs and what lies in them."""
    p, water = patient.p, 2 * np.clip(patient.body(x, z)[1], 0, None)
    water = water + 2 * sum(half for _, half in patient.breasts(x, z))
    middle, half = patient.cage(x, z)
    obstacles = [
        patient.heart(x, z),
        patient.mediastinum(x, z),
        patient.spine(x, z),
        *patient.aorta(x, z),
        *patient.hila(x, z),
        *patient.abdomen(x, z),
    ]
    if patient.finding == "effusion":
        for side in patient.sides:
            wet = smooth_step((patient.effusion_level(x) - z) / 14) ** 0.7 * (x * side > 0)
            obstacles.append((middle, half * wet))
    lung = _uncovered(middle - half, middle + half, obstacles) * (z < TOP)
    water = water - lung * (1 - _lung_density(patient, x, z)) + _lesion_path(patient, x, z, lung)
    if p["gas"] > 0:
        gx, gz = 62, p["dome"] - p["dome_step"] - 24
        bubble = 1 - ((x - gx) / 26) ** 2 - ((z - gz + 0.2 * (x - gx)) / 15) ** 2
        water = water - p["gas"] * np.clip(bubble, 0, None) ** 0.8
    for start, end, radius in patient.airways():
        water = water - 1.3 * _tube(x, z, start, end, radius)
    return MU_WATER * np.clip(water, 0, None)


def _lung_density(patient, x, z):
    """Density of lung tissue against water: uneven, denser at the base, none in the free air of a
    pneumothorax.
    """
    density = (
        patient.p["lung"]
        * (1 + 0.12 * np.tanh(-z / 80))
        * (
            1
            + 0.1 * noise(patient.seed, x.shape[1], 5)
            + 0.07 * noise(patient.seed, x.shape[1], 20)
        )
    )
    if patient.finding == "pneumothorax":
        for side in patient.sides:
            depth = patient.collapse(x, z)
            line = np.exp(-((depth / 1.6) ** 2)) * 0.14
            density = np.where(
                x * side > 20, np.where(depth > 0, 1.15 * density, 0.0) + line, density
            )
    return density


def _uncovered(front, back, obstacles):
    """Length of each ray between front and back that no obstacle covers (a sweep over intervals
    sorted by their start).
    """
    shape = front.shape
    middle = np.stack([np.broadcast_to(m, shape) for m, _ in obstacles])
    half = np.stack([np.broadcast_to(h, shape) for _, h in obstacles])
    begins = np.where(half > 0, np.maximum(middle - half, front), np.inf)
    ends = np.where(half > 0, np.minimum(middle + half, back), -np.inf)
    order = np.argsort(begins, axis=0)
    begins, ends = np.take_along_axis(begins, order, 0), np.take_along_axis(ends, order, 0)
    free, reached = np.maximum(back - front, 0), front
    for begin, end in zip(begins, ends):
        free = free - np.maximum(end - np.maximum(begin, reached), 0)
        reached = np.maximum(reached, end)
    return np.maximum(free, 0)


def _lesion_path(patient, x, z, lung):
    """Water added by consolidations, infiltrates and nodules, at most what the lung on that ray can
    hold.
    """
    added = np.zeros(x.shape, np.float32)
    texture = (
        1 + 0.5 * noise(patient.seed, x.shape[1], 34) if patient.finding == "infiltrates" else 1.0
    )
    for cx, _, cz, rx, ry, rz, density, sharp in patient.lesions:
        edge = np.clip(1 - ((x - cx) / rx) ** 2 - ((z - cz) / rz) ** 2, 0, None)
        added += 2 * ry * density * np.minimum(np.sqrt(edge), sharp * edge)
    return np.minimum(added * texture, 0.85 * lung)


def _tube(x, z, start, end, radius):
    """Path through a straight tube seen from the front."""
    ax, az, bx, bz = start[0], start[2], end[0], end[2]
    length2 = (bx - ax) ** 2 + (bz - az) ** 2
    along = np.clip(((x - ax) * (bx - ax) + (z - az) * (bz - az)) / length2, 0, 1)
    distance2 = (x - ax - along * (bx - ax)) ** 2 + (z - az - along * (bz - az)) ** 2
    return 2 * np.sqrt(np.clip(radius**2 - distance2, 0, None))


def _vessel_path(patient, size):
    """Path through the pulmonary vessels: their mass spread along their course, then blurred to
    their width.
    """
    points = vessel_points(patient)
    if patient.finding == "pneumothorax":
        gone = (patient.collapse(points[:, 0], points[:, 2]) < 0) & np.isin(
            np.sign(points[:, 0]), patient.sides
        )
        points = points[~gone]
    step = FIELD_MM / patient.p["zoom"] / size
    tilt = patient.p["tilt"]
    px, pz = points[:, 0] - tilt * points[:, 2], points[:, 2] + tilt * points[:, 0]
    column = (px + patient.p["shift_x"]) / step + (size - 1) / 2
    row = -(pz + patient.p["shift_z"] - 6) / step + (size - 1) / 2
    mass = np.pi * points[:, 3] ** 2 * points[:, 4] / step**2
    blur = {"least": 0.6, "share": 0.55 / step, "widest": 3.4, "more": 0.35}
    return vessels(points, column, row, mass, size, **blur)


def _bone_path(patient, x, z):
    """Path through bone seen from the front: ribs behind and in front, clavicles, vertebrae,
    shoulders.
    """
    p = patient.p
    width = patient.cage_size(z)[0] + 3
    across = np.clip(np.abs(x) / width, 0, 0.9995)
    back = np.arcsin(across)
    lean = 1 / np.maximum(np.sqrt(1 - across**2), 0.16)
    bone = np.zeros(x.shape, np.float32)
    for angle, strength in ((back, 1.0), (np.pi - back, 0.8)):
        phase = (z + rib_drop(angle, p["rib_slope"]) - TOP + 14 - p["rib_phase"]) / RIB_SPACING
        number = np.round(phase)
        slope = 22 * p["rib_slope"] * lean / np.maximum(width, 30)
        inside = 1 - ((phase - number) * RIB_SPACING / (5.6 * np.sqrt(1 + slope**2))) ** 2
        profile = np.clip(inside * 4, 0, 1) * (1.35 - 0.6 * np.clip(inside, 0, 1))
        if strength < 1:
            profile = profile * smooth_step((across - 0.32) / 0.12)
        bone += (
            profile * strength * 4.4 * lean * (np.abs(x) < width) * (number <= 0) * (number > -12)
        )
    for part, where in (
        (_clavicles, np.s_[(z > 70).any(axis=1), :]),
        (_vertebrae, np.s_[:, (np.abs(x) < 70).any(axis=0)]),
        (_shoulders, np.s_[:, (x < -90).any(axis=0)]),
        (_shoulders, np.s_[:, (x > 90).any(axis=0)]),
    ):
        # Compute each only where it can be, because most of the image has none.
        bone[where] += part(patient, x[where], z[where])
    return bone


def _clavicles(patient, x, z):
    side = np.abs(x)
    height = 106 + patient.p["clavicle"] + 0.26 * (side - 18) + 7 * np.sin((side - 10) / 26)
    tube = np.clip(1 - ((z - height) / (6.3 + 2.5 * np.exp(-(((side - 18) / 12) ** 2)))) ** 2, 0, 1)
    return (
        9
        * np.sqrt(tube)
        * (1.25 - 0.4 * tube)
        * smooth_step((side - 12) / 5)
        * smooth_step((172 - side) / 8)
    )


def _vertebrae(patient, x, z):
    half = np.clip(patient.spine(x, z)[1], 0, None)
    middle = x - patient.turned(0, 70)[0] - 0.0004 * patient.p["scoliosis"] * z * z
    level = (z - 4) / 25 - np.round((z - 4) / 25)
    endplates = (
        0.42
        - 0.16 * np.exp(-(((np.abs(level) - 0.5) / 0.09) ** 2))
        + 0.14 * np.exp(-(((np.abs(level) - 0.38) / 0.05) ** 2))
    )
    pedicles = np.exp(-(((np.abs(middle) - 12) / 3) ** 2) - ((level * 25 - 4) / 5) ** 2)
    process = np.exp(-((middle / 3) ** 2) - ((level * 25 + 6) / 6) ** 2)
    return 0.75 * endplates * half + 5 * pedicles + 6 * process


def _shoulders(patient, x, z):
    out = patient.p["shoulder"]
    side = np.abs(x)
    # The blade: a thin plate with a thick border towards the ribs, turned away from the lungs for a
    # PA view.
    q = ((side - 150 - out) / 34) ** 2 + ((z - 62 + 0.35 * (side - 150)) / 62) ** 2
    blade = 3.0 * (q < 1) + 4.5 * np.exp(-(((q - 1) / 0.12) ** 2))
    head = 22 * np.sqrt(np.clip(1 - ((side - 186 - out) ** 2 + (z - 108) ** 2) / 24**2, 0, None))
    shaft = np.clip(1 - ((side - 192 - out + 0.12 * (z - 90)) / 11) ** 2, 0, None)
    return blade + head + 16 * np.sqrt(shaft) * (1.2 - 0.5 * shaft) * smooth_step((112 - z) / 14)
