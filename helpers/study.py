"""Run a study: every params/<study>/<run>.yaml through its notebook into outputs/<study>/<run>/, in
order.

This is the entry of `make study`: it knows runner/, how runs are done, and the stages, which the
runner does not.

python -m helpers.study run rehearsal [--only RUN] [--from RUN] [--force] [--set RUN.key=value]
python -m helpers.study status rehearsal     what is finished, interrupted, stale and why
python -m helpers.study verify rehearsal     do files still have the hashes of their manifests
python -m helpers.study new mine --like rehearsal
"""

import argparse
import errno
import os
import re
import shutil
import sys
import time
from pathlib import Path

from helpers import tables
from helpers.runner import (
    executed_code,
    execution,
    freshness,
    parameters,
    places,
    planning,
    run_folder,
    runs,
)

DONE, FAILED, BAD_SETTINGS, STALE = 0, 1, 2, 3


def run_study(
    study: str, settings: list[str], only: list[str], first: str | None, force: bool
) -> int:
    """Run what is not finished; returns the exit code.

    `force` redoes what is selected or, with no selection, what is stale.
    """
    planned = planning.plan(study, settings)
    os.environ["STUDY_FORCE"] = "1" if force else ""  # for a training that was interrupted
    selected = planning.select([run.name for run in planned], only, first)
    before = planning.states(planned)
    planning.check_inputs(before, selected)
    steps = [step for step in before if step.run.name in selected]
    narrowed = bool(only or first)
    redo = [step.run for step in steps if force and (narrowed or step.state == "stale")]
    # Before anything is redone: what comes before a set that is being read would be lost to it.
    for run in redo:
        _refuse_begun(run, planned)
    _preflight([step for step in steps if step.state != "finished"])
    began, stale = time.monotonic(), []
    for number, run in enumerate(planned, 1):
        if run.name not in selected:
            continue
        # Asked anew for every run: the one before may have made this one stale.
        step = next(step for step in planning.states(planned) if step.run.name == run.name)
        head = f"[{number}/{len(planned)}] {run.name}"
        blocked = [
            reason
            for reason in step.reasons
            if any(reason.startswith(f"reads {name},") for name in stale)
        ]
        if (step.state == "stale" or blocked) and not force:
            stale.append(run.name)
            why = "; ".join(blocked or step.reasons)
            print(f"{head}: stale, left as it is ({why})", flush=True)
        elif step.state == "finished" and not (force and narrowed):
            print(f"{head}: finished, skipped", flush=True)
        else:
            doing = (
                "checking which readers have finished" if planning.is_reading(run) else "running"
            )
            print(f"{head}: {'going on' if step.state == 'interrupted' else doing}", flush=True)
            if waiting := _work(step.run, planned):
                print(
                    f"{head}: {waiting}\n\nStudy {study!r} waits for its readers; what comes after"
                    " them is still to do."
                )
                return DONE
    if stale:
        print(
            f"\nStale runs were left as they are: {', '.join(stale)}. To redo them, give the same"
            " command once more with FORCE=1 (--force), or give the YAML another variant."
        )
        return STALE
    whole = f"Study {study!r}" if len(selected) == len(planned) else ", ".join(selected)
    print(f"\n{whole} is complete ({time.monotonic() - began:.0f} s).")
    for run in planned:
        if (run.folder / "report.html").exists():
            print(f"Report: {run.folder / 'report.html'}")
    return DONE


def _work(run: runs.Run, planned: list[runs.Run]) -> str:
    """Do one run; returns what people have to do first, or "" when it is finished."""
    for name in freshness.references(run.study, run.notebook, run.parameters):
        if not runs.load(run.study, name).finished:
            raise runs.RunError(f"{run.name} reads {name}, which is not finished: run it first.")
    if run.finished:
        _clear_for_redo(run, planned)
    if planning.is_reading(run):
        return _read(run)
    execution.execute(run)
    return ""


