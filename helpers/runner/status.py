"""Prints what make status and make verify show."""

from collections.abc import Callable
from pathlib import Path

from helpers.plurals import counted
from helpers.runner import executed_code, folders, freshness, planning, run_folder, runs


def show(study: str, settings: list[str]) -> None:
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
            detail += f"; made with other code: {other}"
        state = (
            "waiting"
            if step.state == "interrupted" and planning.is_reading(step.run)
            else step.state
        )
        print(
            f"{step.run.name:<{width}}  {state:<11} "
            f" {detail or 'for its readers' if state == 'waiting' else detail}".rstrip()
        )


def _other_code(run: runs.Run) -> str:
    """Which modules have changed since the run was made; that alone makes nothing stale."""
    now = executed_code.of([run.notebook])
    then = run.manifest.get("code", now)
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(changed[:3]) + more


def verify(study: str, added_since: Callable[[Path], int | None]) -> bool:
    """Compare every finished run folder with its manifest; returns whether all are as written. A
    record of readings may have been used later if the events of the run are unchanged in it;
    `added_since(folder)` then says how many were added (else None).
    """
    found = [
        path
        for path in sorted(folders.outputs_folder(study).glob("*/"))
        if (path / "manifest.json").exists()
        or (freshness.RUN_NAME.match(path.name) and run_folder.listed(path))
    ]
    if not found:
        raise runs.RunError(f"{folders.outputs_folder(study)} holds no runs.")
    bad, names = 0, {folder.name for folder in found}
    for folder in found:
        try:
            run = runs.load(study, folder.name)
        except runs.RunError as error:
            bad += 1
            print(f"{folder.name}: {error}")
            continue
        made_from = run.manifest.get("inputs", {})
        differing = run_folder.differing(run.folder, run.manifest) if run.finished else []
        # Readers can be invited before their run has begun.
        if not run.manifest and not (folder / "readings.sqlite").exists():
            differing = ["its manifest.json is missing"]
        good = f"{counted(len(run.manifest.get('files', [])), 'file')} as written"
        used = differing == ["readings.sqlite has changed"]
        if used and (later := added_since(run.folder)) is not None:
            differing = []
            good += (
                f" (readings.sqlite was used later: {counted(later, 'event')} added, all events of"
                " events.csv unchanged)"
            )
        differing += [
            f"{name}, which it was made from, is missing"
            for name, files in made_from.items()
            if files and freshness.RUN_NAME.match(name) and name not in names
        ]
        bad += len(differing)
        print(f"{run.name}: {'; '.join(differing) or (good if run.finished else 'not finished')}")
    return not bad
