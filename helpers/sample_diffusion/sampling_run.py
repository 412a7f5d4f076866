"""A sampling run: turns the study's prompts into images in the run folder, sharded and
resumable.
"""

import json
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path

import pandas as pd

from helpers import findings, images
from helpers.diffusion import ModelError, base_models, families
from helpers.files import sha256
from helpers.plurals import counted
from helpers.runner import freshness, runs, workers
from helpers.runner.progress import progress
from helpers.sample_diffusion import drawing, inpainting
from helpers.sample_diffusion.sampling_prompts import SamplingError


def load(run: runs.Run):
    """The pipeline that the run's `checkpoint` names: a finished run of 03 (LoRA with its base), or
    any base model.
    """
    settings = run.parameters
    base_models.use_cores()
    checkpoint, base, revision = settings.checkpoint, "", settings.revision
    about = {}
    if freshness.RUN_NAME.match(checkpoint):
        trained = run.reads(checkpoint)
        checkpoint = base_models.resolve(run.study, checkpoint)
        if not Path(checkpoint).is_dir():
            raise ModelError(
                f"{trained.name} has no checkpoint/ folder: name a finished run of"
                " 03_finetune_diffusion."
            )
        base, revision = trained.parameters.base, trained.parameters.revision
        base = base_models.resolve(run.study, base)
        about = json.loads((Path(checkpoint) / "recipe.json").read_text())
    return drawing.load(checkpoint, settings.scheduler, settings.lora_scale, base, revision, about)


