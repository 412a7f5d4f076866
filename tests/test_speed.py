"""The speed measurements run, compare like with like, and keep what they measured."""

import os
import sys

import pandas as pd
import pytest
from accelerate import init_empty_weights
from speed import models
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


SMALL = {
    "importing": {"files": 8, "hashes": 2000},
    "memory": {"files": 40},
    "generating": {"images": 4},
    "training": {"images": 12, "size": 32, "file_sizes": (64,), "steps": 2, "rounds": 1},
    "training profile": {"steps": 2, "size": 32},
    "sampling": {"samples": 4, "size": 32},
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
    "copies",
    "reading 1024×1024",
    "multireader.bootstrap",
)


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
