"""The plan of a study and its progress: every params/<study>/<run>.yaml with its values, checked
before anything runs, and the state of its outputs/<study>/<run>/.
"""

from dataclasses import dataclass, field
from pathlib import Path

from helpers.runner import folders, freshness, parameters, runs

READING_STAGE = "07_read_cases"


@dataclass
class Step:
    """A run of the plan with its state: new, interrupted, finished or stale, and why it is
    stale.
    """

    run: runs.Run
    state: str
    reasons: list[str] = field(default_factory=list)


def plan(study: str, settings: list[str]) -> list[runs.Run]:
    """Every run of a study in order, with its parameters: notebook's defaults, then YAML, then SET.

    Everything is checked before anything runs. Raises parameters.ParameterError or runs.RunError.
    """
    folder = folders.existing(study)
    found = (path for path in folder.glob("[!.]*.*") if path.name != "study.yaml")
    files = sorted(path for path in found if path.suffix.casefold() in (".yaml", ".yml"))
    if not files:
        raise runs.RunError(f"{folder} has no YAML files: add one <notebook>.yaml per run.")
    misnamed = [p for p in files if p.suffix != ".yaml" or not freshness.RUN_NAME.match(p.stem)]
    if misnamed:
        raise runs.RunError(
            f"{misnamed[0]}: the name must be <notebook>.yaml or <notebook>.<variant>.yaml, for"
            " example 02_generate_openai.yaml."
        )
    chosen = parameters.read_set(settings, [path.stem for path in files])
    planned = [
        runs.Run(study, path.stem, _values(path, chosen.get(path.stem, {}))) for path in files
    ]
    _check_references(planned)
    return planned


def _values(path: Path, chosen: dict) -> dict:
    notebook = path.stem.partition(".")[0]
    declared = parameters.schema(folders.NOTEBOOKS / f"{notebook}.ipynb")
    given = parameters.read_run(path, declared)
    given |= parameters.check(chosen, declared, f"SET {path.stem}")
    return {
        name: given.get(name, p.default)
        for name, p in declared.items()
        if name not in ("study", "variant")
    }


def _check_references(planned: list[runs.Run]) -> None:
    by_name = {run.name: run for run in planned}
    for run in planned:
        for name in run.references:
            if name not in by_name and not runs.load(run.study, name).finished:
                raise runs.RunError(
                    f"params/{run.study}/{run.name}.yaml reads '{name}', which is not a run of this"
                    f" study{parameters.nearest(name, by_name)}."
                )
            if name >= run.name:
                raise runs.RunError(
                    f"params/{run.study}/{run.name}.yaml reads '{name}', which does not run before"
                    " it."
                )
    reading = [run for run in planned if is_reading(run)]
    if len(reading) > 1:
        named = " and ".join(run.name for run in reading)
        raise runs.RunError(f"A study must have exactly one reading stage; this one has {named}.")
    for run in reading:
        set_run = by_name.get(run.parameters.get("reading_set", ""))
        invited = run.parameters.get("number_of_readers", 0)
        wanted = set_run.parameters.get("readers", 0) if set_run else 0
        if invited < wanted:
            raise runs.RunError(
                f"{set_run.name} plans {wanted} readers (readers), but {run.name} invites {invited}"
                " (number_of_readers), so the key would stay sealed. Set both to the same number."
            )


def states(planned: list[runs.Run]) -> list[Step]:
    """Where each run stands on disk. A run is also stale if it reads a stale one."""
    steps: dict[str, Step] = {}
    for run in planned:
        onto = runs.load(run.study, run.name, run.parameters)
        wanted = freshness.wanted(run.study, onto.notebook, run.parameters)
        reasons = freshness.stale_reasons(onto.manifest, wanted)
        reasons += [
            f"reads {name}, which is {steps[name].state}"
            for name in wanted["inputs"]
            if name in steps and steps[name].state != "finished"
        ]
        state = (
            "new"
            if not onto.manifest
            else "interrupted"
            if not onto.finished
            else "stale"
            if reasons
            else "finished"
        )
        steps[run.name] = Step(onto, state, list(dict.fromkeys(reasons)))
    return list(steps.values())


def is_reading(run: runs.Run) -> bool:
    """Whether this is a run of the reading stage, 07."""
    return run.name.startswith(READING_STAGE)


def select(names: list[str], only: list[str], first: str | None) -> list[str]:
    """The names chosen by ONLY and FROM, which take the beginning of a name too. Raises
    ParameterError for a name that is not one run, RunError for an empty choice.
    """
    only = [parameters.run_named(name, names, "ONLY") for name in only]
    first = first if first is None else parameters.run_named(first, names, "FROM")
    chosen = [name for name in names if (not only or name in only) and name >= (first or "")]
    if not chosen:
        raise runs.RunError(
            f"Nothing is selected: {', '.join(only)} (ONLY) comes before {first} (FROM)."
        )
    return chosen


def check_inputs(steps: list[Step], selected: list[str]) -> None:
    """Check that no selected run reads an unfinished or stale run that is not selected itself."""
    by_name = {step.run.name: step for step in steps}
    for run in (by_name[name].run for name in selected):
        for name in run.references:
            step = by_name.get(name)
            if step and name not in selected and step.state != "finished":
                why = f" ({step.reasons[0]})" if step.reasons else ""
                raise runs.RunError(
                    f"{run.name} reads {name}, which is {step.state}{why} and not selected: run it"
                    " first, or select it too."
                )
