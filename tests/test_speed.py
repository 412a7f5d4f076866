"""The speed measurements run, compare like with like, and keep what they measured."""

import os
import sys

import pandas as pd
import pytest
from accelerate import init_empty_weights
from speed import models, sampling, training
from speed.__main__ import main


def test_both_sides_of_training_and_sampling_reach_the_same():
    setups = [setup.name for setup in models.setups(32) if setup.size == 32]
    trained = training.measure(images=12, size=32, file_sizes=(64,), steps=2, rounds=1)
    throughput = trained[(trained.unit == "images/s") & trained.ours.notna()]
    assert len(throughput) == len(setups) and (throughput[["baseline", "ours"]] > 0).all(axis=None)
    losses = trained[trained.unit == "mean squared error"]
    assert len(losses) == len(setups) and losses.ratio.between(0.6, 1.6).all(), (
        "trained alike, both learn alike"
    )
    assert trained[trained.unit == "MB"].ours.iloc[0] > 100
    drawn = sampling.measure(samples=4, size=32)
    assert (drawn[drawn.unit == "dB"].ours > 25).all(), "our images are the stock pipeline's"


def test_the_profile_accounts_for_all_of_the_time():
    where = training.profile(steps=2, size=32)
    assert abs(where.ours.sum() - 100) < 0.5
    assert (
        where.set_index("what").ours[["time in convolutions", "time in matrix products"]].min() > 0
    )


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
    "importing": {"files": 8},
    "memory": {"files": 40},
    "generating": {"images": 4},
    "training": {"images": 12, "steps": 1, "rounds": 1},
    "sampling": {"samples": 2},
    "auditing": {"samples": 1},
    "reading": {"sizes": ["1024"], "answers": 2, "openings": 1},
    "analysis": {"images": 200, "replicates": 20},
}


@pytest.mark.soak  # the reading page's measurement does not know the page's new questions yet
def test_every_path_is_measured(tmp_path, monkeypatch):
    """All of `make speed` on real parts, too small to tell anything but that it runs and that the
    ratio means the better direction.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    speed = main(tmp_path, SMALL)
    assert (
        len(pd.read_csv(tmp_path / "speed.csv")) == len(speed) and (tmp_path / "speed.png").exists()
    )
    for path in (
        "import",
        "duplicates",
        "02 generating",
        "finetune.train",
        "sampling.draw",
        "copies",
        "reading 1024×1024",
        "accuracy.bootstrap",
    ):
        assert (speed["path"] == path).any(), path
    unmeasured = speed[speed["ours"].isna()]
    assert unmeasured["note"].str.startswith("not yet measured").all()
    for row in speed.dropna(subset=["baseline", "ours"]).itertuples():
        better = (
            row.ours < row.baseline
            if row.unit in ("s", "ms", "MB", "mean squared error")
            else row.ours > row.baseline
        )
        assert (row.ratio > 1) == better or abs(row.ratio - 1) < 0.01
