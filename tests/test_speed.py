"""The speed measurements run, compare like with like, and keep what they measured."""

from accelerate import init_empty_weights

from helpers import runs, study
from helpers.speed import models, sampling, training


def test_both_sides_of_training_and_sampling_reach_the_same():
    setups = [setup.name for setup in models.setups(32) if setup.size == 32]
    trained = training.measure(images=12, size=32, file_sizes=(64,), steps=2, rounds=1)
    throughput = trained[(trained.unit == "images/s") & trained.ours.notna()]
    assert len(throughput) == len(setups) and (throughput[["baseline", "ours"]] > 0).all(axis=None)
    losses = trained[trained.unit == "mean squared error"]
    assert len(losses) == len(setups) and losses.ratio.between(0.6, 1.6).all(), "trained alike, both learn alike"
    assert trained[trained.unit == "MB"].ours.iloc[0] > 100
    drawn = sampling.measure(samples=4, size=32)
    assert (drawn[drawn.unit == "dB"].ours > 25).all(), "our pictures are the stock pipeline's"


def test_the_profile_accounts_for_all_of_the_time():
    where = training.profile(steps=2, size=32)
    assert abs(where.ours.sum() - 100) < 0.5
    assert where.set_index("what").ours[["time in convolutions", "time in matrix products"]].min() > 0


def test_the_real_architecture_has_its_published_sizes():
    with init_empty_weights():
        pipeline = models.stable_diffusion_15(["chest X-ray"], 512)
    sizes = [sum(weights.numel() for weights in part.parameters()) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    small = models.example_model(["chest X-ray"], 64)
    assert round(sum(weights.numel() for weights in small.unet.parameters()) / 1e6, 1) == 3.9


def test_the_notebook_measures_every_path(study_folders, capsys):
    """All of 90 on real parts, too small to tell anything but that it runs and that the ratio means the better direction."""
    (study_folders / "params" / "speed").mkdir()
    (study_folders / "params" / "speed" / "90_measure_speed.yaml").write_text(
        "import_files: 8\nmemory_files: 40\nbuying_images: 4\ntraining_images: 12\ntraining_steps: 1\ntraining_rounds: 1\nsampled_images: 2\naudited_samples: 1\n"
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
