"""Runs side by side, each when those that it reads are done."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait

from helpers.runner import execution, runs


def carry_out(
    planned: list[runs.Run], begin: Callable[[runs.Run], Future | None], slots: Callable[[], int]
) -> None:
    """Begin every run when none that it reads is still to do, at most `slots()` at once.

    `begin` returns None for what is done already. After an error what is under way ends and nothing
    new begins; then it is raised, several as one RunError. What a run says that is done apart
    stands in its log, and is printed.
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
        return future.exception()
    except CancelledError:
        return runs.RunError(f"{run.name}: the cluster's scheduler is gone. Run again to go on.")


def _size(run: runs.Run) -> int:
    path = execution.log_file(run.study, run.name)
    return path.stat().st_size if path.exists() else 0


def _relay(run: runs.Run, place: int) -> int:
    """Print the whole lines that were added to a run's log; returns where they end."""
    if _size(run) <= place:
        return place
    with execution.log_file(run.study, run.name).open("rb") as file:
        file.seek(place)
        lines = file.read().rpartition(b"\n")[0]
    for line in lines.decode(errors="replace").splitlines():
        if line.strip():
            print(f"    {run.name}: {line.strip()}", flush=True)
    return place + len(lines)
