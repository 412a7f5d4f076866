"""The import loop: every file of a folder, on all cores, in bounded memory; it can be resumed.

What is known about persons while importing (names, paths, patient ids) lives in .keys/<study>/
alone.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from dataclasses import asdict
from pathlib import Path

import numpy as np

from helpers import files
from helpers.prepare_cases import duplicates, storing
from helpers.prepare_cases.storing import ImportedFile
from helpers.runner import workers

PRINT_BYTES = duplicates.SIDE**2  # of a fingerprint
FEW = 100  # number of files below which no worker processes are started
CHUNK = 16  # maximum number of files per task


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
    settings,
    secret: bytes,
    decisions: dict[str, str],
) -> Iterator[ImportedFile]:
    """Import every file that `known` describes (keys file, modality, sha256, skip) into `target`;
    yields as they are done.

    `settings` has the parameters of stage 01, `decisions` a person's decisions on images with text.
    `journal` (mode 0600, in .keys) remembers what is done: a second call goes on, and takes an
    image again only if its PNG is missing or damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    done = _resumed(journal, _mark(folder, known, settings, decisions), target)
    yield from done.values()
    waiting = [number for number, row in enumerate(known) if row["file"] not in done]
    # A cluster's scheduler sees a task's arguments, so they are positions in this file.
    job = journal.with_suffix(".job")
    with _private(job, "wb") as file:
        pickle.dump((known, folder, target, settings, secret, decisions), file)
    with (
        _private(journal, "a") as record,
        _private(fingerprints_file(journal), "ab") as fingerprints,
    ):
        for taken in _parallel(job, waiting, settings.workers or workers.cores()):
            for picture in taken.pictures:
                place = fingerprints.tell() // PRINT_BYTES
                fingerprints.write(picture["fingerprint"].tobytes())
                picture["fingerprint"] = place
            fingerprints.flush()
            record.write(json.dumps(asdict(taken)) + "\n")
            record.flush()
            yield taken
    job.unlink()


def fingerprints_file(journal: Path) -> Path:
    """The file in which an import stores the fingerprints of its images, one after another. Each
    image's row says which fingerprint is its own.
    """
    return journal.with_suffix(".fingerprints")


def fingerprints(journal: Path) -> np.ndarray:
    """The fingerprints of an import, shape (n, 64, 64) int8, mapped from disk."""
    shape = (-1, duplicates.SIDE, duplicates.SIDE)
    return np.memmap(fingerprints_file(journal), dtype=np.int8, mode="r").reshape(shape)


def _private(path: Path, mode: str):
    how = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if "w" in mode else os.O_APPEND)
    return os.fdopen(os.open(path, how, 0o600), mode)


def _mark(folder: Path, known: list[dict], settings, decisions: dict[str, str]) -> str:
    """An import resumes only if these are unchanged: the folder, the metadata of its files, and the
    parameters.
    """
    described = json.dumps([known, decisions], sort_keys=True)
    values = {name: value for name, value in settings.items() if name != "workers"}
    digest = hashlib.sha256(described.encode("utf-8", "surrogateescape")).hexdigest()
    return json.dumps({"folder": str(folder), "asked": values, "known": digest}, sort_keys=True)


def _resumed(journal: Path, mark: str, target: Path) -> dict[str, ImportedFile]:
    """What an interrupted import with the same parameters finished, PNG files checked by hash; else
    a new journal.
    """
    done = {}
    prints = fingerprints_file(journal)
    lines = journal.read_text().split("\n") if journal.is_file() else []
    if lines and lines[0] == mark and prints.is_file():
        stored = prints.stat().st_size // PRINT_BYTES
        for line in lines[1:-1]:  # what follows the last line end was cut off
            taken = ImportedFile(**json.loads(line))
            if all(
                picture["fingerprint"] < stored
                and (path := target.parent / picture["path"]).is_file()
                and files.sha256(path) == picture["sha256"]
                for picture in taken.pictures
            ):
                done[taken.file] = taken
        os.truncate(prints, stored * PRINT_BYTES)
    else:
        _private(prints, "wb").close()
    kept = [mark, *(json.dumps(asdict(taken)) for taken in done.values()), ""]
    files.write_atomically(journal, "\n".join(kept).encode(), mode=0o600)
    return done


def _parallel(job: Path, numbers: list[int], count: int) -> Iterator[ImportedFile]:
    """The files with these numbers through workers, a few tasks per worker under way; a file that
    kills its worker is named.
    """
    count = 0 if count == 1 and len(numbers) < FEW else count
    pool, under_way = workers.executor(count, storing.__name__), {}
    size = min(CHUNK, -(-len(numbers) // (16 * workers.width(count)))) if numbers else 1
    waiting = [numbers[begin : begin + size] for begin in range(0, len(numbers), size)][::-1]
    try:
        while waiting or under_way:
            try:
                while waiting and len(under_way) < 3 * workers.width(count):
                    future = pool.submit(storing.take_files, job, waiting[-1])
                    under_way[future] = waiting.pop()
            except BrokenExecutor:  # the tasks under way fail in the same way
                if not under_way:
                    raise
            done = wait(under_way, return_when=FIRST_COMPLETED).done
            if any(workers.died(future.exception()) for future in done):
                done = wait(under_way).done
            again = []
            for future in done:
                chunk = under_way.pop(future)
                if workers.died(future.exception()):
                    again += chunk
                else:
                    yield from future.result()
            if again:
                yield from _one_by_one(job, again)
                pool.shutdown(cancel_futures=True)
                pool = workers.executor(count, storing.__name__)
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(job: Path, numbers: list[int]) -> Iterator[ImportedFile]:
    """One file at a time in one worker, so that a file that kills the worker is known; another
    worker then continues.
    """
    pool = workers.executor(1, storing.__name__)
    for number in numbers:
        future = pool.submit(storing.take_files, job, [number])
        if workers.died(future.exception()):
            yield storing.crashed(job, number)
            pool.shutdown()
            pool = workers.executor(1, storing.__name__)
        else:
            yield from future.result()
    pool.shutdown()
