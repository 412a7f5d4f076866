"""Runs one notebook with papermill into its run folder, in a kernel that is watched."""

import builtins
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from helpers import tables
from helpers.files import write_atomically
from helpers.runner import folders, runs
from helpers.runner.parameters import ParameterError


def execute(run: runs.Run) -> None:
    """Run one notebook in a fresh kernel.

    Raises runs.RunError naming the failing cell, its error and the executed notebook.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    variant = run.name.partition(".")[2]
    output = run.folder / "notebook.ipynb"
    run.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    os.environ["STUDY_BATCH"] = "1"
    try:
        with tempfile.TemporaryDirectory() as sockets:
            papermill.execute_notebook(
                _plain(run.notebook),
                _plain(output),
                parameters={"study": run.study, "variant": variant, **run.parameters},
                cwd=folders.ROOT,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=_Indented(sys.stdout),
                autosave_cell_every=0,
                config=_without_ports(sockets),
                kernel_manager_class=_kernels_of(run),
            )
    except PapermillExecutionError as error:
        raise runs.RunError(_failure(run, error, output)) from None
    except (DeadKernelError, CellTimeoutError):
        pass  # papermill does not always notice this, so the manifest decides
    finally:
        _strip_paths(output, folders.cases_folder(run.study))
    if not runs.load(run.study, run.name).finished:
        raise runs.RunError(
            f"{run.name} ended before it was finished (kernel killed, out of memory or time?). Run"
            f" again to continue; executed notebook: {output}"
        )
    print(f"    {time.monotonic() - began:.0f} s", flush=True)


def execute_apart(study: str, name: str, values: dict, where: str, gives_way: bool) -> None:
    """Run one notebook on a cluster's worker, in its own process. The process ends with the worker,
    or when the study stops waiting for it. Its output goes to run.log in the run folder.

    Its own tasks go to the cluster at `where`. If it `gives_way`, other runs take its place while
    it waits for these tasks. Raises as execute does.
    """
    from distributed import get_worker, secede

    worker = get_worker()
    task = worker.get_current_task()
    if gives_way:
        secede()
    log = log_file(study, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as output,
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", "helpers.runner.execution"],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=output,
            cwd=folders.ROOT,
            env=os.environ | {"CLUSTER": where},
        ) as process,
    ):
        process.stdin.write(json.dumps([study, name, values]).encode() + b"\n")
        process.stdin.flush()
        while process.poll() is None:
            known = worker.state.tasks.get(task)
            if known is None or known.state not in ("executing", "long-running"):
                process.kill()
            time.sleep(0.2)
        if process.returncode:
            said.seek(0)
            error = said.read().decode(errors="replace").rpartition(_ERROR)
            raise runs.RunError(error[2].strip() if error[1] else f"{name} was stopped; see {log}")


def log_file(study: str, name: str) -> Path:
    """The log of a run that a cluster's worker carries out."""
    return folders.outputs_folder(study) / name / "run.log"


_ERROR = "\nerror: "


def _apart() -> None:
    """The process of execute_apart. It ends when its standard input ends. What it prints goes to
    stderr, the log. Its error goes to stdout instead, because it must arrive even if the disk is
    full.
    """
    study, name, values = json.loads(sys.stdin.readline())
    threading.Thread(target=lambda: os._exit(1 + len(sys.stdin.read())), daemon=True).start()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            execute(runs.load(study, name, values))
    except (runs.RunError, ParameterError, tables.TableError, OSError) as error:
        print(f"{_ERROR}{error}{_remedy(str(error))}", flush=True)
        os._exit(1)
    os._exit(0)


def _plain(path: Path) -> str:
    """A path with its braces escaped, because papermill fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _without_ports(sockets: str):
    """The kernel talks over sockets in a private folder: nobody else on the machine can listen."""
    from traitlets.config import Config

    manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}
    return Config({"KernelManager": manager, "AsyncKernelManager": manager})


def _kernels_of(run: runs.Run):
    """A kernel manager that interrupts a kernel only while a cell runs. jupyter_client interrupts
    every kernel before it ends, and one that is still answering papermill prints that as an error.
    """
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        async def _async_interrupt_kernel(self) -> None:
            failed = None
            with contextlib.suppress(OSError, ValueError):  # half written: the disk is full
                notebook = json.loads((run.folder / "notebook.ipynb").read_text())
                failed = notebook["metadata"].get("papermill", {}).get("exception")
            if not failed and not runs.load(run.study, run.name).finished:
                await super()._async_interrupt_kernel()

    return Kernel


def _failure(run: runs.Run, error, output: Path) -> str:
    first_line = next(
        (
            line
            for line in error.source.splitlines()
            if line.strip() and not line.startswith(("#", "import", "from"))
        ),
        "",
    )
    # Errors from helpers are full sentences; other Python errors need their type to be understood.
    kind = f"{error.ename}: " if hasattr(builtins, error.ename) else ""
    return (
        f"{run.name} failed in cell {error.exec_count} (`{first_line.strip()}`):\n "
        f" {kind}{error.evalue}{_remedy(error.evalue)}\n  Executed notebook: {output}"
    )


def _remedy(error: str) -> str:
    if ("Errno 28" not in error and "No space left" not in error) or "disk is full" in error:
        return ""
    return (
        "\n  The disk is full: free some space or set OUTPUTS=<folder>, then run again to continue."
    )


def _strip_paths(output: Path, cases: Path | None) -> None:
    """Remove absolute paths, which can contain people's names: papermill notes them in the
    notebook's metadata, and errors name the folder of real images. A notebook that is only half
    written, because the disk is full, goes.
    """
    import nbformat

    try:
        notebook = nbformat.read(output, as_version=4)
    except (FileNotFoundError, ValueError):
        output.unlink(missing_ok=True)
        return
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    text = nbformat.writes(notebook)
    write_atomically(
        output, (text.replace(json.dumps(str(cases))[1:-1], "CASES") if cases else text).encode()
    )


class _Indented:
    """What a kernel prints, indented under its run's line; bars that redraw a line become plain
    lines.
    """

    def __init__(self, stream):
        self.stream, self.fresh = stream, True

    def write(self, text: str) -> int:
        for part in re.split(r"(\n)", text.replace("\r", "\n")):
            if part == "\n":
                self.stream.write(part)
                self.fresh = True
            elif part:
                self.stream.write(("    " if self.fresh else "") + part)
                self.fresh = False
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


if __name__ == "__main__":
    _apart()
