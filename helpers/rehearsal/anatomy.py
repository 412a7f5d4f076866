"""The shape of a parametric three-dimensional chest, for cutting CT slices and projecting X-rays.

Millimetres; x to the patient's left, y to the back, z to the head, origin in the middle of the
chest. A solid is the space between its front and back surface. It is a function of (x, z) that
returns (middle y, half thickness); a half thickness of 0 or less means that the ray misses it. So
one description serves both modalities: the thickness is a ray's path length, and a row of constant
z is a slice.
"""

import math
from dataclasses import dataclass, field

import numpy as np

FINDINGS = (
    "no_finding",
    "effusion",
    "consolidation",
    "infiltrates",
    "nodule",
    "pneumothorax",
    "cardiomegaly",
)
CLEAN_SIDE = {"no_finding": "", "infiltrates": "bilateral", "cardiomegaly": ""}
TOP = 132.0  # apex of the rib cage
RIB_SPACING = 26.0


@dataclass
class Patient:
    """A chest drawn from a seed: habitus, sizes, positions, rotation, vessels, and one finding on
    one side.

    `visit` varies the differences between two images of one person (position, depth of breath), not
    the person. Raises ValueError for an unknown finding or side.
    """

    seed: int
    finding: str = "no_finding"
    side: str = ""
    view: str = "PA"
    visit: int = 0
    sex: str = ""
    p: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.finding not in FINDINGS:
            raise ValueError(
                f"The phantom has no finding '{self.finding}'; one of: {', '.join(FINDINGS)}."
            )
        if self.side not in ("", "left", "right", "bilateral"):
            raise ValueError(
                f"The phantom has no side '{self.side}'; one of: left, right, bilateral."
            )
        self.side = CLEAN_SIDE.get(self.finding, self.side or "right")
        person = np.random.default_rng([self.seed, 1])
        pose = np.random.default_rng([self.seed, 2, self.visit])
        self.sex = self.sex or ("F" if person.random() < 0.45 else "M")
        habitus = _habitus(person, pose, self.sex, self.view, self.finding)
        # Use plain floats: a numpy float64 would widen every image to double precision.
        self.p = {name: float(value) for name, value in habitus.items()}
        self.vessels = np.concatenate(
            [
                _vessel_tree(np.random.default_rng([self.seed, 3, k]), self, side)
                for k, side in enumerate((-1, 1))
            ]
        )
        self.lesions = _lesions(np.random.default_rng([self.seed, 4, self.visit]), self)

    @property
    def sides(self) -> tuple[int, ...]:
        """-1 for the right lung, 1 for the left: where the finding is."""
        return {"right": (-1,), "left": (1,), "bilateral": (-1, 1)}.get(self.side, ())

    def turned(self, x: float, y: float) -> tuple[float, float]:
        """A point after the patient's rotation about the long axis."""
        c, s = math.cos(self.p["turn"]), math.sin(self.p["turn"])
        return c * x - s * y, s * x + c * y

    def cage(self, x, z):
        """The inside of the rib cage: an egg, pointed at the top."""
        width, depth = self.cage_size(z)
        return 0.06 * width, depth * _superellipse(x / width, 2.3)

    def cage_size(self, z):
        """Half width and half depth of the inside of the rib cage at height z, mm."""
        up = np.clip((TOP - z) / 300, 0.004, 1)
        return (
            self.p["width"] * (1 - (1 - up) ** 3.1) ** 0.46,
            self.p["depth"] * (1 - (1 - up) ** 2.6) ** 0.5,
        )

    def body(self, x, z):
        """Skin surface: trunk with shoulders, slope to the neck, arms down at the sides."""
        p = self.p
        shoulder = smooth_step((z - 40) / 110)
        width = p["width"] + p["wall"] + 70 * shoulder
        depth = (p["depth"] + p["wall"]) * (1 - 0.25 * shoulder)
        top = 178 - 0.42 * np.clip(np.abs(x) - 55, 0, None)
        roof = np.sqrt(np.clip((top - z) / 60, 0, 1))
        trunk = depth * roof * _superellipse(x / width, 2.6)
        neck = np.where(z > 120, 58 * _superellipse(x / 58, 2.2), 0)
        return 4.0, np.maximum(trunk, neck)

    def breasts(self, x, z):
        """Soft tissue in front of the chest wall, one thickness per side: list of (middle,
        half).
        """
        size = self.p["breast"]
        front = -self.p["depth"] - self.p["wall"]
        spans = []
        for side in (-1, 1):
            q = ((x - side * 72) / (size + 12)) ** 2 + np.where(
                z > -84, (z + 84) / (2.2 * size), (z + 84) / (0.8 * size)
            ) ** 2
            spans.append((front + 0.25 * np.abs(x), 0.55 * size * np.clip(1 - q, 0, None) ** 1.3))
        return spans

    def heart(self, x, z):
        """An ellipsoid leaning to the patient's left and front, its apex nearest to the breast
        bone.
        """
        p = self.p
        cx, cy = self.turned(24 + p["heart_x"], -20)
        q = _tilted(x - cx, z - p["heart_z"], 0.66, 79 * p["heart"], 57 * p["heart"])
        return cy - 0.3 * (x - cx), 55 * p["heart"] * np.sqrt(np.clip(1 - q, -1, None) * (q < 1))

    def mediastinum(self, x, z):
        """Great vessels, trachea's sleeve and fat between the lungs."""
        cx, _ = self.turned(0, 10)
        width = (
            self.p["mediastinum"]
            + 17 * smooth_step((z - 64) / 56)
            + 14 * smooth_step((-z - 10) / 60)
            + 2.5 * np.cos(z / 17)
        )
        return 8.0, 0.93 * self.cage_size(z)[1] * _superellipse((x - cx) / width, 1.7)

    def aorta(self, x, z):
        """Arch (the knob on the left) and descending aorta."""
        r = self.p["aorta"]
        kx, ky = self.turned(21, 10)
        dx, dy = self.turned(22, 48)
        knob = 1 - ((x - kx) / (1.25 * r)) ** 2 - ((z - 62) / (1.2 * r)) ** 2
        descending = 1 - ((x - dx + 8 * smooth_step((-z - 20) / 100)) / r) ** 2
        return [
            (ky, r * 1.35 * np.sqrt(np.clip(knob, 0, None))),
            (dy, smooth_step((74 - z) / 24) * r * np.sqrt(np.clip(descending, 0, None))),
        ]

    def hila(self, x, z):
        """Pulmonary arteries where they enter the lungs, the left one higher."""
        r = self.p["hilum"]
        spans = []
        for side, height in ((-1, 8), (1, 20)):
            hx, hy = self.turned(side * 33, 6)
            q = _tilted(x - hx, z - height, side * -1.05, 1.9 * r, 0.85 * r)
            spans.append((hy, r * np.sqrt(np.clip(1 - q, 0, None))))
        return spans

    def spine(self, x, z):
        """Vertebral bodies; the discs between them are part of the density."""
        sx, sy = self.turned(0, self.p["depth"] - 16)
        waist = 1 + 0.06 * np.cos(2 * np.pi * (z - 4) / 25)
        return sy, 19 * waist * _superellipse(
            (x - sx - 0.0004 * self.p["scoliosis"] * z * z) / (18 * waist), 2.4
        )

    def abdomen(self, x, z):
        """Everything below the two domes of the diaphragm: list of (middle, half), right and
        left.
        """
        spans = []
        for side, top in ((-1, self.p["dome"]), (1, self.p["dome"] - self.p["dome_step"])):
            # The domes overlap in the middle, where the heart lies on them.
            drop = (top - z) / 62 - ((x - side * 66) / (0.58 * self.p["width"])) ** 2
            deep = self.p["depth"] * 1.05 * np.sqrt(np.clip(drop, 0, None))
            spans.append((-12 + 0 * x, np.where((x * side > -25), deep, 0)))
        return spans

    def effusion_level(self, x):
        """Height of free fluid in an upright chest, rising towards the wall as a meniscus."""
        lateral = np.clip(np.abs(x) / self.p["width"], 0, 1)
        return self.p["dome"] - 14 + self.p["fluid"] + 46 * lateral**5

    def collapse(self, x, z):
        """How far inside the visceral pleura of a collapsed lung, mm; negative in the free air of a
        pneumothorax.
        """
        gap = self.p["gap"] * (0.55 + 0.9 * smooth_step((z - 0) / 120))
        return self.cage_size(z + 1.1 * gap)[0] - gap - np.abs(x)

    def airways(self) -> list[tuple[tuple, tuple, float]]:
        """Trachea and main bronchi: (start, end, radius in mm)."""
        t, (cx, cy) = self.p["trachea"], self.turned(0, 14)
        carina = (cx + 1, cy, 44)
        return [
            ((cx - 2, cy - 12, 190), carina, t),
            (carina, (-34, cy - 4, 18), 0.75 * t),
            (carina, (38, cy - 4, 24), 0.65 * t),
        ]


