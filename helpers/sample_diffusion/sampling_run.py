"""A sampling run: prompts of the study -> images in the run folder, sharded and resumable."""

import json

import pandas as pd

from helpers import findings
from helpers.diffusion import base_models
from helpers.diffusion.base_models import ModelError
from helpers.runner import freshness, runs
from helpers.sample_diffusion import drawing
from helpers.sample_diffusion.sampling_prompts import SamplingError


def load(run: runs.Run):
    """The pipeline that the run's `checkpoint` names: a finished run of 03 (LoRA with its base), or
    any base model.
    """
    asked = run.parameters
    base_models.use_cores()
    checkpoint, base, revision = asked["checkpoint"], "", asked["revision"]
    if freshness.RUN_NAME.match(checkpoint):
        trained = run.reads(checkpoint)
        if not (trained.folder / "checkpoint").is_dir():
            raise ModelError(
                f"{checkpoint} has no checkpoint/ folder: name a finished run of"
                " 03_finetune_diffusion."
            )
        about = json.loads((trained.folder / "checkpoint" / "recipe.json").read_text())
        base, revision = base_models.resolve(run.study, about["base"]), about["revision"]
        checkpoint = str(trained.folder / "checkpoint")
    return drawing.load(checkpoint, asked["scheduler"], asked["lora_scale"], base, revision)


def draw_missing(
    run: runs.Run, prompts: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Draw what is missing into images/ and return the tables images, samples and failures of this
    run's shard.

    Batches are the same whatever is there already, so an interrupted run ends in the same bits.
    Black images and images that are no numbers are failures: listed, not written. Raises
    SamplingError when none succeeded.
    """
    asked = run.parameters
    if run.finished:
        return run.read("images.csv"), run.read("samples.csv"), run.read("failures.csv")
    pipeline = load(run)
    bits = asked["bits"] or int(
        run.reads(asked["cases"]).read("images.csv").query("origin == 'real'").bits.max()
    )
    if not 0 <= asked["shard"] < asked["shards"]:
        raise SamplingError(
            f"shard is {asked['shard']}: it must be 0 to {asked['shards'] - 1} (shards is"
            f" {asked['shards']})."
        )
    size = asked["size"] or base_models.picture_size(pipeline)
    if size % pipeline.vae_scale_factor:
        raise SamplingError(f"size {size} must be a multiple of {pipeline.vae_scale_factor}.")
    steps, guidance = (
        [int(value) for value in asked["steps"]],
        [float(value) for value in asked["guidance"]],
    )
    jobs = drawing.plan(
        prompts, run.study, asked["checkpoint"], asked["scheduler"], steps, guidance
    )
    jobs = (
        jobs.iloc[asked["shard"] :: asked["shards"]]
        .sort_values(["guidance", "steps"], kind="stable")
        .reset_index(drop=True)
    )
    failures = _draw(run, pipeline, jobs, size, bits)
    made = jobs[~jobs.image_id.isin([failure["image_id"] for failure in failures])].reset_index(
        drop=True
    )
    if made.empty:
        raise SamplingError(
            f"All {len(jobs)} images failed ({failures[0]['reason']}): use another checkpoint, or"
            " precision fp32."
        )
    samples = made[
        ["image_id", "prompt_id", "replicate", "seed", "scheduler", "steps", "guidance"]
    ].assign(checkpoint=asked["checkpoint"])
    failed = pd.DataFrame(
        failures, columns=["image_id", "prompt_id", "replicate", "seed", "reason"]
    )
    images_table = run.write(
        "images.csv",
        _rows(run, made.merge(prompts.drop(columns="prompt"), on="prompt_id"), size, bits),
    )
    return images_table, run.write("samples.csv", samples), run.write("failures.csv", failed)


def _draw(run: runs.Run, pipeline, jobs: pd.DataFrame, size: int, bits: int) -> list[dict]:
    asked, failures = run.parameters, []
    bf16 = asked["precision"] == "bf16" or (asked["precision"] == "auto" and base_models.has_bf16())
    drawing.to_device(pipeline, bf16)
    missing = [
        some
        for some in drawing.batches(jobs, asked["batch"])
        if not all((run.folder / _path(image_id)).exists() for image_id in some.image_id)
    ]
    for some, drawn in drawing.draw_batches(
        pipeline, runs.progress(missing, "sampling"), size, asked["negative_prompt"], bf16
    ):
        for job, picture in zip(some.itertuples(), drawn):
            if reason := drawing.fault(picture):
                failures.append(
                    {
                        "image_id": job.image_id,
                        "prompt_id": job.prompt_id,
                        "replicate": job.replicate,
                        "seed": job.seed,
                        "reason": reason,
                    }
                )
            elif not (run.folder / _path(job.image_id)).exists():
                drawing.write_picture(run.file(_path(job.image_id)), picture, bits)
    return failures


def _path(image_id: str) -> str:
    return f"images/{image_id}.png"


def _rows(run: runs.Run, made: pd.DataFrame, size: int, bits: int) -> pd.DataFrame:
    paths = [_path(image_id) for image_id in made.image_id]
    captions = [
        findings.caption(
            row.modality,
            row.view,
            [finding for finding in row.finding.split("|") if finding],
            row.side,
        )
        for row in made.itertuples()
    ]
    return pd.DataFrame(
        {
            "image_id": made.image_id,
            "path": paths,
            "sha256": [runs.sha256(run.folder / path) for path in paths],
            "modality": made.modality,
            "view": made["view"].replace("", pd.NA),
            "finding": made.finding.replace("", pd.NA),
            "side": made.side.replace("", pd.NA),
            "caption": captions,
            "origin": "generated",
            "generator": run.name if not run.parameters["label"] else run.parameters["label"],
            "simulated": bool(run.simulated),
            "width": size,
            "height": size,
            "bits": bits,
            "prompt_id": made.prompt_id,
        }
    )
