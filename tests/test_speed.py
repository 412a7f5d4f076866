"""The speed measurements run, compare like with like, and keep what they measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from accelerate import init_empty_weights
from speed import gpu, models
from speed.__main__ import main


def test_the_real_architecture_has_its_published_sizes():
    with init_empty_weights():
        pipeline = models.stable_diffusion_15(["chest X-ray"], 512)
    sizes = [
        sum(weights.numel() for weights in part.parameters())
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    ]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    small = models.example_model(["chest X-ray"], 64)
    assert round(sum(weights.numel() for weights in small.unet.parameters()) / 1e6, 1) == 3.9


def test_the_families_have_their_published_sizes():
    with init_empty_weights():
        larger = models.stable_diffusion_xl(["chest X-ray"], 1024)
        sana = models.sana_06b(["chest X-ray"], 512)
    sizes = [
        sum(weights.numel() for weights in part.parameters())
        for part in (larger.unet, larger.text_encoder, larger.text_encoder_2, sana.transformer)
    ]
    assert sizes == [2_567_463_684, 123_060_480, 694_659_840, 591_747_872]


def test_the_gpu_script_checks_every_family_and_times_recipes(tmp_path):
    quick = {**gpu.QUICK, "lora_rank": 4, "batch": 2}
    asked = {
        "Stable Diffusion": models.recipe(**quick, base="sd"),
        "XL": models.recipe(**{**quick, "method": "lora"}, base="xl"),
        "Sana": models.recipe(**quick, base="sana", gradient_checkpointing=True),
    }
    builds = dict(zip(("sd", "xl", "sana"), gpu.TINY.values()))
    done = gpu.main(tmp_path, asked, lambda recipe: builds[recipe.base]())
    checked, timed = done[done.holds.notna()], done[done.holds.isna()]
    assert len(checked) == 3 * 2 + 2 and checked.holds.all()
    assert (timed.groupby("what").size() == 3).all() and set(timed.what) == set(asked)
    assert (timed.value[timed.unit != "GB"] > 0).all()
    assert len(pd.read_csv(tmp_path / "gpu.csv")) == len(done)
    late = gpu.measure(asked, builds.get, seconds=-1)
    assert set(late.note) == {"left out: no time"}


def test_the_gpu_script_knows_every_ready_recipe(monkeypatch):
    built = []
    for name in ("stable_diffusion_15", "stable_diffusion_xl", "sana_06b"):
        monkeypatch.setattr(models, name, lambda _, size, name=name: built.append((name, size)))
    for recipe in gpu.recipes().values():
        models.of_recipe(recipe)
    assert len(built) == 7 and {size for _, size in built} == {512}
    assert len({name for name, _ in built}) == 3


SMALL = {
    "importing": {"files": 8, "hashes": 2000},
    "masking": {"files": 4},
    "memory": {"files": 40},
    "generating": {"images": 4},
    "training": {"images": 12, "size": 32, "file_sizes": (64,), "steps": 2, "rounds": 1},
    "training profile": {"steps": 2, "size": 32},
    "sampling": {"samples": 4, "size": 32},
    "cluster": {"files": 8, "images": 4, "steps": 2, "rounds": 2},
    "auditing": {"samples": 1, "cases": 50, "pictures": 200, "permutations": 20},
    "reading": {"sizes": ["1024"], "answers": 2, "openings": 1},
    "analysis": {"images": 200, "replicates": 20},
}
PATHS = (
    "import",
    "duplicates",
    "02 generating",
    "finetune.train",
    "sampling.draw",
    "cluster",
    "copies",
    "reading 1024×1024",
    "multireader.bootstrap",
)


def test_the_command_measures(tmp_path):
    asked = json.dumps({"training profile": SMALL["training profile"]})
    done = subprocess.run(
        [sys.executable, "-m", "speed", asked],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OUTPUTS": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr
    speed = pd.read_csv(tmp_path / "speed" / "speed.csv")
    assert speed["ours"].notna().all() and (tmp_path / "speed" / "speed.png").exists()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """All of `make speed` on real parts, too small to tell how fast anything is."""
    folder = tmp_path_factory.mktemp("speed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        return folder, main(folder, SMALL)


@pytest.mark.soak
def test_every_path_is_measured_and_kept(measured):
    folder, speed = measured
    assert len(pd.read_csv(folder / "speed.csv")) == len(speed) and (folder / "speed.png").exists()
    assert set(PATHS) <= set(speed["path"])
    unmeasured = speed[speed["ours"].isna()]
    assert unmeasured["note"].str.startswith("not yet measured").all()


@pytest.mark.soak
def test_a_ratio_above_one_is_the_better_direction(measured):
    for row in measured[1].dropna(subset=["baseline", "ours"]).itertuples():
        better = (
            row.ours < row.baseline
            if row.unit in ("s", "ms", "MB", "mean squared error")
            else row.ours > row.baseline
        )
        assert (row.ratio > 1) == better or abs(row.ratio - 1) < 0.01


@pytest.mark.soak
def test_both_sides_of_training_and_sampling_reach_the_same(measured):
    speed = measured[1]
    small = sum(setup.size == 32 for setup in models.setups(32))
    throughput = speed[(speed.path == "finetune.train") & (speed.unit == "images/s")]
    throughput = throughput[throughput.ours.notna()]
    assert len(throughput) == small and (throughput[["baseline", "ours"]] > 0).all(axis=None)
    losses = speed[speed.unit == "mean squared error"]
    assert len(losses) == small and losses.ratio.between(0.6, 1.6).all(), (
        "trained alike, both learn alike"
    )
    assert speed[(speed.path == "finetune.train") & (speed.unit == "MB")].ours.iloc[0] > 100
    assert (speed[speed.unit == "dB"].ours > 25).all(), "our images are the stock pipeline's"


@pytest.mark.soak
def test_the_profile_accounts_for_all_of_the_time(measured):
    where = measured[1][measured[1].what.str.startswith("time in ")].set_index("what").ours
    assert abs(where.sum() - 100) < 0.5
    assert where[["time in convolutions", "time in matrix products"]].min() > 0
