"""The speed measurements run, compare like with like, and keep what they measured."""

import pandas as pd

from helpers import runs, study
from helpers.speed import training


def test_measurement_runs_both_sides_at_equal_quality(monkeypatch):
    monkeypatch.setenv("STUDY_BATCH", "1")
    table = training.measure(images=12, size=32, file_sizes=(64,), steps=2, samples=4)
    assert list(table.columns) == training.COLUMNS
    throughput = table[table.unit == "images/s"]
    assert len(throughput) == 2 and (throughput[["baseline", "ours"]] > 0).all(axis=None)
    losses = table[table.unit == "mean squared error"].iloc[0]
    assert abs(losses.ours / losses.baseline - 1) < 0.5
    assert table[table.unit == "dB"].ours.iloc[0] > 25, "our pictures are the stock pipeline's"
    assert isinstance(table, pd.DataFrame)


def test_the_notebook_measures_every_path(study_folders, capsys):
    """All of 90 on real parts, too small to tell anything but that it runs and that the ratio means the better direction."""
    (study_folders / "params" / "speed").mkdir()
    (study_folders / "params" / "speed" / "90_measure_speed.yaml").write_text(
        "import_files: 8\nmemory_files: 40\nbuying_images: 4\ntraining_images: 12\ntraining_steps: 1\naudited_samples: 1\n"
        "reading_sizes: ['1024']\nreading_answers: 2\nreading_openings: 1\nstatistics_images: 200\nbootstrap_replicates: 20\n"
    )
    assert study.main(["run", "speed"]) == 0, "".join(capsys.readouterr())
    speed = runs.load("speed", "90_measure_speed").read("speed.csv")
    for path in (
        "import",
        "duplicates",
        "02 buying",
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
        better = row.ours < row.baseline if row.unit in ("s", "ms", "MB", "mean squared error") else row.ours > row.baseline
        assert (row.ratio > 1) == better or abs(row.ratio - 1) < 0.01
