"""The speed measurement of stages 03 and 04 compares like with like."""

import pandas as pd

from helpers.speed import training


def test_measurement_runs_both_sides_at_equal_quality(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_BATCH", "1")
    table = training.measure(tmp_path, size=32, file_sizes=(64,), count=12, steps=2, samples=4)
    assert list(table.columns) == training.COLUMNS
    throughput = table[table.unit == "images/s"]
    assert len(throughput) == 2 and (throughput[["baseline", "ours"]] > 0).all(axis=None)
    losses = table[table.unit == "mean squared error"].iloc[0]
    assert abs(losses.ours / losses.baseline - 1) < 0.5
    assert table[table.unit == "dB"].ours.iloc[0] > 25, "our pictures are the stock pipeline's"
    assert isinstance(table, pd.DataFrame)
