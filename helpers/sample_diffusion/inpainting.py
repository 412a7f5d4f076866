"""Adds a finding to a real case, or removes one, inside a mask, with the sampled model.

Blended latent diffusion (Avrahami et al., SIGGRAPH 2023): after every step the latents outside the
mask are replaced by those of the case with the same amount of noise, and at the end by its own
pixels. The work is done on this machine: no image of a patient leaves it.
"""

import inspect

import numpy as np
import pandas as pd
import torch
from diffusers import AutoPipelineForImage2Image
from scipy.ndimage import gaussian_filter

from helpers import images
from helpers.diffusion import families, noise
from helpers.runner import runs
from helpers.sample_diffusion.sampling_prompts import SamplingError

# The region of a finding, as shares of the image's height (top, bottom) and width (left, right).
# Regions are generous, because cases differ. In a frontal image the patient's left is on the right.
LUNGS = (0.08, 0.92)
HEIGHTS = {"effusion": (0.45, 0.95), "cardiomegaly": (0.35, 0.9), "hernia": (0.5, 0.95)}
CENTRAL = ("cardiomegaly", "hernia")
WIDTHS = {"left": (0.5, 0.96), "right": (0.04, 0.5), "central": (0.25, 0.85)}

# Columns of a job that samples.csv does not have.
SOURCE = ("made_from", "source", "source_bits", "masked_finding", "masked_side")


def mask(finding: str, side: str, height: int, width: int) -> np.ndarray:
    """(height, width) float32: 1 where the finding of that side is, 0 elsewhere, with a soft edge;
    without a side both lungs.
    """
    side = "central" if finding in CENTRAL else side
    inside = np.zeros((height, width), np.float32)
    top, bottom = (round(height * share) for share in HEIGHTS.get(finding, LUNGS))
    left, right = (round(width * share) for share in WIDTHS.get(side, (0.04, 0.96)))
    inside[top:bottom, left:right] = 1
    return gaussian_filter(inside, max(height, width) / 64)


def with_sources(
    run: runs.Run, jobs: pd.DataFrame, prompts: pd.DataFrame, cases: runs.Run
) -> pd.DataFrame:
    """The jobs, each with the held-out real case that it is made from. A prompt with a finding gets
    a case without one, and the reverse, of the prompt's modality and view. The same replicate gets
    the same case. New columns: made_from, source (its path), source_bits, masked_finding,
    masked_side and strength.

    Raises SamplingError if no held-out case fits, or if the strength leaves no step.
    """
    strength, rows = run.parameters.strength, []
    if not 0 < strength <= 1 or (jobs.steps * strength < 1).any():
        raise SamplingError(
            f"strength {strength:g} is not between 0 and 1, or too small for {jobs.steps.min()}"
            " steps: at least one step is needed."
        )
    real = cases.read("images.csv")
    real = real[(real.origin == "real") & real.split.isin(["validation", "test"])]
    real = real.fillna({"finding": "", "side": "", "view": ""})
    real = real.sort_values(
        "image_id", key=lambda ids: ids.map(lambda name: noise.number_from(run.study, name))
    )
    for row in prompts.itertuples():
        adding = row.finding not in ("", "no_finding")
        wanted = "no_finding" if adding else r"(?!no_finding$)\w+"
        fits = (real.modality == row.modality) & real.finding.str.fullmatch(wanted)
        these = real[fits & ((real["view"] == row.view) | (row.view == ""))]
        if these.empty:
            raise SamplingError(
                f"prompt_id '{row.prompt_id}' needs a held-out {row.modality} case"
                f" {'without' if adding else 'with one'} finding to be made from, and"
                f" {cases.name} has none: leave the prompt out or set strength to 0."
            )
        for replicate in range(row.count):
            case = these.iloc[replicate % len(these)]
            where = (row.finding, row.side) if adding else (case.finding, case.side)
            source = str(cases.folder / case.path)
            rows.append((row.prompt_id, replicate, case.image_id, source, case.bits, *where))
    keys = ["prompt_id", "replicate"]
    sources = pd.DataFrame(rows, columns=[*keys, *SOURCE])
    jobs = jobs.merge(sources, on=keys, validate="m:1").assign(strength=strength)
    edited = zip(jobs.image_id, jobs.made_from)
    ids = [f"s{noise.number_from(run.study, *names, strength):016x}" for names in edited]
    return jobs.assign(image_id=ids)