def _habitus(person, pose, sex, view, finding):
    large = 0.92 if sex == "F" else 1.0
    deep = pose.uniform(-1, 1)
    heart = (
        person.normal(0.93, 0.05)
        * (1.08 if view == "AP" else 1)
        * (1.36 if finding == "cardiomegaly" else 1)
    )
    return {
        "width": large * person.normal(138, 6),
        "depth": large * person.normal(92, 6),
        "wall": person.uniform(24, 44),
        "fat": person.uniform(8, 24),
        "breast": person.uniform(26, 50) if sex == "F" else 0.1,
        "heart": np.clip(heart, 0.78, 1.42),
        "heart_x": person.normal(0, 4),
        "heart_z": person.normal(-48, 5) + 3 * deep + (6 if view == "AP" else 0),
        "mediastinum": person.uniform(21, 27) * (1.1 if view == "AP" else 1),
        "aorta": person.uniform(11, 16),
        "hilum": person.uniform(10, 13.5),
        "trachea": person.uniform(7.5, 10),
        "scoliosis": person.normal(0, 1.2),
        "dome": person.normal(-58, 6) + (-8 * deep if view == "PA" else 12 - 6 * deep),
        "dome_step": person.uniform(4, 17),
        "bone": person.uniform(0.75, 1.15),
        "lung": person.uniform(0.2, 0.3) + (0.05 if view == "AP" else 0),
        "rib_phase": person.uniform(-6, 6),
        "rib_slope": person.uniform(0.85, 1.2),
        "gas": max(0.0, person.uniform(-30, 34)),
        "shoulder": pose.uniform(-4, 30) - (14 if view == "AP" else 0),
        "contrast_hu": person.choice([45.0, 45.0, 130.0]),
        "contrast": pose.uniform(3.6, 4.8),
        "fluid": pose.uniform(14, 55),
        "gap": pose.uniform(14, 30),
        "turn": pose.normal(0, 0.045),
        "tilt": pose.normal(0, 0.02),
        "shift_x": pose.normal(0, 5),
        "shift_z": pose.normal(0, 6),
        "zoom": pose.uniform(1.02, 1.18),
        "clavicle": pose.normal(0, 7) + (8 if view == "AP" else 0),
    }


