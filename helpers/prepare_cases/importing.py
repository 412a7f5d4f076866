"""The import loop: every file of a folder read, standardised and stored, over all cores, in bounded
memory, to be continued.

What is known about persons while importing (names, paths, patient ids) lives in .keys/<study>/
alone.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from helpers import burned_in_text, images
from helpers.formats import volumes
from helpers.prepare_cases import deidentify, duplicates
from helpers.runner.workers import worker_pool

# The only endings that may be told: a name such as scan.smith would tell a person's.
ENDINGS = ["csv", "tsv", "txt", "md", "json", "xml", "xlsx", "pdf", "html", "zip", "gz", "npy"]
ENDINGS += ["dcm", "png", "jpg", "jpeg", "tif", "tiff", "webp", "bmp", "gif", "nii"]
PRINT_BYTES = duplicates.SIDE**2  # of a fingerprint
CHUNK = 16  # files handed to a worker at once


@dataclass(frozen=True)
class Settings:
    """What decides the pixels: the same settings and files give the same images."""

    size: int
    bits: int
    lung_center: float
    lung_width: float
    min_lung_share: float
    slices: int
    min_pixels: int
    xray_window: str
    default_modality: str
    burned_in_text: str  # mask, reject, keep or review
    decisions: tuple[
        tuple[str, str], ...
    ] = ()  # (image id, mask | reject | keep) from an earlier review


@dataclass
class Taken:
    """What came of one file: its images, or the reason why there are none."""

    file: str
    kind: str = ""
    reason: str = ""
    pictures: list[dict] = field(default_factory=list)


def files_below(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below a folder, sorted; a link to a folder is listed like a
    file, and not followed.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in [*names, *linked]]
    return sorted(found)


def take(
    folder: Path,
    known: list[dict],
    target: Path,
    journal: Path,
    settings: Settings,
    secret: bytes,
    workers: int = 0,
) -> Iterator[Taken]:
    """Import every file that `known` describes (keys file, modality, sha256, skip) into `target`;
    yields as they are done.

    `journal` (mode 0600, in .keys) remembers what is done: a second call goes on, and takes an
    image again only if its PNG is missing or damaged. `workers` 0 means all cores this process may
    use.
    """
    target.mkdir(parents=True, exist_ok=True)
    prints = fingerprints_file(journal)
    done = _resumed(journal, _mark(folder, settings, known), target)
    yield from done.values()
    waiting = [row for row in known if row["file"] not in done]
    with _private(journal, "a") as record, _private(prints, "ab") as fingerprints:
        for chunk in _parallel(
            waiting, (folder, target, settings, secret), workers or len(os.sched_getaffinity(0))
        ):
            for picture in (picture for taken in chunk for picture in taken.pictures):
                place = fingerprints.tell() // PRINT_BYTES
                fingerprints.write(picture["fingerprint"].tobytes())
                picture["fingerprint"] = place
            fingerprints.flush()
            record.writelines(json.dumps(asdict(taken)) + "\n" for taken in chunk)
            record.flush()
            yield from chunk


def fingerprints_file(journal: Path) -> Path:
    """Where an import keeps the fingerprints of its images, one after the other; each image's row
    says which is its own.
    """
    return journal.with_suffix(".fingerprints")


def _private(path: Path, mode: str):
    return os.fdopen(
        os.open(
            path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if "w" in mode else os.O_APPEND), 0o600
        ),
        mode,
    )


def _mark(folder: Path, settings: Settings, known: list[dict]) -> str:
    described = hashlib.sha256(
        json.dumps(known, sort_keys=True).encode("utf-8", "surrogateescape")
    ).hexdigest()
    return json.dumps(
        {"folder": str(folder), "settings": asdict(settings), "known": described}, sort_keys=True
    )


def _resumed(journal: Path, mark: str, target: Path) -> dict[str, Taken]:
    """What an interrupted import with the same settings finished, PNG files checked by hash; else a
    new journal.
    """
    done = {}
    prints = fingerprints_file(journal)
    lines = journal.read_text().split("\n") if journal.is_file() else []
    if lines and lines[0] == mark and prints.is_file():
        stored = prints.stat().st_size // PRINT_BYTES
        for line in lines[1:-1]:  # what follows the last line end was cut off
            taken = Taken(**json.loads(line))
            if all(
                picture["fingerprint"] < stored
                and _intact(target.parent / picture["path"], picture["sha256"])
                for picture in taken.pictures
            ):
                done[taken.file] = taken
        os.truncate(prints, stored * PRINT_BYTES)
    else:
        _private(prints, "wb").close()
    temporary = journal.with_suffix(".part")
    with _private(temporary, "w") as record:
        record.writelines(
            [mark + "\n", *(json.dumps(asdict(taken)) + "\n" for taken in done.values())]
        )
    temporary.replace(journal)
    return done


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _parallel(rows: list[dict], common: tuple, workers: int) -> Iterator[list[Taken]]:
    """Chunks of rows through worker processes, at most two per worker under way; a file that kills
    its worker is named.
    """
    chunks = iter([rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)])
    if workers == 1 and len(rows) < CHUNK:
        yield from (take_chunk(chunk, *common) for chunk in chunks)
        return
    pool, under_way = worker_pool(workers, __name__), {}
    try:
        while True:
            while len(under_way) < 2 * workers and (chunk := next(chunks, None)):
                under_way[pool.submit(take_chunk, chunk, *common)] = chunk
            if not under_way:
                return
            finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in finished):
                pool.shutdown(cancel_futures=True)
                for chunk in _alive(under_way):
                    yield chunk
                yield from _one_by_one(
                    [
                        row
                        for future, chunk in under_way.items()
                        if not _succeeded(future)
                        for row in chunk
                    ],
                    common,
                )
                pool, under_way = worker_pool(workers, __name__), {}
                continue
            for future in finished:
                under_way.pop(future)
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _succeeded(future: Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _alive(under_way: dict[Future, list[dict]]) -> list[list[Taken]]:
    return [future.result() for future in under_way if _succeeded(future)]


def _one_by_one(rows: list[dict], common: tuple) -> Iterator[list[Taken]]:
    """Each file for itself in one worker, so that the file on which it dies is known; then another
    worker goes on.
    """
    pool = worker_pool(1, __name__)
    try:
        for row in rows:
            try:
                yield pool.submit(take_chunk, [row], *common).result()
            except BrokenProcessPool:
                yield [Taken(row["file"], reason="damaged: the decoder crashed on it")]
                pool.shutdown()
                pool = worker_pool(1, __name__)
    finally:
        pool.shutdown()


def take_chunk(
    rows: list[dict], folder: Path, target: Path, settings: Settings, secret: bytes
) -> list[Taken]:
    """A worker's share: read, standardise and store the images of some files."""
    return [take_file(row, folder, target, settings, secret) for row in rows]


