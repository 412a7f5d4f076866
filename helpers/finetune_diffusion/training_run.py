"""Fine-tunes a model on the cases of stage 01 and writes a checkpoint folder that stock diffusers
loads.

`python -m helpers.finetune_diffusion.training_run <study> <run>` is the command that torchrun
starts, once per process.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jinja2
import pandas as pd
import torch
from accelerate import PartialState
from peft.utils import get_peft_model_state_dict

from helpers import files, findings
from helpers.diffusion import ModelError, base_models, families
from helpers.finetune_diffusion import TrainingError, tiny_model, training_loop
from helpers.runner import folders, freshness, runs

# checkpoints for resuming: not a result, so not hashed, and removed when the run is finished
STATE = ".state"
CARD = Path(__file__).parent / "templates" / "model_card.md"
# Parameters that may change while a training is interrupted. They do not change what is learned, at
# most the order in which the same numbers are added.
FREE = (
    *("log_every", "grid_every", "checkpoint_every", "keep_checkpoints", "only_check"),
    *("base_licence", "compile", "gradient_checkpointing", "batch", "accumulate", "processes"),
)

AT_LEAST_ONE = (
    *("steps", "batch", "accumulate", "processes", "channels", "vae_batch"),
    *("log_every", "validate_every", "checkpoint_every"),
)


def read_cases(run: runs.Run) -> pd.DataFrame:
    """The real cases that `run` trains on: images.csv of its cases run with columns file (path) and
    caption from the column that the parameter captions names.

    Raises TrainingError for a count below 1, a caption column that isn't there, no training cases,
    and images smaller than the size.
    """
    settings = run.parameters
    if wrong := [name for name in AT_LEAST_ONE if settings[name] < 1]:
        raise TrainingError(f"{wrong[0]} is {settings[wrong[0]]}: it must be 1 or more.")
    if settings.learning_rate < 0:
        raise TrainingError(f"learning_rate is {settings.learning_rate:g}: it must be 0 or more.")
    cases = run.reads(settings.cases)
    frame = cases.read("images.csv")
    if settings.captions not in frame.columns:
        raise TrainingError(
            f"{cases.name}/images.csv has no column '{settings.captions}' (parameter captions); it"
            f" has {', '.join(frame.columns)}."
        )
    frame = frame[
        (frame.origin == "real")
        & (frame.modality == settings.modality)
        & frame.split.isin(["train", "validation"])
    ]
    frame = frame.assign(
        caption=frame[settings.captions].fillna("").astype(str),
        file=[str(cases.folder / path) for path in frame.path],
    )
    if not (frame.split == "train").any():
        raise TrainingError(
            f"There are no training cases: {cases.name}/images.csv has no real {settings.modality}"
            " image with split train: lower validation_share and test_share of 01, or add cases."
        )
    sides = frame[["width", "height"]].max(axis=1).fillna(0)
    if small := (sides < settings.size).sum():
        raise TrainingError(
            f"{small} of {len(frame)} images {'is' if small == 1 else 'are'} smaller than size"
            f" {settings.size} (the smallest has {int(sides.min())} pixels): images are never"
            " scaled up, so lower size or prepare larger cases."
        )
    return frame.sort_values("image_id").reset_index(drop=True)


def fine_tune(run: runs.Run) -> pd.DataFrame:
    """Train as the run's parameters say, write checkpoint/ and training.csv, and return the latter.

    A finished run only returns the table; an interrupted one continues. Several processes are
    started with torchrun. Raises TrainingError, ModelError or CheckpointError in one sentence.
    """
    if run.finished:
        return run.read("training.csv")
    refuse_another(run, read_cases(run))
    training = work(run) if run.parameters.processes == 1 else _in_processes(run)
    return run.write("training.csv", training)


def refuse_another(run: runs.Run, frame: pd.DataFrame) -> None:
    """Raise TrainingError if these parameters and cases would change what an interrupted training
    learns. With FORCE the old training is moved to another folder and training starts again.
    """
    settings, state = run.parameters, run.folder / STATE
    learned = {key: value for key, value in settings.items() if key not in FREE}
    if not settings.patience:
        learned = {key: learned[key] for key in learned if not key.startswith("validat")}
    learned["images per step"] = settings.batch * settings.accumulate * settings.processes
    shown = frame[["image_id", "sha256", "caption", "split", "bits"]]
    learned["training cases"] = freshness.digest(shown.astype(str).values.tolist())[:12]
    if freshness.RUN_NAME.match(settings.base):
        trained = runs.load(run.study, settings.base).manifest.get("files", [])
        learned["files of the base"] = freshness.digest(trained)[:12]
    elif settings.base != "tiny" and (base := Path(settings.base).expanduser()).exists():
        paths = [base] if base.is_file() else sorted(filter(Path.is_file, base.rglob("[!.]*")))
        learned["files of the base"] = freshness.digest(list(map(files.sha256, paths)))[:12]
    note = state / "learned.json"
    begun = note.exists() and any(state.rglob("*.safetensors"))
    before = json.loads(note.read_text()) if begun else learned
    changes = [
        f"{key}: {before.get(key)!r} before, {learned.get(key)!r} now"
        for key in sorted({*before, *learned})
        if before.get(key) != learned.get(key)
    ]
    if changes and os.environ.get("STUDY_FORCE"):
        aside = state.with_name(f"{STATE}.{files.utc_now()[:19].replace(':', '')}")
        state.replace(aside)
        run.say(f"Starting again ({changes[0]}); the old training is kept in {aside.name}/.")
    elif changes:
        raise TrainingError(
            f"{run.name} was interrupted, and its settings or inputs have changed since"
            f" ({'; '.join(changes)}). The training so far is unchanged. Undo the change to"
            f" continue, use another variant, or start again with `{runs.redo_command(run)}`, which"
            " keeps the old training files."
        )
    files.write_atomically(note, json.dumps(learned, indent=1).encode())


def _in_processes(run: runs.Run) -> pd.DataFrame:
    """Run `work` in several processes, one per GPU, and pass their output on line by line."""
    count, module = run.parameters.processes, "helpers.finetune_diffusion.training_run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    child = subprocess.Popen(
        [*torchrun, f"--nproc-per-node={count}", "-m", module, run.study, run.name],
        cwd=folders.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in child.stdout:
        lines.append(line.rstrip())
        run.say(lines[-1])
    if child.wait() != 0:
        said = [line for line in lines if "Error: " in line] or lines[-1:] or ["no output"]
        raise TrainingError(f"Training in {count} processes failed: {said[0]}")
    return pd.DataFrame(json.loads((run.folder / STATE / "training.json").read_text()))


def work(run: runs.Run) -> pd.DataFrame:
    """The work of each process: load the base, train, and write the result (main process only)."""
    main = PartialState(cpu=not torch.cuda.is_available()).is_main_process
    base_models.use_cores()
    frame, state = read_cases(run), run.folder / STATE
    pipeline = base_pipeline(run, frame)
    sources = base_models.fingerprint(pipeline)
    training = training_loop.train(
        pipeline,
        frame,
        run.parameters,
        state / "training",
        # cache of encoded cases; deleting it costs only time
        run.folder.parent / ".cache",
        run.folder / "grids",
        grid_captions(frame),
    )
    if main:
        export(run, pipeline, sources, model_card(run, frame, training, sources, pipeline))
        (state / "training.json").write_text(training.to_json(orient="records"))
    return training


def base_pipeline(run: runs.Run, frame: pd.DataFrame):
    """The base that the run names. For `tiny`, the main process first builds it and trains
    its VAE.
    """
    state, recipe = run.folder / STATE, run.parameters
    if recipe.base != "tiny":
        return loaded_base(run)
    with PartialState().main_process_first():
        if not (state / "base").exists():
            cases = frame[frame.split == "train"]
            pipeline = tiny_model.build(list(cases.caption), recipe)
            decibels = tiny_model.train_vae(pipeline.vae, cases, recipe, state / "vae")
            run.say(f"The VAE reconstructs the training images with a PSNR of {decibels:.1f} dB.")
            with _replaced(state / "base") as folder:
                pipeline.save_pretrained(folder)
    return base_models.load(str(state / "base"))


def loaded_base(run: runs.Run):
    """The base by hub id, folder, file or run of 03. Raises ModelError."""
    base = run.parameters.base
    if freshness.RUN_NAME.match(base):
        run.reads(base)
    return base_models.load(base_models.resolve(run.study, base), run.parameters.revision)


def model_card(
    run: runs.Run, frame: pd.DataFrame, training: pd.DataFrame, sources: dict[str, str], pipeline
) -> str:
    """The README.md of a checkpoint: data, recipe, result, licence of the base, the warning about
    memorisation.
    """
    train = frame[frame.split == "train"]
    found = train.finding.fillna("").str.split("|").explode().map(findings.FINDINGS)
    page = jinja2.Template(CARD.read_text(), trim_blocks=True, keep_trailing_newline=True)
    return page.render(
        run=run,
        recipe=run.parameters,
        base=base_models.public_name(run.parameters.base),
        train=train,
        held_out=int((frame.split == "validation").sum()),
        found=list(found.value_counts().items()),
        licences=list(train.licence.fillna("not given").value_counts().items()),
        sources=sources,
        family=families.of(pipeline).name,
        prediction=families.predicts(pipeline),
        steps=int(training.step.max()),
        losses=training.set_index("step").validation_loss.dropna(),
    )


def export(run: runs.Run, pipeline, sources: dict[str, str], card: str) -> None:
    """Write checkpoint/: a diffusers pipeline or LoRA weights, the recipe and the model card;
    complete or not at all.
    """
    public = {"base": base_models.public_name(run.parameters.base)}
    about = {
        **public,
        "base_sha256": sources,
        "recipe": {**run.parameters, **public},
        "prediction": families.predicts(pipeline),
    }
    with _replaced(run.file("checkpoint")) as folder:
        if run.parameters.method == "lora":
            layers = get_peft_model_state_dict(families.network(pipeline))
            name = f"{families.of(pipeline).network}_lora_layers"
            pipeline.save_lora_weights(folder, **{name: layers})
        else:
            # The path it was loaded from is a folder of this machine.
            for part in (pipeline, families.network(pipeline), pipeline.vae):
                part.register_to_config(_name_or_path="")
            pipeline.save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")
        (folder / "README.md").write_text(card)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A context with an empty folder, which then takes the place of `folder`."""
    staged = folder.with_name(f"{folder.name}.part")
    for leftover in (staged, folder):
        if leftover.exists():
            shutil.rmtree(leftover)
    staged.mkdir(parents=True)
    yield staged
    staged.replace(folder)