def _vessel_tree(rng, patient, side):
    """Straight pieces of the pulmonary vessels of one lung: (n, 7) of start xyz, end xyz, radius in
    mm.
    """
    angle = np.linspace(-1.35, 1.3, 9) + rng.normal(0, 0.1, 9)
    direction = np.stack(
        [side * np.cos(angle), rng.uniform(-0.7, 0.7, 9), np.sin(angle) - 0.1], axis=1
    )
    origin = np.array([side * 36.0, 6.0, 14.0 if side > 0 else 4.0]) + rng.normal(0, 4, (9, 3))
    radius = np.where(angle < 0.4, rng.uniform(3.0, 4.4, 9), 2.4)
    pieces = []
    for generation in range(6):
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        end = origin + direction * (rng.uniform(15, 30, len(origin)) * 0.86**generation)[:, None]
        inside = _inside_lung(patient, end, side)
        pieces.append(np.column_stack([origin, end, radius])[inside])
        origin = np.repeat(end[inside], 2, axis=0)
        direction = np.repeat(direction[inside], 2, axis=0) + rng.normal(
            0, 0.42, (2 * inside.sum(), 3)
        )
        radius = np.repeat(radius[inside], 2) * rng.uniform(0.68, 0.84, len(origin))
    return np.concatenate(pieces)


