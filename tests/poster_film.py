"""A film of the printed key figure for Chromium's fake camera, with the figure's true corners.

Every frame is the poster seen through a pinhole camera: moved, turned in the plane, tilted by up to
40 degrees, poorly lit, out of focus and noisy. Sixteen squares in the upper left corner tell its
number.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None
WIDTH, HEIGHT, SQUARE, BITS = 1280, 720, 16, 10


def scene(poster: Path) -> tuple[np.ndarray, np.ndarray]:
    """The figure with paper around it out of poster.png, grey, and its corners there in pixels."""
    place = json.loads((poster.parent / "poster.json").read_text())["figure"]
    with Image.open(poster) as page:
        grey = np.asarray(page.convert("L"))
    height, width = grey.shape
    left, top = place["left"] * width, place["top"] * height
    right, bottom = left + place["width"] * width, top + place["height"] * height
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    return grey, corners


def homography(corners: np.ndarray, turn: float, tilt: float, axis: float, share: float, shift):
    """Poster pixels to camera pixels: `turn` in the plane, `tilt` about an axis in the plane at
    `axis` (degrees); the figure takes `share` of the camera's width and lies `shift` from its
    middle (shares of width and height).
    """
    middle, side = corners.mean(axis=0), np.linalg.norm(corners[1] - corners[0])
    turned, about = np.radians(turn), np.radians(axis)
    direction = np.array([np.cos(about), np.sin(about), 0]) * np.radians(tilt)
    spin = np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    rotation = cv2.Rodrigues(direction)[0] @ np.block([[spin, np.zeros((2, 1))], [0, 0, 1]])
    focal = 1.1 * WIDTH
    distance = focal / (share * WIDTH)
    camera = np.array(
        [[focal, 0, WIDTH * (0.5 + shift[0])], [0, focal, HEIGHT * (0.5 + shift[1])], [0, 0, 1]]
    )
    plane = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, distance]])
    normal = np.array(
        [[1 / side, 0, -middle[0] / side], [0, 1 / side, -middle[1] / side], [0, 0, 1]]
    )
    return camera @ plane @ normal


def make(poster: Path, film: Path, frames: int = 90, seed: int = 0, picture=None) -> np.ndarray:
    """Write the film (MJPEG); returns the corners in every frame, (frames, 4, 2), in pixels.

    `picture`: grey pixels in place of the poster's own figure and its surroundings.
    """
    random = np.random.default_rng(seed)
    grey, corners = scene(poster) if picture is None else picture
    truth, shots = [], []
    for number in range(frames):
        t = number / frames * 2 * np.pi
        tilt = 40 * abs(np.sin(1.5 * t + 0.3))
        h = homography(
            corners,
            turn=35 * np.sin(t),
            tilt=tilt,
            axis=np.degrees(2 * t),
            share=0.55 + 0.14 * np.sin(3 * t),
            shift=(0.05 * np.cos(2 * t), 0.04 * np.sin(2 * t)),
        )
        seen = cv2.warpPerspective(
            grey, h, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderValue=150
        ).astype(np.float32)
        seen = cv2.GaussianBlur(seen, (0, 0), 0.8 + 0.5 * random.random())
        dim = 0.28 + 0.5 * (0.5 + 0.5 * np.sin(2 * t + 1))
        ramp = np.linspace(1, 0.55, WIDTH)[None, :] * np.linspace(0.8, 1, HEIGHT)[:, None]
        seen = seen * dim * ramp + 14 + random.normal(0, 7, seen.shape)
        seen = np.clip(seen, 0, 255).astype(np.uint8)
        for bit in range(BITS):
            lit = 255 if number >> bit & 1 else 0
            seen[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = lit
        shots.append(cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        truth.append(cv2.perspectiveTransform(corners[None], h)[0])
    film.write_bytes(b"".join(shots))
    return np.array(truth)