def draw_missing(
    run: runs.Run, prompts: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Draw the missing images into images/ and return the tables images, samples and failures.

    `shards` tasks share the work. The batches do not depend on the number of shards or on what
    exists already, so an interrupted run gives exactly the same images. Black images and images
    with non-finite values are failures: listed, not written. Raises SamplingError if no image
    succeeded.
    """
    settings = run.parameters
    if run.finished:
        return run.read("images.csv"), run.read("samples.csv"), run.read("failures.csv")
    for name, least in (("shards", 1), ("batch", 1), ("frames", 0)):
        if settings[name] < least:
            raise SamplingError(f"{name} is {settings[name]}: it must be {least} or more.")
    if settings.bits not in (0, *range(8, 17)):
        raise SamplingError(f"bits is {settings.bits}: it must be 8 to 16, or 0 as in the cases.")
    if freshness.RUN_NAME.match(settings.checkpoint):
        # This process, not the workers, marks whether the images are simulated.
        run.reads(settings.checkpoint)
    of = run.reads(settings.cases)
    cases = of.read("images.csv")
    bits = settings.bits or int(cases.bits[cases.origin == "real"].max())
    jobs = drawing.plan(prompts, run)
    if settings.strength:
        jobs = inpainting.with_sources(run, jobs, prompts, of)
    jobs = jobs.sort_values(["guidance", "steps"], kind="stable").reset_index(drop=True)
    reasons = jobs.image_id.map(_draw(run, jobs, bits))
    columns = ["image_id", "prompt_id", "replicate", "seed"]
    failed = jobs[columns].assign(reason=reasons).dropna(subset="reason")
    made = jobs[reasons.isna()].assign(checkpoint=base_models.public_name(settings.checkpoint))
    if made.empty:
        raise SamplingError(
            f"All {len(jobs)} images failed ({failed.reason.iloc[0]}): use another checkpoint, or"
            " precision fp32."
        )
    kept = [name for name in ("image_id", "prompt_id", "made_from") if name in made]
    described = made[kept].merge(prompts, on="prompt_id", validate="m:1")
    samples = made.drop(columns=["prompt", *inpainting.SOURCE], errors="ignore")
    return (
        run.write("images.csv", _rows(run, described, bits)),
        run.write("samples.csv", samples),
        run.write("failures.csv", failed),
    )


def _draw(run: runs.Run, jobs: pd.DataFrame, bits: int) -> dict[str, str]:
    """Draw the jobs in shards; returns why each failure failed, by image_id."""
    settings = run.parameters
    batches = drawing.batches(jobs, settings.batch)
    shards = [
        batches[number :: settings.shards] for number in range(min(settings.shards, len(batches)))
    ]
    with workers.executor(0, __name__, GPU=1) as pool:
        at_work = {
            pool.submit(
                draw_shard, run.study, run.name, dict(settings), some, bits, number == 0
            ): sum(map(len, some))
            for number, some in enumerate(shards)
        }
        drawn = (shard for shard in as_completed(at_work) for _ in range(at_work[shard]))
        ended = dict.fromkeys(progress(drawn, "sampled", len(jobs)))
        reasons, cut = {}, set()
        for shard in ended:
            failed, prompts_cut = shard.result()
            reasons |= failed
            cut |= prompts_cut
    if cut:
        run.say(
            f"{counted(len(cut), 'prompt is', 'prompts are')} longer than the model reads, so it"
            f" does not know the end, for example: {max(cut, key=len)[:80]}…"
        )
    return reasons


def draw_shard(
    study: str, name: str, values: dict, batches: list[pd.DataFrame], bits: int, first: bool
) -> tuple[dict[str, str], set[str]]:
    """Draw and write the missing images of these batches; returns the reason for each failed image,
    by image_id, and the prompts that are too long for the model.

    The first shard also writes model.json (the model, its scheduler, where it came from, its
    licence and the sha256 of its parts) and the stages of one image.
    """
    run = runs.load(study, name, values)
    settings, reasons, cut = run.parameters, {}, set()
    pipeline = load(run)
    size, multiple = settings.size, getattr(pipeline, "vae_scale_factor", 1)
    if type(pipeline).__name__ in families.FAMILIES:
        size = size or families.native_size(pipeline)
        multiple = max(8, multiple)  # as stock pipelines demand
        cut.update(families.too_long(pd.concat(batches).prompt.unique(), pipeline))
    if size < 0 or size % multiple:
        raise SamplingError(f"size {size} must be a multiple of {multiple}.")
    if first:
        about = {
            "pipeline": type(pipeline).__name__,
            "scheduler": type(getattr(pipeline, "scheduler", None)).__name__,
            "checkpoint": base_models.public_name(settings.checkpoint),
            "revision": settings.revision,
            "licence": settings.licence or "not given",
            "sha256": base_models.fingerprint(pipeline),
        }
        # A finished run of 03 stays as it is, and the sum of a base and LoRA weights may differ
        # between machines in its last bits.
        model, fixed = run.folder / "model.json", freshness.RUN_NAME.match(settings.checkpoint)
        begun = {} if fixed or not model.exists() else json.loads(model.read_text())
        if begun.get("sha256", about["sha256"]) != about["sha256"]:
            raise SamplingError(
                f"{settings.checkpoint} has other weights than the images of {run.name} so far:"
                f" restore them, or start again with `{runs.redo_command(run)}`."
            )
        run.write_json("model.json", about)
    drawing.to_device(pipeline, settings.precision)
    missing = [
        some
        for some in batches
        if not all((run.folder / _path(image_id)).exists() for image_id in some.image_id)
    ]
    how = (size, settings.negative_prompt, settings.precision)
    for some, drawn in drawing.draw_batches(pipeline, progress(missing, "sampling"), *how):
        for image_id, picture in zip(some.image_id, drawn):
            if reason := drawing.fault(picture):
                reasons[image_id] = reason
            elif not (run.folder / _path(image_id)).exists():
                # A model that learned from padded squares draws bars: the image is what remains
                # without them.
                field = images.without_bars(drawing.quantised(picture, bits), bits)
                run.write_bytes(_path(image_id), images.write_png(field))
    made = pd.concat(batches)
    one = made[~made.image_id.isin(reasons)].head(1)
    if first and settings.frames and len(one):
        draw = partial(drawing.draw, pipeline, one, *how)
        drawing.keep_stages(run, pipeline, one.image_id.iloc[0], draw, bits)
    return reasons, cut


def _path(image_id: str) -> str:
    return f"images/{image_id}.png"


def _rows(run: runs.Run, made: pd.DataFrame, bits: int) -> pd.DataFrame:
    """The table images: one row per image of `made`, which has the columns of the prompts."""
    paths = [_path(image_id) for image_id in made.image_id]
    shapes = [images.read_png(run.folder / path).shape for path in paths]
    captions = [
        findings.caption(row.modality, row.view, [f for f in row.finding.split("|") if f], row.side)
        for row in made.itertuples()
    ]
    columns = ["image_id", "modality", "view", "finding", "side", "prompt_id", "made_from"]
    about = made[[name for name in columns if name in made]]
    return about.replace("", pd.NA).assign(
        path=paths,
        sha256=[sha256(run.folder / path) for path in paths],
        caption=captions,
        origin="generated",
        generator=run.parameters.label or run.name,
        simulated=bool(run.simulated),
        licence=run.parameters.licence or pd.NA,
        width=[width for _, width in shapes],
        height=[height for height, _ in shapes],
        bits=bits,
    )