def _inside_lung(patient, points, side):
    x, y, z = points.T
    width, depth = patient.cage_size(z)
    top = patient.p["dome"] - (patient.p["dome_step"] if side > 0 else 0)
    dome = top - 62 * ((x - side * 66) / (0.58 * patient.p["width"])) ** 2
    return (
        ((np.abs(x) / (width - 4)) ** 2 + (y / (depth - 4)) ** 2 < 1)
        & (z > dome + 3)
        & (x * side > 18)
    )


def _lesions(rng, patient):
    """Round densities in the lungs: (n, 8) of centre xyz, radii xyz, density of water, sharpness of
    the edge.
    """
    found = []
    for side in patient.sides:
        low = patient.p["dome"] + 6
        if patient.finding == "consolidation":
            middle = rng.uniform([68, -20, low + 5], [86, 35, low + 75]) * [side, 1, 1]
            for _ in range(5):
                centre, radii = middle + rng.normal(0, [11, 14, 10]), rng.uniform(16, 34, 3)
                found.append([*centre, *radii, rng.uniform(0.35, 0.6), 2.0])
        for _ in range(rng.integers(9, 15) if patient.finding == "infiltrates" else 0):
            z = rng.uniform(low, 70)
            x = side * rng.uniform(48, max(56, patient.cage_size(z)[0] - 14))
            y, radii = rng.uniform(-45, 55), rng.uniform(12, 30, 3)
            found.append([x, y, z, *radii, rng.uniform(0.12, 0.32), 1.2])
        if patient.finding == "nodule":
            z = rng.uniform(low + 22, 85)
            x = side * rng.uniform(52, max(58, patient.cage_size(z)[0] - 26))
            y, radii = rng.uniform(-25, 35), rng.uniform(9, 16) * rng.uniform(0.9, 1.1, 3)
            found.append([x, y, z, *radii, 0.95, 8.0])
    return np.array(found).reshape(-1, 8)


def _superellipse(u, power):
    """(1 - |u|^power)^(1/power), 0 outside."""
    return np.clip(1 - np.abs(u) ** power, 0, None) ** (1 / power)


def _tilted(x, z, angle, a, b):
    """Quadratic form of an ellipse with half axes a, b, turned by `angle` in the frontal plane; 1
    on its edge.
    """
    c, s = math.cos(angle), math.sin(angle)
    return ((c * x - s * z) / a) ** 2 + ((s * x + c * z) / b) ** 2


def smooth_step(t):
    """Smooth step from 0 at t=0 to 1 at t=1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def vessel_points(patient):
    """Points along the vessels of both lungs, at most 1 mm apart: (n, 5) of x, y, z, radius and the
    length each stands for, mm.
    """
    pieces, steps = patient.vessels[:, None], 18
    t = (np.arange(steps) + 0.5) / steps
    start, way = pieces[..., :3], pieces[..., 3:6] - pieces[..., :3]
    points = start + way * t[None, :, None]
    length = np.linalg.norm(way, axis=2, keepdims=True) / steps
    columns = [points, *(np.repeat(one, steps, 1) for one in (pieces[..., 6:], length))]
    return np.concatenate(columns, axis=2).reshape(-1, 5)


def rib_drop(angle, slope):
    """How far a rib lies below its head at the spine, mm, after an angle from back (0) to front
    (pi).
    """
    return slope * (14 * (1 - np.cos(angle)) + 22 * angle)