def _preflight(steps: list[planning.Step]) -> None:
    """What would stop a stage (no folder, no key, a bad table) is said, all of it at once, before
    the first one starts.
    """
    checks = (_missing_cases, _missing_api, _bad_table)
    missing = [sentence for step in steps for check in checks if (sentence := check(step.run))]
    if missing:
        raise runs.RunError(" Also: ".join(missing))


def _missing_cases(run: runs.Run) -> str:
    if run.parameters.get("source") != "folder":
        return ""
    folder = places.cases_folder(run.study)
    if folder and folder.is_dir() and any(folder.iterdir()):
        return ""
    found = f", and {folder} is {'empty' if folder.is_dir() else 'no folder'}" if folder else ""
    return f"{run.name} needs the folder of real images{found}: add CASES=<folder> to the command."


def _missing_api(run: runs.Run) -> str:
    if not run.name.startswith("02_generate_openai") or run.parameters["provider"] == "rehearsal":
        return ""
    from helpers.generate_openai import service

    try:
        service.credential(run)
    except runs.RunError as error:
        return f"{run.name}: {error}"
    return ""


def _bad_table(run: runs.Run) -> str:
    """The sentence for a table beside the YAML, or a list of decisions on text, that its stage
    would refuse, hours later or when what it had finished is gone.
    """
    from helpers.assemble_reading_set import blocks, draw
    from helpers.generate_openai import prompts
    from helpers.prepare_cases import review
    from helpers.sample_diffusion import sampling_prompts

    readers = {"draw": draw.read_draw, "prompt_table": prompts.read_prompts}
    readers["prompts"] = lambda path: sampling_prompts.read_prompts(
        path, run.parameters["modality"]
    )
    readers["blocks"] = lambda path: blocks.read_protocol(
        run.beside(run.parameters["questions"]), path
    )
    try:
        review.decisions(places.keys_folder(run.study) / f"{run.name}.review")
        for key in readers.keys() & run.parameters.keys():
            readers[key](run.beside(run.parameters[key]))
    except (ValueError, RuntimeError) as error:
        return f"{run.name}: {error}"
    return ""


def _clear_for_redo(run: runs.Run, planned: list[runs.Run]) -> None:
    _refuse_begun(run, planned)
    run_folder.clear(run.folder)


def _refuse_begun(run: runs.Run, planned: list[runs.Run]) -> None:
    if any(
        run.name in freshness.references(other.study, other.notebook, other.parameters)
        and run_folder.begun(other.folder)
        for other in planned
    ):
        raise runs.RunError(
            f"Somebody has begun to read {run.name}: it is never redone, and nothing was changed;"
            " another draw is another variant. Rename its YAML to"
            f" {run.name.partition('.')[0]}.second.yaml and those of 07 to 09 likewise, and change"
            " the run names inside them to match."
        )


def _read(run: runs.Run) -> str:
    """Stage 07 runs no kernel: look at the locks, export and finish, or say who still has to read
    what.
    """
    opened = runs.begin(run.study, run.name, run.parameters)
    try:
        waiting = collect(opened)
        if not waiting:
            opened.finish()
        return waiting
    finally:
        opened.release()


def collect(run: runs.Run) -> str:
    """Export the read of a 07 run; with `readers: simulated` the simulated readers answer first,
    through the same store. Returns and raises as export.collect does.
    """
    from helpers.reading import export

    if run.parameters.readers == "simulated" and not run.finished:
        from helpers.rehearsal import readers

        run.mark_simulated("readers")
        readers.read(run)
    return export.collect(run)


def show_status(study: str, settings: list[str]) -> int:
    """Print where every run stands."""
    steps = planning.states(planning.plan(study, settings))
    width = max(len(step.run.name) for step in steps)
    for step in steps:
        detail = (
            step.run.manifest.get("finished_utc", "")[:16].replace("T", " ")
            if step.state == "finished"
            else "; ".join(step.reasons)
        )
        if step.state == "finished" and (other := _other_code(step.run)):
            detail += f"; made by other code: {other}"
        state = (
            "waiting"
            if step.state == "interrupted" and planning.is_reading(step.run)
            else step.state
        )
        print(
            f"{step.run.name:<{width}}  {state:<11} "
            f" {detail or 'for its readers' if state == 'waiting' else detail}".rstrip()
        )
    return DONE


