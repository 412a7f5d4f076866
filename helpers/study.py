"""Run a study: every params/<study>/<run>.yaml through its notebook into outputs/<study>/<run>/, in
order.

This is the entry point of `make study`. It knows runner/ and the stages; the runner does not know
the stages.

python -m helpers.study run rehearsal [--only RUN] [--from RUN] [--force] [--set RUN.key=value]
python -m helpers.study status rehearsal     what is finished, interrupted, stale and why
python -m helpers.study verify rehearsal     do files still have the hashes of their manifests
python -m helpers.study new mine --like rehearsal
"""

import argparse
import errno
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from helpers import tables
from helpers.assemble_reading_set import seal
from helpers.runner import (
    execution,
    folders,
    new_study,
    parameters,
    planning,
    run_folder,
    runs,
    side_by_side,
    status,
    workers,
)

DONE, FAILED, BAD_SETTINGS, STALE = 0, 1, 2, 3

# The resources that a run needs of a cluster's worker, if workers declare theirs; and the runs
# whose place another run may take while they wait for their own tasks.
NEEDS = {"03_finetune_diffusion": {"GPU": 1}}
GIVE_WAY = ("01_prepare_cases", "04_sample_diffusion", "05_audit_images")


class Waiting(Exception):
    """Readers have to do something first; the message says who and what."""


def run_study(
    study: str, settings: list[str], only: list[str], first: str | None, force: bool
) -> int:
    """Run what is not finished; returns the exit code.

    `force` redoes what is selected or, with no selection, what is stale.
    """
    planned = planning.plan(study, settings)
    os.environ["STUDY_FORCE"] = "1" if force else ""  # read by a training that was interrupted
    selected = planning.select([run.name for run in planned], only, first)
    before = planning.states(planned)
    planning.check_inputs(before, selected)
    steps = [step for step in before if step.run.name in selected]
    narrowed = bool(only or first)
    redo = [step.run for step in steps if force and (narrowed or step.state == "stale")]
    # Before anything is redone: a reading set that is being read must keep the runs before it.
    for run in redo:
        _refuse_begun(run, planned)
    _preflight(steps)
    began, stale = time.monotonic(), []
    try:
        with _workplace(study) as slots:
            begin = functools.partial(_begin, planned, stale, force, narrowed)
            side_by_side.carry_out([step.run for step in steps], begin, slots)
    except Waiting as waiting:
        print(f"{waiting}\n\nStudy {study!r} waits for its readers; the rest is still to do.")
        return DONE
    if stale:
        print(
            f"\nStale runs were left as they are: {', '.join(stale)}. To redo them, repeat the"
            " command with FORCE=1 (--force), or give the YAML another variant."
        )
        return STALE
    whole = f"Study {study!r}" if len(selected) == len(planned) else ", ".join(selected)
    one = len(selected) in (1, len(planned))
    print(f"\n{whole} {'is' if one else 'are'} complete ({time.monotonic() - began:.0f} s).")
    for step in planning.states(planned):
        if (path := step.run.folder / "report.html").exists():
            print(f"Report: {path}{' (stale)' if step.state == 'stale' else ''}")
    return DONE


@contextmanager
def _workplace(study: str) -> Iterator[Callable[[], int]]:
    """Yields how many runs go in parallel: one here; with CLUSTER=, as many as its workers take."""
    if not (where := os.environ.get("CLUSTER")):
        yield lambda: 1
        return
    try:
        from helpers.runner import cluster
    except ImportError as error:
        raise runs.RunError(
            f"CLUSTER= needs the package {error.name}: pip install -e '.[cluster]'."
        ) from None
    with cluster.session(where, study) as client:
        yield lambda: cluster.slots(client)


def _begin(
    planned: list[runs.Run], stale: list[str], force: bool, narrowed: bool, run: runs.Run
) -> Future | None:
    """Begin one run; None when there is nothing to do. A stale one that is left joins `stale`.

    Raises Waiting when readers have to do something first.
    """
    # Checked again for every run: the run before it may have made it stale.
    step = next(step for step in planning.states(planned) if step.run.name == run.name)
    head = f"[{[other.name for other in planned].index(run.name) + 1}/{len(planned)}] {run.name}"
    blocked = [why for why in step.reasons if why.startswith(tuple(f"reads {s}," for s in stale))]
    if (step.state == "stale" or blocked) and not force:
        stale.append(run.name)
        print(f"{head}: stale, left as it is ({'; '.join(blocked or step.reasons)})", flush=True)
        return None
    if step.state == "finished" and not (force and narrowed):
        print(f"{head}: finished, skipped", flush=True)
        return None
    reading = planning.is_reading(run)
    doing = "checking which readers have finished" if reading else "running"
    print(f"{head}: {'continuing' if step.state == 'interrupted' else doing}", flush=True)
    for name in run.references:
        if not runs.load(run.study, name).finished:
            raise runs.RunError(f"{run.name} reads {name}, which is not finished: run it first.")
    if step.run.finished:
        _refuse_begun(run, planned)
        run_folder.clear(run.folder)
    if reading:
        return _read(step.run, head)
    notebook = run.name.partition(".")[0]
    place = workers.executor(0, "", **NEEDS.get(notebook, {}))
    if where := os.environ.get("CLUSTER"):
        given = (run.study, run.name, dict(run.parameters), where, notebook in GIVE_WAY)
        return place.submit(execution.execute_apart, *given)
    return place.submit(execution.execute, step.run)