def grid_captions(frame: pd.DataFrame) -> list[str]:
    """The captions of a grid's rows: the four most frequent captions of the training cases."""
    return list(frame[frame.split == "train"].caption.value_counts().index[:4])


def grids(run: runs.Run) -> list[Path]:
    """The sample grids to look at: the first, the middle and the last one."""
    paths = sorted((run.folder / "grids").glob("step-*.png"))
    return sorted({paths[0], paths[len(paths) // 2], paths[-1]}) if paths else []


def card(run: runs.Run) -> str:
    """The text of the model card, without its YAML header."""
    return (run.folder / "checkpoint" / "README.md").read_text().split("---\n", 2)[2]


def summary(run: runs.Run, training: pd.DataFrame) -> dict:
    """For the manifest: the hashes of the base and the final losses."""
    about = json.loads((run.folder / "checkpoint" / "recipe.json").read_text())
    held_out = training.validation_loss.dropna()
    return {
        "base_sha256": about["base_sha256"],
        "steps": int(training.step.max()),
        "loss": round(float(training.loss.iloc[-1]), 5),
        "validation_loss": round(float(held_out.iloc[-1]), 5) if len(held_out) else None,
    }


def tidy(run: runs.Run) -> None:
    """Remove the checkpoints for resuming; call this when the run is finished."""
    shutil.rmtree(run.folder / STATE, ignore_errors=True)


if __name__ == "__main__":
    try:
        work(runs.load(sys.argv[1], sys.argv[2]))
    except (TrainingError, ModelError) as error:
        sys.exit(f"Error: {error}")
