"""Checkpoints: the newest whole one is found whatever happened while it was written."""

import subprocess
import sys

import pytest
import torch

from helpers.finetune_diffusion import checkpoints
from helpers.finetune_diffusion.checkpoints import CheckpointError
from helpers.runner import folders


def write(folder, step, keep=2, size=10):
    return checkpoints.save(
        folder, step, {"weights": {"a": torch.full((size,), float(step))}}, {"rows": [step]}, keep
    )


def test_the_newest_are_kept_and_found(tmp_path):
    assert checkpoints.latest(tmp_path / "none") is None
    for step in (1, 2, 10):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]
    groups, state = checkpoints.latest(tmp_path)
    assert state == {"step": 10, "rows": [10]} and groups["weights"]["a"].tolist() == [10.0] * 10


@pytest.mark.parametrize("damage", ["truncate", "missing", "bits", "no manifest"])
def test_a_damaged_one_is_passed_over(tmp_path, damage, capsys):
    write(tmp_path, 1)
    file = write(tmp_path, 2) / "weights.safetensors"
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-4])
    elif damage == "bits":
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    else:
        (file if damage == "missing" else file.with_name("manifest.json")).unlink()
    assert checkpoints.latest(tmp_path)[1]["step"] == 1
    assert "step-00000002 is damaged" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"], "it is removed"
    assert checkpoints.is_whole(write(tmp_path, 2)), "and written again"


def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path):
    (write(tmp_path, 1) / "weights.safetensors").unlink()
    assert checkpoints.is_whole(write(tmp_path, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_checkpoint_holds_a_value_that_is_not_finite(tmp_path, value):
    write(tmp_path, 1)
    groups = {"weights": {"a": torch.ones(3)}, "ema": {"a": torch.tensor([1.0, value])}}
    with pytest.raises(CheckpointError, match=r"The ema of step 2 .* not finite.*learning_rate"):
        checkpoints.save(tmp_path, 2, groups, {}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_kill_while_writing_leaves_the_one_before(tmp_path, monkeypatch):
    write(tmp_path, 1)
    monkeypatch.setattr(
        checkpoints.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 2)
    monkeypatch.undo()
    assert (tmp_path / "part-00000002").is_dir()
    assert checkpoints.latest(tmp_path)[1]["step"] == 1
    write(tmp_path, 2)
    assert checkpoints.latest(tmp_path)[1]["step"] == 2 and not list(tmp_path.glob("part-*"))


def test_too_little_room_is_known_before_writing(tmp_path, monkeypatch):
    write(tmp_path, 1)
    usage = checkpoints.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"step 2 cannot be written .*OUTPUTS="):
        write(tmp_path, 2)
    assert checkpoints.latest(tmp_path)[1]["step"] == 1


def test_a_disk_that_fills_up_while_writing(tmp_path):
    """A file-size limit makes the system refuse the write in the middle, as a full disk does."""
    script = """
import resource, sys, torch
from pathlib import Path
from helpers.finetune_diffusion import checkpoints

folder = Path(sys.argv[1])
checkpoints.save(folder, 1, {"weights": {"a": torch.zeros(10)}}, {}, 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoints.save(folder, 2, {"weights": {"a": torch.zeros(1_000_000)}}, {}, 2)
except checkpoints.CheckpointError as error:
    print("said:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=folders.ROOT,
        capture_output=True,
        text=True,
    )
    assert "said: The checkpoint of step 2 cannot be written" in done.stdout, (
        done.stdout + done.stderr[-1000:]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_another_models_checkpoint_is_refused(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        checkpoints.restore(tmp_path, ["b"], [torch.zeros(10)], None, {})