def take_file(row: dict, folder: Path, target: Path, settings: Settings, secret: bytes) -> Taken:
    """One file: its stored images, or the reason why there are none."""
    ending = Path(row["file"]).suffix.lower()[1:]
    taken = Taken(row["file"], kind=ending if ending in ENDINGS else "")
    if row.get("skip"):
        taken.reason = row["skip"]
        return taken
    path = folder / row["file"]
    reasons = []
    try:
        if not path.is_file():  # a pipe would be waited for
            raise images.ImageError(
                "link to a folder, not followed"
                if path.is_dir()
                else "cannot be read (a link to nothing, or no plain file)"
            )
        if (
            row.get("sha256")
            and hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"].lower()
        ):
            raise images.ImageError("is not the file the metadata means: another SHA-256")
        s = settings
        for picture in images.read(
            path,
            s.lung_center,
            s.lung_width,
            s.bits,
            row.get("modality", ""),
            s.slices,
            s.xray_window,
            s.min_lung_share,
            s.default_modality,
        ):
            taken.kind = picture.kind
            try:
                taken.pictures.append(_store(picture, row, target, settings, secret))
            except images.ImageError as error:
                reasons.append(str(error))
    except images.ImageError as error:
        reasons = [str(error)]
        for picture in taken.pictures:
            (target.parent / picture["path"]).unlink(missing_ok=True)
        taken.pictures = []
    except OSError as error:
        reasons = [f"cannot be read ({error.strerror})"]
    if not taken.pictures:
        taken.reason = reasons[0] if reasons else "holds no image"
    return taken