def editor(pipeline, jobs: pd.DataFrame, size: int, options: dict) -> tuple:
    """The tools that inpaint these jobs with the pipeline's own parts: an image-to-image pipeline,
    the function that converts the arguments, and the function that puts the drawn regions into the
    cases.

    Raises SamplingError for a pipeline that has no image-to-image.
    """
    try:
        stock = AutoPipelineForImage2Image.from_pipe(pipeline)
    except ValueError:
        raise SamplingError(
            f"{type(pipeline).__name__} draws only from noise: set strength to 0, or use Stable"
            " Diffusion (1.x, 2.x or XL)."
        ) from None
    cases, masks = _cases_and_masks(jobs, size)
    pixels = cases.to(pipeline.device).expand(-1, pipeline.vae.config.in_channels, -1, -1)
    clean, _ = families.of(pipeline).latent(pipeline.vae, pixels * 2 - 1)
    clean, eps = clean * pipeline.vae.config.scaling_factor, options["latents"]
    inside = torch.nn.functional.interpolate(masks, clean.shape[2:], mode="area").to(clean.device)

    def noised(timestep):
        return stock.scheduler.add_noise(clean, eps, timestep.expand(len(clean)))

    def outside_as_it_was(stock, index, _, values):
        times = stock.scheduler.timesteps
        following = len(times) - stock.num_timesteps + index + 1
        known = noised(times[following]) if following < len(times) else clean
        values["latents"] = inside * values["latents"] + (1 - inside) * known
        return values

    stock.prepare_latents = lambda image, timestep, *_, **__: noised(timestep[:1])
    arguments = {
        **options,
        "image": pixels,
        "strength": float(jobs.strength.iloc[0]),
        "callback_on_step_end": outside_as_it_was,
    }
    taken = inspect.signature(stock.__call__).parameters
    given = {key: value for key, value in arguments.items() if key in taken and key != "latents"}
    kept, soft = cases[:, 0].numpy(), masks[:, 0].numpy()
    return stock, given, lambda drawn: soft * drawn + (1 - soft) * kept


def _cases_and_masks(jobs: pd.DataFrame, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cases and masks, both (n, 1, size, size) float32 in 0..1. Nothing changes in the bars of a
    case.
    """
    cases, masks = [], []
    for row in jobs.itertuples():
        bits = int(row.source_bits)
        grey = images.fitted(images.read_png(row.source), size, bits)
        top, bottom, left, right = images.padding(grey.shape)
        bars = ((top, bottom), (left, right))
        cases.append(np.pad(grey.astype(np.float32) / (2**bits - 1), bars))
        masks.append(np.pad(mask(row.masked_finding, row.masked_side, *grey.shape), bars))
    return tuple(torch.from_numpy(np.stack(part))[:, None] for part in (cases, masks))


def beside_sources(run: runs.Run, made: pd.DataFrame) -> pd.DataFrame:
    """The first four images of each prompt, with a column `title`. If an image was made from a
    case, the case comes before it. Paths start at the folder of the study's runs.
    """
    cases = runs.load(run.study, run.parameters.cases)
    real = cases.read("images.csv").set_index("image_id")
    rows = []
    for row in made.sort_values("prompt_id").groupby("prompt_id").head(4).to_dict("records"):
        said = " ".join(part for part in (row["finding"], row["side"]) if not pd.isna(part))
        if not pd.isna(row.get("made_from", pd.NA)):
            case = real.loc[row["made_from"]].to_dict()
            rows.append({**case, "path": f"{cases.name}/{case['path']}", "title": "real case"})
        rows.append({**row, "path": f"{run.name}/{row['path']}", "title": said})
    return pd.DataFrame(rows)
