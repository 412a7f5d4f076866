"""Checkpoints that survive a kill at any moment: written under another name, manifest last, then
renamed; only then is the old one removed.
"""

import errno
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from helpers.files import sha256

PREFIX = "step-"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written; the message says what to do.

    The last good checkpoint is kept.
    """


def save(
    folder: Path, step: int, tensors: dict[str, dict[str, torch.Tensor]], state: dict, keep: int
) -> Path:
    """Write folder/step-00000100 with a .safetensors file per group of tensors and state.json; keep
    the newest `keep`.

    At any moment the newest complete checkpoint on disk is the previous one or this one. Raises
    CheckpointError when the disk is full or a value is not finite; then the old checkpoints are
    kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final, staged = folder / f"{PREFIX}{step:08d}", folder / f"part-{step:08d}"
    if is_whole(final):
        return final
    for leftover in [*folder.glob("part-*"), *folder.glob(final.name)]:
        shutil.rmtree(leftover)
    needed = 2**20 + sum(t.nbytes for group in tensors.values() for t in group.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise _full(step, f"{needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")
    try:
        _write(staged, step, tensors, state)
    except Exception as error:  # safetensors wraps the system's error in its own kind
        shutil.rmtree(staged, ignore_errors=True)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
            word in str(error) for word in ("No space", "too large", "quota")
        ):
            raise _full(step, str(error)) from None
        raise
    staged.replace(final)
    _to_disk(folder)
    for old in sorted(folder.glob(f"{PREFIX}*"))[: -max(keep, 1)]:
        old.replace(folder / f"part-{old.name}")
        shutil.rmtree(folder / f"part-{old.name}")
    return final


def _write(folder: Path, step: int, tensors: dict, state: dict) -> None:
    folder.mkdir()
    for name, group in tensors.items():
        # These are copies, because an optimiser may share memory between its states.
        group = {key: t.detach().to("cpu", copy=True).contiguous() for key, t in group.items()}
        if not all(tensor.isfinite().all() for tensor in group.values()):
            raise CheckpointError(
                f"The {name} of step {step} hold values that are not finite, so no checkpoint"
                " was written; the last good one is kept. Lower learning_rate or set precision"
                " to fp32."
            )
        save_file(group, folder / f"{name}.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": step, **state}))
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
    }
    (folder / "manifest.json").write_text(json.dumps(files))
    for path in [*folder.iterdir(), folder]:
        _to_disk(path)


def _full(step: int, why: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint of step {step} cannot be written ({why}); the last good one is kept. Free"
        " disk space, or move the folder outputs/ to a larger disk and name it with"
        " OUTPUTS=<folder>; then run again to continue."
    )


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def latest(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict] | None:
    """The tensors and the state of the newest complete checkpoint, or None.

    A damaged checkpoint is removed, so that training writes it again.
    """
    for path in sorted(Path(folder).glob(f"{PREFIX}*"), reverse=True):
        if is_whole(path):
            tensors = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
            return tensors, json.loads((path / "state.json").read_text())
        print(f"{path.name} is damaged: continuing from the checkpoint before it.", flush=True)
        shutil.rmtree(path, ignore_errors=True)
    return None


def is_whole(path: Path) -> bool:
    """Whether every file that the manifest names is there with its bytes."""
    try:
        files = json.loads((path / "manifest.json").read_text())
        return all(
            (path / name).stat().st_size == file["bytes"] and sha256(path / name) == file["sha256"]
            for name, file in files.items()
        )
    except (OSError, json.JSONDecodeError):
        return False


def tensors(
    names: list[str], parameters, optimizer, averages: dict[str, list[torch.Tensor]]
) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a training that `save` stores: weights, optimiser state and averages, as lists
    of tensors in the same order.
    """
    moments = {
        f"{name}.{key}": torch.as_tensor(value)
        for name, parameter in zip(names, parameters)
        for key, value in optimizer.state[parameter].items()
    }
    lists = {"weights": parameters, **averages}.items()
    return {label: dict(zip(names, values)) for label, values in lists} | {"optimizer": moments}


def restore(folder: Path, names: list[str], parameters, optimizer, averages: dict) -> dict:
    """Restore the tensors of the newest checkpoint, in their memory layout; returns its state, or
    {} if there is no checkpoint.

    Raises CheckpointError when it belongs to another model.
    """
    if (found := latest(folder)) is None:
        return {}
    groups, state = found
    if set(groups["weights"]) != set(names):
        raise CheckpointError(
            f"The checkpoint in {Path(folder).name}/ belongs to another model: delete that folder"
            " to start again."
        )
    for label, values in {"weights": parameters, **averages}.items():
        for name, value in zip(names, values):
            value.data.copy_(groups[label][name])
    of_name = dict(zip(names, parameters))
    for name, value in groups["optimizer"].items():
        parameter = of_name[name.rpartition(".")[0]]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        # A count that is not a tensor in the optimiser was read back as integers.
        value = value.item() if value.dtype == torch.int64 else value.to(parameter.device)
        optimizer.state[parameter][name.rpartition(".")[2]] = value
    return state