def _without_text(
    picture: images.Picture, image_id: str, settings: Settings
) -> tuple[np.ndarray, float, list[str]]:
    """The image as the policy on burned-in text wants it, the share masked, and crops (PNG, base64)
    to be looked at.
    """
    policy = dict(settings.decisions).get(image_id, settings.burned_in_text)
    boxes = burned_in_text.find(picture.pixels, picture.bits) if policy != "keep" else []
    if boxes and policy == "reject":
        raise images.ImageError("text in the pixels")
    if policy == "review":
        crops = [burned_in_text.crop(picture.pixels, picture.bits, corners) for corners in boxes]
        return (
            picture.pixels,
            0.0,
            [base64.b64encode(images.write_png(np.asarray(crop))).decode() for crop in crops],
        )
    return *burned_in_text.mask(picture.pixels, boxes), []


def _store(
    picture: images.Picture, row: dict, target: Path, settings: Settings, secret: bytes
) -> dict:
    header = picture.header
    modality = (
        row.get("modality")
        or getattr(header, "modality", "")
        or ("ct" if picture.hounsfield is not None else settings.default_modality)
    )
    if modality not in ("xray", "ct"):
        raise images.ImageError(
            "neither the file nor a metadata table says whether it is an X-ray or CT;"
            " default_modality can"
        )
    height, width = picture.pixels.shape
    if min(height, width) < settings.min_pixels:
        raise images.ImageError(f"smaller than {settings.min_pixels} pixels ({width} x {height})")
    if picture.pixels.min() == picture.pixels.max():
        raise images.ImageError("every pixel has the same value")
    lung = volumes.lung_share(picture.hounsfield) if picture.hounsfield is not None else None
    if lung is not None and lung < settings.min_lung_share:
        raise images.ImageError(
            f"CT slice that shows little lung (less than {settings.min_lung_share:.0%} of the body)"
        )
    image_id = deidentify.pseudonym(secret, "picture", f"{row['file']}#{picture.frame}", 12)
    shown, masked, crops = _without_text(picture, image_id, settings)
    pixels = images.fitted(shown, settings.size, picture.bits)
    content = images.write_png(pixels)
    stored = target / f"{image_id}.png"
    partial = stored.with_suffix(".part")
    partial.write_bytes(content)
    partial.replace(stored)
    return {
        "image_id": image_id,
        "path": f"{target.name}/{stored.name}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "modality": modality,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "bits": picture.bits,
        "frame": picture.frame,
        "kind": picture.kind,
        "original_width": width,
        "original_height": height,
        "original_bits": picture.original_bits,
        "window": picture.window,
        "clipped": round(picture.clipped, 5),
        "mean_grey": round(float(pixels.mean()) / (2**picture.bits - 1), 5),
        "lung_share": None if lung is None else round(lung, 4),
        "phash": f"{duplicates.perceptual_hash(pixels):016x}",
        "fingerprint": duplicates.fingerprint(pixels),
        "masked": round(masked, 5),
        "crops": crops,
        "header": {
            name: getattr(header, name)
            for name in ("view", "patient_id", "sex", "age", "study", "series", "position")
        }
        if header
        else {},
    }
