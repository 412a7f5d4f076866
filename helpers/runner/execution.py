"""One notebook through papermill into its run folder, watched from outside."""

import builtins
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

from helpers.files import write_atomically
from helpers.runner import places, runs


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
                cwd=places.ROOT,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=_Indented(sys.stdout),
                autosave_cell_every=0,
                config=_without_ports(sockets),
            )
    except PapermillExecutionError as error:
        raise runs.RunError(_failure(run, error, output)) from None
    except (DeadKernelError, CellTimeoutError):
        pass  # papermill does not always notice either: what the manifest says counts
    finally:
        _strip_paths(output, places.cases_folder(run.study))
    if not runs.load(run.study, run.name).finished:
        raise runs.RunError(
            f"{run.name} ended before it was finished (kernel killed, out of memory or time?). Run"
            f" again to continue; executed notebook: {output}"
        )
    print(f"    {time.monotonic() - began:.0f} s", flush=True)


def _plain(path: Path) -> str:
    """A path for papermill, which would fill in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _without_ports(sockets: str):
    """The kernel talks over sockets in a private folder: nobody else on the machine can listen."""
    from traitlets.config import Config

    manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}
    return Config({"KernelManager": manager, "AsyncKernelManager": manager})


def _failure(run: runs.Run, error, output: Path) -> str:
    first_line = next(
        (
            line
            for line in error.source.splitlines()
            if line.strip() and not line.startswith(("#", "import", "from"))
        ),
        "",
    )
    remedy = ""
    if "Errno 28" in error.evalue or "No space left" in error.evalue:
        remedy = (
            "\n  The disk is full: free space or put the results elsewhere with OUTPUTS=<folder>;"
            " run again to continue."
        )
    # Errors of the helpers are whole sentences; what Python raises needs its kind to be understood.
    kind = f"{error.ename}: " if hasattr(builtins, error.ename) else ""
    return (
        f"{run.name} failed in cell {error.exec_count} (`{first_line.strip()}`):\n "
        f" {kind}{error.evalue}{remedy}\n  Executed notebook: {output}"
    )


def _strip_paths(output: Path, cases: Path | None) -> None:
    """papermill notes absolute paths in the notebook's metadata, errors name the folder of real
    images; both name people's folders.
    """
    import nbformat

    if not output.exists():
        return
    notebook = nbformat.read(output, as_version=4)
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
