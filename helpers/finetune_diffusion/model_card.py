"""The model card that goes with every checkpoint."""

import pandas as pd

from helpers import findings
from helpers.runner import runs


def text(
    run: runs.Run, frame: pd.DataFrame, recipe, training: pd.DataFrame, sources: dict[str, str]
) -> str:
    """The README.md of a checkpoint: data, recipe, result, licence of the base, the warning about
    memorisation.
    """
    base, train = run.parameters["base"], frame[frame.split == "train"]
    library = "peft" if recipe.method == "lora" else "diffusers"
    simulated = "; ".join(run.simulated)
    found = train.finding.fillna("").str.split("|").explode().map(findings.FINDINGS).value_counts()
    held_out = training.get("validation_loss", pd.Series(dtype=float)).dropna()
    lines = [
        "---",
        f"library_name: {library}",
        "tags: [stable-diffusion, text-to-image, chest-x-ray]",
        *([f"base_model: {base}"] if "/" in base and not base.startswith((".", "/", "~")) else []),
        "---",
        f"# Stable Diffusion fine-tuned on chest images ({run.study}, {run.name})",
        "",
        *(
            [
                (
                    f"**Simulated: {simulated}.** This model shows that the software works, nothing"
                    " about patients."
                ),
                "",
            ]
            if simulated
            else []
        ),
        (
            "For research on whether readers can tell generated images from real ones. Not for"
            " diagnosis, not for training diagnostic software."
        ),
        "",
        "## Data",
        (
            f"{len(train)} training images of {train.patient.nunique()} patients,"
            f" {int((frame.split == 'validation').sum())} held out; patients are in one split only."
            f" {recipe.size} pixels, grey, whole range, no flips, no crops."
        ),
        "",
        *(f"- {name}: {count}" for name, count in found.items()),
        "",
        "Licences of the images: "
        + "; ".join(
            f"{name} ({count})"
            for name, count in train.licence.fillna("not given").value_counts().items()
        )
        + ".",
        "",
        "## Base",
        f"`{_public(base)}`"
        + (f", revision `{run.parameters['revision']}`" if run.parameters["revision"] else "")
        + ", licence: "
        + _licence(run),
        "",
        *(f"- {part}: sha256 `{value}`" for part, value in sources.items()),
        "",
        "## Recipe",
        (
            f"{recipe.method}, {int(training.step.max()) if len(training) else 0} steps of"
            f" {recipe.batch * recipe.accumulate * run.parameters['processes']} images, learning"
            f" rate {recipe.learning_rate:g} ({recipe.schedule}, warm-up {recipe.warmup}), EMA"
            f" {recipe.ema:g}, min-SNR {recipe.min_snr:g}, captions dropped"
            f" {recipe.caption_dropout:g}, offset noise {recipe.offset_noise:g}, seed"
            f" {recipe.seed}. All settings: `recipe.json`."
        ),
        *(
            [
                f"Held-out loss: {held_out.iloc[0]:.4f} at first, {held_out.min():.4f} at best,"
                f" {held_out.iloc[-1]:.4f} at the end."
            ]
            if len(held_out)
            else []
        ),
        "",
        "## Memorisation",
        (
            "Diffusion models trained on medical images reproduce part of their training set (Dar"
            " et al., arXiv 2402.01054: up to a third of the X-rays). Treat this checkpoint like"
            " the patient data it was trained on, and release samples only after the copy check of"
            " notebook 05, which is a screening, not a guarantee."
        ),
        "",
    ]
    return "\n".join(lines)


def _public(base: str) -> str:
    """Local folders name people's machines: only their last part is told."""
    return base.rstrip("/").split("/")[-1] if base.startswith((".", "/", "~")) else base


def _licence(run: runs.Run) -> str:
    if run.parameters["base"] == "tiny":
        return "none (its weights were trained from scratch on the images above)."
    unknown = "not given: look it up where the base came from before you pass this model on"
    return f"{run.parameters['base_licence'] or unknown}."