def _other_code(run: runs.Run) -> str:
    """Which modules have changed since the run was made; that alone makes nothing stale."""
    now = executed_code.of([run.notebook])
    then = run.manifest.get("code", now)
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(changed[:3]) + more


def show_verify(study: str) -> int:
    """Compare every finished run folder with its manifest."""
    folders = sorted(path.parent for path in places.outputs_folder(study).glob("*/manifest.json"))
    if not folders:
        raise runs.RunError(f"{places.outputs_folder(study)} holds no runs.")
    bad = 0
    for folder in folders:
        run = runs.load(study, folder.name)
        differing = run_folder.differing(run.folder, run.manifest) if run.finished else []
        bad += len(differing)
        good = f"{len(run.manifest.get('files', []))} files as written"
        print(f"{run.name}: {'not finished' if not run.finished else '; '.join(differing) or good}")
    return FAILED if bad else DONE


def new_study(study: str, like: str) -> int:
    """Copy a study's parameters to begin a new study."""
    source, target = places.existing(like), places.params_folder(study)
    if target.exists():
        raise runs.RunError(
            f"{target} exists already; nothing was changed. Choose another name, as in make new"
            " STUDY=mine."
        )
    shutil.copytree(source, target)
    _without_what_only_simulated_images_may_have(target)
    print(
        f"Made {target} like '{like}'. Edit its YAML files (each key is explained in its notebook's"
        f" parameters cell), then: make study STUDY={study}"
    )
    return DONE


def _without_what_only_simulated_images_may_have(folder: Path) -> None:
    """Lines marked `(simulated)` or `simulated only` are false, or unsafe, for images of patients:
    they are left out, and study.yaml asks for what takes their place.
    """
    for path in folder.glob("*.yaml"):
        lines = path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not re.search(r"\(simulated\)|simulated only", line)]
        if path.name == "study.yaml":
            asked = [line.partition(":")[0] for line in lines if line not in kept]
            kept += [f"{key}: enter the {key} of your study\n" for key in asked]
        path.write_text("".join(kept))
    consent = folder / "consent.txt"
    if consent.is_file() and "This is a rehearsal" in consent.read_text():
        consent.write_text("enter what your readers are told before they agree to read\n")


# Which commands take an option, and the option.
OPTIONS = (
    (("run", "status"), "--set", {"action": "append", "default": [], "metavar": "RUN.key=value",
     "help": "a parameter for this call; repeat for more"}),
    (("run",), "--only", {"action": "append", "default": [], "metavar": "RUN",
     "help": "this run alone; repeat for more"}),
    (("run",), "--from", {"dest": "first", "metavar": "RUN",
     "help": "this run and the later ones"}),
    (("run",), "--force", {"action": "store_true",
     "help": "redo what is selected, or all that is stale; never paid images or readings"}),
    (("new",), "--like", {"default": "rehearsal"}),
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m helpers.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True)
    for name in ("run", "status", "verify", "new"):
        command = commands.add_parser(name)
        command.add_argument("study")
        for takes, option, details in OPTIONS:
            if name in takes:
                command.add_argument(option, **details)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Carry out a command; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "run":
            return run_study(given.study, given.set, given.only, given.first, given.force)
        if given.command == "status":
            return show_status(given.study, given.set)
        return (
            show_verify(given.study)
            if given.command == "verify"
            else new_study(given.study, given.like)
        )
    except parameters.ParameterError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_SETTINGS
    except (runs.RunError, tables.TableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except (
        BrokenPipeError
    ):  # what was printed was piped to something that has read enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return (
            FAILED if given.command == "run" else DONE
        )  # a run that was stopped by it is not done
    except OSError as error:
        full = (
            " The disk is full: free space or give OUTPUTS=<folder>."
            if error.errno == errno.ENOSPC
            else ""
        )
        print(
            f"error: {error}.{full} Nothing that was finished is lost; run again to continue.",
            file=sys.stderr,
        )
        return FAILED
    except KeyboardInterrupt:
        print("\nstopped; run again to continue.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