def _preflight(steps: list[planning.Step]) -> None:
    """Raise one error that names everything that would stop a stage (no folder, no key, a bad
    table) or make it ignore CASES=, before the first stage starts.
    """
    checks = (_missing_cases, _missing_api, _bad_tables)
    left = [step.run for step in steps if step.state != "finished"]
    missing = [sentence for run in left for check in checks if (sentence := check(run))]
    sources = {step.run.name: step.run.parameters.get("source") for step in steps}
    drawn = [name for name, source in sources.items() if source == "phantom"]
    if drawn and "folder" not in sources.values() and os.environ.get("CASES"):
        missing.append(
            f"{drawn[0]} draws phantoms, so it would ignore CASES=: remove `source: phantom` from"
            " its YAML to import that folder, or leave CASES= out."
        )
    if missing:
        raise runs.RunError("\n".join(missing))


def _missing_cases(run: runs.Run) -> str:
    if run.parameters.get("source") != "folder":
        return ""
    folder = folders.cases_folder(run.study)
    if folder and folder.is_dir() and any(folder.iterdir()):
        return ""
    found = f", and {folder} is {'empty' if folder.is_dir() else 'not a folder'}" if folder else ""
    return f"{run.name} needs the folder of real images{found}: add CASES=<folder> to the command."


def _missing_api(run: runs.Run) -> str:
    simulated = run.parameters.get("provider", "rehearsal") == "rehearsal"
    if simulated or os.environ.get("CLUSTER"):  # its workers have the key in their own environment
        return ""
    from helpers.services import connection

    try:
        connection.credential(run)
    except runs.RunError as error:
        return f"{run.name}: {error}"
    return ""


def _bad_tables(run: runs.Run) -> str:
    """One sentence for each table beside the YAML, and for a list of decisions on text, that the
    stage would refuse, perhaps hours later. Prints what the design of a read requires of the people
    responsible for it.
    """
    from helpers.assemble_reading_set import blocks
    from helpers.generate_openai import prompts
    from helpers.prepare_cases import review
    from helpers.sample_diffusion import sampling_prompts

    given, wrong = run.parameters, []
    readers = {
        "prompt_table": prompts.read_prompts,
        "prompts": lambda path: sampling_prompts.read_prompts(path, given["modality"]),
        "blocks": lambda _: [print(f"{run.name}: {said}") for said in blocks.read_design(run)[2]],
    }
    for key in ["review", *sorted(readers.keys() & given.keys())]:
        try:
            if key == "review":
                review.decisions(folders.keys_folder(run.study) / f"{run.name}.review")
            else:
                readers[key](run.beside(given[key]))
        except (ValueError, RuntimeError) as error:
            wrong += [f"{run.name}: {said}" for said in str(error).splitlines()]
    return "\n".join(wrong)


def _refuse_begun(run: runs.Run, planned: list[runs.Run]) -> None:
    why = ""
    if any(run.name in other.references and run_folder.begun(other.folder) for other in planned):
        why = f"Somebody has begun to read {run.name}"
    # A redo would delete the record that somebody has seen the truth of these images.
    elif any(entry["how"] == "emergency" for entry in seal.openings(run.folder / "sealed")):
        why = f"The key of {run.name} was opened in an emergency"
    if why:
        raise runs.RunError(
            f"{why}, so it is never redone; nothing was changed."
            f" For another draw, rename its YAML to {run.name.partition('.')[0]}.second.yaml and"
            " those of 07 to 10 likewise, and name these runs in them: reading_set, readings,"
            " models, analysis and comparison, also where a YAML does not have the key yet."
        )


def _read(run: runs.Run, head: str) -> None:
    """Stage 07 runs no kernel: look at the locks, export and finish, or say who still has to read
    what (Waiting).
    """
    opened = runs.begin(run.study, run.name, run.parameters)
    try:
        if waiting := collect(opened):
            raise Waiting(f"{head}: {waiting}")
        opened.finish()
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


def _verify(study: str) -> bool:
    from helpers.reading import export

    return status.verify(study, export.added_since)


# Which commands take an option, and the option.
OPTIONS = (
    (("run", "status"), "--set", {"action": "append", "default": [], "metavar": "RUN.key=value",
     "help": "a parameter for this call; repeat for more"}),
    (("run",), "--only", {"action": "append", "default": [], "metavar": "RUN",
     "help": "only this run; repeat for more"}),
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
    commands = {
        "run": lambda: run_study(given.study, given.set, given.only, given.first, given.force),
        "verify": lambda: DONE if _verify(given.study) else FAILED,
        "status": lambda: status.show(given.study, given.set),
        "new": lambda: new_study.copy(given.study, given.like),
    }
    try:
        return commands[given.command]() or DONE
    except (parameters.ParameterError, runs.RunError, tables.TableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_SETTINGS if isinstance(error, parameters.ParameterError) else FAILED
    except BrokenPipeError:  # the output goes to a program that has stopped reading, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED if given.command == "run" else DONE  # a run that it stopped is not done
    except OSError as error:
        hint = " The disk is full: free some space or set OUTPUTS=<folder>."
        said = f"error: {error}.{hint if error.errno == errno.ENOSPC else ''}"
        print(f"{said} Finished work is kept; run again to continue.", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nstopped; run again to continue.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
