"""A fine-tuning from the cases of stage 01 to a checkpoint folder that stock diffusers loads.

`python -m helpers.finetune_diffusion.training_run <study> <run>` is what torchrun starts, once a
process.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict

from helpers.diffusion import base_models
from helpers.finetune_diffusion import model_card, recipes, tiny_model, training_loop
from helpers.finetune_diffusion.recipes import Recipe
from helpers.finetune_diffusion.training_loop import TrainingError
from helpers.runner import freshness, places, runs

# checkpoints to go on from; no result, so not hashed, and removed when the run is finished
STATE = ".state"


def read_cases(run: runs.Run) -> pd.DataFrame:
    """The real cases that `run` trains on: images.csv of its cases run with columns file (path) and
    caption as asked for.

    Raises TrainingError for a caption column that isn't there, no training cases, and images
    smaller than the size.
    """
    cases, asked = run.reads(run.parameters["cases"]), run.parameters
    frame = cases.read("images.csv")
    if asked["captions"] not in frame.columns:
        raise TrainingError(
            f"{cases.name}/images.csv has no column '{asked['captions']}' (parameter captions); it"
            f" has {', '.join(frame.columns)}."
        )
    frame = frame[
        (frame.origin == "real")
        & (frame.modality == asked["modality"])
        & frame.split.isin(["train", "validation"])
    ]
    frame = frame.assign(
        caption=frame[asked["captions"]].fillna("").astype(str),
        file=[str(cases.folder / path) for path in frame.path],
    )
    if not (frame.split == "train").any():
        raise TrainingError(
            f"There are no training cases: {cases.name}/images.csv has no real {asked['modality']}"
            " image with split train."
        )
    small = frame[(frame[["width", "height"]].max(axis=1) < asked["size"]).fillna(True)]
    if len(small):
        raise TrainingError(
            f"{len(small)} of {len(frame)} images are smaller than size {asked['size']} (the"
            f" smallest has {int(small[['width', 'height']].max(axis=1).min())} pixels): images are"
            " never made larger; lower size or prepare larger cases."
        )
    return frame.sort_values("image_id").reset_index(drop=True)


def fine_tune(run: runs.Run) -> pd.DataFrame:
    """Train as the run's parameters say, write checkpoint/ and training.csv, and return the latter.

    A finished run only returns it; an interrupted one goes on. More than one process is started
    with torchrun. Raises TrainingError, ModelError or CheckpointError in one sentence.
    """
    if run.finished:
        return run.read("training.csv")
    processes = run.parameters["processes"]
    if processes == 1:
        training = work(run)
    else:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            "helpers.finetune_diffusion.training_run",
        ]
        child = subprocess.Popen(
            [*command, run.study, run.name],
            cwd=places.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in child.stdout:
            lines.append(line.rstrip())
            run.say(lines[-1])
        if child.wait() != 0:
            said = [line for line in lines if "Error: " in line] or lines[-1:]
            raise TrainingError(
                f"Training in {processes} processes failed: {said[0] if said else 'no output'}"
            )
        training = pd.DataFrame(json.loads((run.folder / STATE / "training.json").read_text()))
    return run.write("training.csv", training)


def work(run: runs.Run) -> pd.DataFrame:
    """What each process does: base, training, and in the main process the result."""
    recipe, main = (
        recipes.recipe(run.parameters),
        PartialState(cpu=not torch.cuda.is_available()).is_main_process,
    )
    base_models.use_cores()
    frame, state = read_cases(run), run.folder / STATE
    pipeline = base_pipeline(run, frame, recipe, state)
    sources = base_models.fingerprint(pipeline)
    training = training_loop.train(
        pipeline,
        frame,
        recipe,
        state / "training",
        cache_folder(run),
        run.folder / "grids",
        grid_captions(frame),
    )
    if main:
        export(
            run, pipeline, recipe, sources, model_card.text(run, frame, recipe, training, sources)
        )
        (state / "training.json").write_text(training.to_json(orient="records"))
    return training


def cache_folder(run: runs.Run) -> Path:
    """Where the study's runs keep encoded images and captions; deleting it costs only time."""
    return runs.outputs_folder(run.study) / ".cache"


