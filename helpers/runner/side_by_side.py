"""Carries out runs in parallel, each when the runs that it reads are done."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait

from helpers.runner import execution, runs, workers


def carry_out(
    planned: list[runs.Run], begin: Callable[[runs.Run], Future | None], slots: Callable[[], int]
) -> None:
    """Start each run once the runs that it reads are done; at most `slots()` run at once.

    `begin` returns None for a run that is done already. After an error, running runs end and no run
    starts; then the error is raised (several errors as one RunError). The log of a run on a worker
    is also printed.
    """
    todo, under_way, said, errors = list(planned), {}, {}, []
    while todo or under_way:
        busy = {run.name for run in (*todo, *under_way.values())}
        free = [run for run in todo if not busy & set(run.references)]
        if errors or len(under_way) >= slots():
            free = []
        if not free and not under_way:
            break
        for run in free[:1]:
            todo.remove(run)
            said[run.name] = _size(run)
            try:
                if future := begin(run):
                    under_way[future] = run
            except Exception as error:
                errors.append(error)
        done = wait(under_way, 0 if free else 1, FIRST_COMPLETED).done
        for run in under_way.values():
            said[run.name] = _relay(run, said[run.name])
        errors += [error for future in done if (error := _error(future, under_way.pop(future)))]
    if errors:
        raise errors[0] if len(errors) == 1 else runs.RunError(" Also: ".join(map(str, errors)))


def _error(future: Future, run: runs.Run) -> BaseException | None:
    try:
        error = future.exception()
        if not workers.died(error):
            return error
        why = "its workers died several times (out of memory, or a job's time limit?)"
        return runs.RunError(f"{run.name}: {why}. Run again to continue.")
    except CancelledError:
        return runs.RunError(f"{run.name}: the cluster's scheduler is gone. Run again to continue.")


def _size(run: runs.Run) -> int:
    path = execution.log_file(run.study, run.name)
    return path.stat().st_size if path.exists() else 0


def _relay(run: runs.Run, place: int) -> int:
    """Print the complete lines that were added to a run's log; returns the position after them."""
    if _size(run) <= place:
        return place
    with execution.log_file(run.study, run.name).open("rb") as file:
        file.seek(place)
        lines = file.read().rpartition(b"\n")[0]
    for line in lines.decode(errors="replace").splitlines():
        if line.strip():
            print(f"    {run.name}: {line.strip()}", flush=True)
    return place + len(lines)
