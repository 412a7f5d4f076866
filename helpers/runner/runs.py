"""A run: one notebook, its parameters and its folder outputs/<study>/<run>/.

A run is finished when its own last act says so in manifest.json and its parameters, the hashes of
its inputs and its notebook are still the same. An interrupted run continues; a stale one is never
redone unasked.
"""

import copy
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from helpers import tables
from helpers.files import utc_now, write_atomically
from helpers.plurals import counted
from helpers.runner import executed_code, folders, freshness, in_force, parameters, run_folder

MOVED = ("PARAMS", "OUTPUTS", "KEYS")  # the folders of a study that the environment can move
PATIENCE_SECONDS = 10.0  # for a run folder that another process has locked


class RunError(RuntimeError):
    """A run that cannot start or be read; the message says what to do."""


@dataclass
class Run:
    """One run of a study. `finished` means: show what is there, change nothing."""

    study: str
    name: str
    values: dict = field(repr=False)
    manifest: dict = field(default_factory=dict)
    finished: bool = False
    _lock: FileLock | None = None
    _namespace: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.values = parameters.Record(self.values)

    @property
    def parameters(self) -> parameters.Record:
        """The parameters in force, by name: `run.parameters.steps`. Raises RunError as _in_force
        does.
        """
        return self._in_force().values

    def _in_force(self) -> "Run":
        """This run, unless a parameter's variable was changed in the notebook after runs.start.

        Raises RunError naming the parameter and both values: otherwise the manifest would not say
        what the run used.
        """
        variant = self.name.partition(".")[2]
        for key, value in {"study": self.study, "variant": variant, **self.values}.items():
            now = self._namespace.get(key, value)
            if not (isinstance(now, tuple(parameters.TYPES.values())) and now == value):
                raise RunError(
                    f"{self.name}: '{key}' is {now!r} in this notebook now, but the run uses"
                    f" {value!r}: run the cell with runs.start again to apply the change, or set"
                    " the variable back."
                )
        return self

    @property
    def folder(self) -> Path:
        """outputs/<study>/<run>/"""
        return folders.outputs_folder(self.study) / self.name

    @property
    def notebook(self) -> Path:
        """The notebook in this checkout."""
        return folders.NOTEBOOKS / f"{self.name.split('.')[0]}.ipynb"

    @property
    def references(self) -> list[str]:
        """The runs that this one reads, by name."""
        return freshness.references(self.study, self.notebook, self.parameters)

    @property
    def simulated(self) -> list[str]:
        """What in this run or in the runs it reads is simulated; empty in a real study."""
        return self.manifest.get("simulated", [])

    def mark_simulated(self, what: str) -> None:
        """Mark this run, and every run that will read it, as based on simulated data."""
        if what not in self.manifest.setdefault("simulated", []):
            self.manifest["simulated"].append(what)
            self.write_json("manifest.json", self.manifest)

    def file(self, relative: str) -> Path:
        """A path in the run folder, its parent folders made."""
        path = self._in_force().folder / relative
        if not self.finished:
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def read(self, relative: str) -> pd.DataFrame:
        """A table of this run, checked against its declared columns."""
        return tables.read(self.folder / relative)

    def write(self, relative: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Check and write a declared table atomically; on a finished run only check."""
        if self._in_force().finished:
            return tables.check(frame, Path(relative).stem)
        return tables.write(frame, self.file(relative))

    def write_bytes(self, relative: str, content: bytes) -> Path:
        """Write a file atomically; on a finished run change nothing."""
        if not self._in_force().finished:
            write_atomically(self.file(relative), content)
        return self.folder / relative

    def write_json(self, relative: str, value) -> Path:
        """Write JSON atomically; on a finished run change nothing."""
        return self.write_bytes(
            relative, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
        )

    def beside(self, filename: str) -> Path:
        """A file beside the study's YAML files, e.g. prompts.csv. Raises RunError when absent."""
        path = folders.params_folder(self._in_force().study) / filename
        if not path.is_file():
            raise RunError(
                f"{self.name}: {path} does not exist, but a parameter names it: add the file or"
                " correct the parameter."
            )
        return path

    def reads(self, name: str) -> "Run":
        """Another finished run of the same study.

        Raises RunError naming it when it is not finished.
        """
        other = load(self._in_force().study, name)
        if not other.finished:
            raise RunError(
                f"{self.name} reads {name}, which is not finished: run it first (make study"
                f" STUDY={self.study})."
            )
        for what in other.simulated:
            self.mark_simulated(what)
        return other

    def say(self, message: str) -> None:
        """Print one line about the progress, to terminal, notebook and log."""
        print(message, flush=True)

    def finish(self, **summary) -> None:
        """The run's last act: hash every file, note versions, say finished.

        `summary` is kept in the manifest.
        """
        if self._in_force().finished:
            return
        run_folder.settle(self.folder)
        self.manifest.update(
            status="finished",
            finished_utc=utc_now(),
            summary=summary,
            files=run_folder.files(self.folder),
            packages=run_folder.versions(),
            machine={
                "system": platform.system(),
                "machine": platform.machine(),
                "python": platform.python_version(),
                "cores": os.cpu_count(),
            },
        )
        self.write_json("manifest.json", self.manifest)
        self.finished = True
        self.release()
        self.say(f"{self.name} is finished: {counted(len(self.manifest['files']), 'file')}.")

    def release(self) -> None:
        """Release the lock, so that another process can work on this run folder."""
        if self._lock is not None:
            self._lock.release()


def start(notebook: str, namespace: dict) -> Run:
    """The run of a notebook:

    `run = runs.start("01_prepare_cases", globals())` after its parameters cell.

    Finds the parameters that are in force (in_force.py), says which value overrides which, sets
    them in `namespace` and checks that they stay unchanged. A finished run shows everything and
    changes nothing; an interrupted run continues. Raises parameters.ParameterError for a bad
    parameter, RunError for a stale or busy run.
    """
    before = {}
    if notebook in _started:  # by this kernel: interrupted, or run again
        _started[notebook].release()
        before = _started[notebook].values
    path = folders.NOTEBOOKS / f"{notebook}.ipynb"
    values, said = in_force.values(path, namespace, before)
    if said:
        print(f"Parameters that this run uses: {'; '.join(said)}.", flush=True)
    folders.existing(values["study"])
    # A list that the notebook changes in place has to differ from the run's.
    copied = copy.deepcopy(values)
    study, variant = values.pop("study"), values.pop("variant")
    run = begin(study, f"{notebook}.{variant}" if variant else notebook, values)
    namespace.update(copied)  # not before: after a refusal, only what somebody typed is typed
    run._namespace = namespace
    _started[notebook] = run
    return run


# The run of each notebook that this kernel has started last.
_started: dict[str, Run] = {}


def begin(study: str, name: str, values: dict) -> Run:
    """Open a run for work: continue it, start it afresh, or show it when it is finished."""
    run = load(study, name, values)
    wanted = freshness.wanted(study, run.notebook, values)
    changes = freshness.stale_reasons(run.manifest, wanted)
    if run.finished and changes:
        raise RunError(
            f"{name} of study '{study}' is finished with other settings ({changes[0]}): nothing was"
            f" changed. To redo it with these settings, run `{redo_command(run)}`, or choose"
            " another variant."
        )
    if run.finished:
        run.say(f"{name} is finished: showing what is there.")
        return run
    run.folder.mkdir(parents=True, exist_ok=True)
    busy = f"{name} of study '{study}' is being worked on by another process"
    # A kernel whose runner was killed needs a moment to notice and go.
    held = lock(run.folder / ".lock", f"{busy}: wait for it or stop it.", PATIENCE_SECONDS)
    try:
        run = load(study, name, values)  # again: another process may have changed it until now
        if not run.finished:
            _open(run, wanted)
            run._lock = held
            return run
    except BaseException:  # interrupted: the next process need not wait for this kernel
        held.release()
        raise
    held.release()
    return begin(study, name, values)


def _open(run: Run, wanted: dict) -> None:
    changes = freshness.stale_reasons(run.manifest, wanted)
    for leftover in run.folder.rglob(".*.part"):  # of a write that was killed
        leftover.unlink()
    # A record may be there before its run has begun: readers can be invited earlier.
    lost = not run.manifest and not (run.folder / "readings.sqlite").exists()
    if changes or (lost and run_folder.listed(run.folder)):
        why = (
            f"was interrupted, and then its settings changed ({changes[0]})"
            if changes
            else "has files but no manifest, so nobody knows their settings"
        )
        run.say(
            f"{run.name} {why}. Its files are made again, except paid images, answers and training"
            " state."
        )
        run_folder.clear(run.folder)
        run.manifest = {}
    if run.manifest:
        run.say(f"{run.name} was interrupted: continuing it.")
    else:
        run.manifest = {"study": run.study, "run": run.name, "simulated": []}
        run.manifest["started_utc"] = utc_now()
    run.manifest["code"] = executed_code.of([run.notebook])
    run.manifest.update(
        status="running", git=run_folder.git(), seed=run.values.get("seed"), **wanted
    )
    run.write_json("manifest.json", run.manifest)


def redo_command(run: Run) -> str:
    """The command that redoes a run with the values that it has here, whatever the YAML says."""
    notebook, _, variant = run.name.partition(".")
    path = folders.settings_file(run.study, notebook, variant)
    make = "" if path.is_file() else f"touch {shlex.quote(str(path))} && "
    schema = parameters.schema(run.notebook)
    in_file = parameters.read_run(path, schema) if path.is_file() else {}
    sets = [
        parameters.as_set(run.name, key, value)
        for key, value in run.values.items()
        if value != in_file.get(key, schema[key].default)
    ]
    given = "".join(f" --set {shlex.quote(setting)}" for setting in sets)
    # This environment's Python, if it is in the checkout: another one may not have the packages.
    python = Path(sys.executable)
    python = python.relative_to(folders.ROOT) if python.is_relative_to(folders.ROOT) else "python"
    moved = (f"{name}={shlex.quote(os.environ[name])} " for name in MOVED if os.environ.get(name))
    study = f"{python} -m helpers.study run {run.study} --only {run.name} --force"
    return f"{make}{''.join(moved)}{study}{given}"


def load(study: str, name: str, values: dict | None = None) -> Run:
    """A run as it stands on disk, without touching it. `finished` is what its manifest says."""
    path = folders.outputs_folder(study) / name / "manifest.json"
    manifest = run_folder.manifest(path.parent)
    if manifest is None:
        raise RunError(f"{path} is damaged: move the run folder away and run it again.")
    if "pretended" in manifest:
        raise RunError(f"{path} {parameters.OLD_STUDY}")
    run = Run(
        study, name, values if values is not None else manifest.get("parameters", {}), manifest
    )
    run.finished = manifest.get("status") == "finished"
    return run


def lock(path: Path, busy: str, patience: float = 0.0) -> FileLock:
    """The lock on a file, held by one process at a time, taken within `patience` seconds.

    Raises RunError: `busy` if another process keeps it, else why the folder cannot be locked.
    """
    held = FileLock(path, thread_local=False)
    try:
        held.acquire(timeout=patience, poll_interval=0.2)
    except Timeout:
        raise RunError(busy) from None
    except OSError as error:
        raise RunError(
            f"{path.parent} cannot be locked against a second process ({error.strerror}): set"
            " OUTPUTS=<a folder on a drive that supports locks>."
        ) from None
    return held