def base_pipeline(
    run: runs.Run, frame: pd.DataFrame, recipe: Recipe, state: Path
) -> StableDiffusionPipeline:
    """The base the run asks for; `tiny` is built and its VAE trained first, once, by the main
    process.
    """
    if run.parameters["base"] != "tiny":
        return loaded_base(run)
    with PartialState().main_process_first():
        if not (state / "base").exists():
            cases = frame[frame.split == "train"]
            pipeline = tiny_model.build(
                list(cases.caption),
                recipe.size,
                run.parameters["channels"],
                recipe.prediction or "v_prediction",
                recipe.seed,
            )
            decibels = tiny_model.train_vae(
                pipeline.vae, cases, recipe, state / "vae", recipes.use_bf16(recipe)
            )
            run.say(f"The VAE gives the training images back with a PSNR of {decibels:.1f} dB.")
            _replaced(state / "base", pipeline.save_pretrained)
    return base_models.load(str(state / "base"))


def loaded_base(run: runs.Run) -> StableDiffusionPipeline:
    """The base by hub id, folder, file or run of 03. Raises ModelError."""
    base = run.parameters["base"]
    if freshness.RUN_NAME.match(base):
        run.reads(base)
    return base_models.load(base_models.resolve(run.study, base), run.parameters["revision"])


def export(run: runs.Run, pipeline, recipe: Recipe, sources: dict[str, str], card: str) -> None:
    """Write checkpoint/: a diffusers pipeline or LoRA weights, the recipe and the model card; whole
    or not at all.
    """

    def write(folder: str) -> None:
        if recipe.method == "lora":
            layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
            StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
        else:
            # Where it was loaded from is a folder of this machine.
            for part in (pipeline, pipeline.unet, pipeline.vae):
                part.register_to_config(_name_or_path="")
            pipeline.save_pretrained(folder)
        about = {
            "base": run.parameters["base"],
            "revision": run.parameters["revision"],
            "base_sha256": sources,
            "recipe": asdict(recipe),
        }
        (Path(folder) / "recipe.json").write_text(
            json.dumps(about, indent=1, sort_keys=True) + "\n"
        )
        (Path(folder) / "README.md").write_text(card)

    _replaced(run.file("checkpoint"), write)


def _replaced(folder: Path, write) -> None:
    staged = folder.with_name(f"{folder.name}.part")
    for leftover in (staged, folder):
        if leftover.exists():
            shutil.rmtree(leftover)
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.mkdir()
    write(str(staged))
    staged.replace(folder)


def grid_captions(frame: pd.DataFrame) -> list[str]:
    """The captions of a grid's rows: the four most frequent ones of the training cases."""
    return list(frame[frame.split == "train"].caption.value_counts().index[:4])


def grids(run: runs.Run) -> list[Path]:
    """The sample grids to look at: the first, the middle and the last one."""
    paths = sorted((run.folder / "grids").glob("step-*.png"))
    return sorted({paths[0], paths[len(paths) // 2], paths[-1]}) if paths else []


def card(run: runs.Run) -> str:
    """The text of the model card, without its header for machines."""
    return (run.folder / "checkpoint" / "README.md").read_text().split("---\n", 2)[2]


def summary(run: runs.Run, training: pd.DataFrame) -> dict:
    """What the manifest keeps: the hashes of the base and the losses at the end."""
    about = json.loads((run.folder / "checkpoint" / "recipe.json").read_text())
    held_out = training.validation_loss.dropna()
    return {
        "base_sha256": about["base_sha256"],
        "steps": int(training.step.max()),
        "loss": round(float(training.loss.iloc[-1]), 5),
        "validation_loss": round(float(held_out.iloc[-1]), 5) if len(held_out) else None,
    }


def tidy(run: runs.Run) -> None:
    """Remove the checkpoints to go on from; to be called when the run is finished."""
    shutil.rmtree(run.folder / STATE, ignore_errors=True)


if __name__ == "__main__":
    try:
        work(runs.load(sys.argv[1], sys.argv[2]))
    except (TrainingError, base_models.ModelError) as error:
        sys.exit(f"Error: {error}")
