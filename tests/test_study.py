"""The runner on real kernels: skip, stale, continue after kill -9, fail by name, bad input in one
sentence.
"""

import asyncio
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import psutil
import pytest
from conftest import HEAD, ROOT, START, manifest, notebook
from jupyter_client.manager import AsyncKernelManager

from helpers import study
from helpers.assemble_reading_set import seal
from helpers.reading import accounts, store
from helpers.runner import folders, freshness, parameters, planning, run_folder, runs, status


def run(*arguments):
    return study.main(["run", "small", *arguments])


def results(folder: Path) -> dict:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*.json"))
        if p.name != "manifest.json"
    }


def states() -> dict:
    return {step.run.name: step.state for step in planning.states(planning.plan("small", []))}


def finish(name, **values):
    """A finished run in no time, without a kernel."""
    planned = next(run for run in planning.plan("small", []) if run.name == name)
    opened = runs.begin("small", name, planned.parameters | values)
    opened.write_json("made.json", 1)
    opened.finish()


def finish_all():
    """The whole study finished in no time, for what needs no kernel to be seen."""
    for planned in planning.plan("small", []):
        finish(planned.name)


def test_runs_in_order_then_skips_and_changes_nothing(small, capsys):
    with mock.patch.object(AsyncKernelManager, "_async_interrupt_kernel") as interrupted:
        assert run() == study.DONE
    assert not interrupted.called, "a kernel that may still answer prints that as an error"
    assert json.loads((small / "outputs/small/02_double/doubled.json").read_text()) == [0, 2, 4, 6]
    before = {p: p.stat().st_mtime_ns for p in (small / "outputs").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run() == study.DONE
    assert capsys.readouterr().out.count("finished, skipped") == 3
    assert {
        p: p.stat().st_mtime_ns for p in (small / "outputs").rglob("*") if p.is_file()
    } == before
    told = manifest(small / "outputs/small/01_count")
    assert told["status"] == "finished"
    assert {f["path"] for f in told["files"]} == {f"parts/{i}.json" for i in range(4)}
    assert str(small) not in (small / "outputs/small/01_count/notebook.ipynb").read_text(), (
        "no absolute paths in the executed notebook"
    )


def test_a_changed_parameter_makes_its_run_and_those_that_read_it_stale(small, capsys):
    run()
    (small / "params/small/01_count.yaml").write_text("numbers: 5\n")
    assert states() == {"01_count": "stale", "02_double": "stale", "03_alone": "finished"}
    before = results(small / "outputs")
    assert run() == study.STALE
    assert "numbers: 4 before, 5 now" in capsys.readouterr().out
    assert results(small / "outputs") == before, "stale runs are left as they are"
    (small / "outputs/small/02_double/report.html").touch()
    assert run("--only", "01_count", "--only", "03_alone", "--force") == study.DONE
    told = capsys.readouterr().out
    assert "01_count, 03_alone are complete" in told and "report.html (stale)\n" in told
    assert run("--force") == study.DONE
    assert "report.html (stale)" not in capsys.readouterr().out
    assert json.loads((small / "outputs/small/02_double/doubled.json").read_text()) == [
        0,
        2,
        4,
        6,
        8,
    ]
    assert set(states().values()) == {"finished"}


def test_status_says_that_other_code_made_a_run_and_makes_nothing_stale(small, capsys):
    run()
    capsys.readouterr()
    status.show("small", [])
    assert "other code" not in capsys.readouterr().out
    path = small / "outputs/small/01_count/manifest.json"
    told = json.loads(path.read_text())
    told["code"]["helpers/runner/runs.py"] = "0" * 64
    path.write_text(json.dumps(told))
    status.show("small", [])
    first, *others = capsys.readouterr().out.splitlines()
    assert first.endswith("made with other code: helpers/runner/runs.py") and "finished" in first
    assert set(states().values()) == {"finished"} and not any("other code" in o for o in others)


def test_a_changed_notebook_or_input_file_is_noticed(small):
    finish_all()
    path = small / "notebooks" / "03_alone.ipynb"
    path.write_text(path.read_text().replace("alone.json', 1", "alone.json', 2"))
    assert states()["03_alone"] == "stale"
    assert states()["01_count"] == "finished"


@pytest.mark.parametrize("name", ["words.txt", "words.csv"])
def test_a_changed_file_beside_the_yaml_is_noticed(small, name):
    (small / "params/small" / name).write_text("said\nbefore\n")
    (small / "params/small/03_alone.yaml").write_text(f"words: {name}\n")
    finish_all()
    assert states()["03_alone"] == "finished"
    (small / "params/small" / name).write_text("said\nnow\n")
    assert states()["03_alone"] == "stale" and states()["01_count"] == "finished"


def test_set_only_from(small, capsys):
    assert run("--only", "01_count", "--set", "01_count.numbers=2") == study.DONE
    assert states()["02_double"] == "new"
    assert len(list((small / "outputs/small/01_count/parts").iterdir())) == 2
    assert run("--only", "02_doubel") == study.BAD_SETTINGS
    assert "did you mean '02_double'" in capsys.readouterr().err
    assert run("--from", "02_double", "--set", "01_count.numbers=2") == study.DONE
    assert json.loads((small / "outputs/small/02_double/doubled.json").read_text()) == [0, 2]


@pytest.mark.parametrize(
    ("mishap", "said"),
    [
        (
            "error",
            [
                "failed in cell 4 (`if mishap == 'error'",
                "ValueError: the data are odd",
                "notebook.ipynb",
            ],
        ),
        ("kill", ["03_alone", "kernel", "notebook.ipynb"]),
        ("full", ["The disk is full", "OUTPUTS="]),
    ],
)
def test_a_failure_is_named_and_the_study_goes_on_from_there(small, capsys, mishap, said):
    (small / "params/small/03_alone.yaml").write_text(f"mishap: {mishap}\n")
    assert run() == study.FAILED
    error = capsys.readouterr().err
    for part in said:
        assert part.lower() in error.lower()
    assert "Traceback" not in error
    assert states()["03_alone"] == "interrupted"
    (small / "params/small/03_alone.yaml").write_text("")
    assert run() == study.DONE


def test_a_disk_that_is_full_is_one_sentence_when_the_notebook_cannot_be_written(small, capsys):
    """The notebook is left half written, as papermill leaves it."""

    def full(_, path):
        Path(path).write_text('{"cells": [')
        raise OSError(errno.ENOSPC, "No space left on device", path)

    with mock.patch("papermill.iorw.LocalHandler.write", lambda _, text, path: full(text, path)):
        assert run("--only", "03_alone") == study.FAILED
    said = capsys.readouterr().err
    assert "The disk is full: free some space or set OUTPUTS=" in said and said.count("\n") == 1
    assert not (small / "outputs/small/03_alone/notebook.ipynb").exists()
    assert run("--only", "03_alone") == study.DONE


def test_a_failed_cell_is_not_followed_by_an_interrupt(small, monkeypatch):
    asked = []
    monkeypatch.setattr(
        AsyncKernelManager,
        "_async_interrupt_kernel",
        lambda self: asked.append(self) or asyncio.sleep(0),
    )
    (small / "params/small/03_alone.yaml").write_text("mishap: error\n")
    assert run("--only", "03_alone") == study.FAILED
    assert not asked


def test_killed_with_9_and_started_again_ends_in_the_same(small):
    (small / "params/small/01_count.yaml").write_text("numbers: 6\nwait: 0.4\n")
    command = [sys.executable, "-m", "helpers.study", "run", "small"]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
    first = small / "outputs/small/01_count/parts/1.json"
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert states()["01_count"] == "interrupted"
    kept = first.stat().st_mtime_ns
    assert run() == study.DONE
    assert first.stat().st_mtime_ns == kept, "what was done is not done again"
    killed = results(small / "outputs")
    shutil.rmtree(small / "outputs/small")
    assert run() == study.DONE
    assert results(small / "outputs") == killed


def test_interrupted_and_then_changed_starts_afresh_but_keeps_what_was_paid(small):
    (small / "params/small/03_alone.yaml").write_text("mishap: error\n")
    run("--only", "03_alone")
    folder = small / "outputs/small/03_alone"
    (folder / "paid").mkdir()
    (folder / "paid" / "image.png").write_bytes(b"bought")
    (folder / "half.json").write_text("1")
    (small / "params/small/03_alone.yaml").write_text("")
    assert run("--only", "03_alone") == study.DONE
    assert not (folder / "half.json").exists()
    assert run("--only", "03_alone", "--force") == study.DONE
    assert (folder / "paid" / "image.png").read_bytes() == b"bought"


def test_verify_finds_a_changed_file(small, capsys):
    finish("03_alone")
    assert study.main(["verify", "small"]) == study.DONE
    (small / "outputs/small/03_alone/made.json").write_text("3")
    assert study.main(["verify", "small"]) == study.FAILED
    assert "made.json has changed" in capsys.readouterr().out


NO_NAMES = ["", ".", "../evil", "small/..", "a b", "-x", "{study}"]


@pytest.mark.parametrize(
    ("way", "name"),
    [
        *((way, name) for way in ("run", "status", "verify", "new", "key") for name in NO_NAMES),
        *(
            (way, name)
            for way in ("run", "status", "hand")
            for name in (*NO_NAMES, "Small", "smal")
        ),
    ],
)
def test_a_study_that_is_none_makes_no_folder_wherever_its_name_comes_from(
    small, capsys, name, way
):
    before = sorted(small.rglob("*"))
    if way == "hand":
        with pytest.raises(parameters.ParameterError) as error:
            runs.start("01_count", by_hand(f"study = {name!r}"))
        said = str(error.value)
    elif way == "key":
        with pytest.raises(parameters.ParameterError) as error:
            folders.study_key(name, "seal")
        said = str(error.value)
    else:
        command = [way, *(["--like", "small"] if way == "new" else []), "--", name]
        assert study.main(command) == study.BAD_SETTINGS
        said = capsys.readouterr().err
    assert f"There is no study '{name}'" in said or f"cannot be named '{name}'" in said
    assert sorted(small.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "01_count", "--from", "02_double"], "Nothing is selected"),
        (["--from", ""], "FROM: no run of this study is named ''"),
        (["--only", ""], "ONLY: no run of this study is named ''"),
        (["--only", "0"], "ONLY: no run of this study is named '0'"),
        (["--only", "02_double"], "02_double reads 01_count, which is new and not selected"),
        (["--from", "02_double", "--force"], "02_double reads 01_count, which is new"),
        (["--set", "01.study=other"], "study cannot be set here; STUDY= chooses the study"),
        (["--set", "01.variant=x"], "the YAML file's name gives the variant"),
        (["--set", "01.numbers=[1"], "SET '01.numbers=[1': not valid YAML"),
        (["--set", "01.numbers={a: }}"], "not valid YAML"),
        (["--set", "01.numbers=null"], "'numbers' must be int, not None"),
    ],
)
def test_a_selection_or_a_set_that_cannot_be_meant_is_one_sentence(small, capsys, arguments, said):
    assert run(*arguments) in (study.FAILED, study.BAD_SETTINGS)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list((small / "outputs").iterdir())


def test_the_number_of_a_stage_names_its_only_run(small):
    names = ["01_count", "02_double", "02_double.more"]
    assert planning.select(names, ["01"], None) == ["01_count"]
    assert planning.select(names, [], "02_double") == names[1:]
    with pytest.raises(parameters.ParameterError, match="could be 02_double or 02_double.more"):
        planning.select(names, ["02"], None)


@pytest.mark.parametrize("name", ["/*", "../*", "*/", "01_*[", "*.yaml"])
def test_a_pattern_that_names_no_run_is_none(small, name):
    assert freshness.matching("small", [name]) == []
    for every in ("0?_*o*", "**"):
        assert freshness.matching("small", [every]) == ["01_count", "02_double", "03_alone"]


def test_a_stale_input_that_is_not_selected_is_one_sentence(small, capsys):
    finish("01_count")
    (small / "params/small/01_count.yaml").write_text("numbers: 5\n")
    for force in ([], ["--force"]):
        assert run("--only", "02_double", *force) == study.FAILED
        said = (
            "02_double reads 01_count, which is stale (numbers: 4 before, 5 now) and not selected"
        )
        assert said in capsys.readouterr().err
    assert states()["02_double"] == "new"


def test_the_remedy_of_a_refusal_redoes_the_run_with_the_values_that_were_asked_for(small, capsys):
    (small / "params/small/03_alone.yaml").write_text("words: a.txt\n")
    finish("03_alone")
    asked = {"words": "two; three = 1e-3", "mishap": "none"}
    with pytest.raises(runs.RunError) as error:
        finish("03_alone", **asked)
    command = re.search("`(?:.*[/ ])?python[0-9.]* -m helpers.study (.*)`", str(error.value))[1]
    parsed = study.parser().parse_args(shlex.split(command))
    assert (parsed.only, parsed.force) == (["03_alone"], True)
    planned = {run.name: run for run in planning.plan("small", parsed.set)}
    assert planned["03_alone"].parameters == asked
    moved = shlex.join(f"{name}={small / name.lower()}" for name in ("PARAMS", "OUTPUTS", "KEYS"))
    assert f"run `{moved} " in str(error.value), "or another study would be redone"


@pytest.mark.parametrize("value", [1e-05, 0.5, True, -3, "", "yes", "2027-06-30", ["a", "b: c"]])
def test_a_set_that_is_printed_is_read_as_the_same_value(value):
    setting = parameters.as_set("03_alone", "key", value)
    assert parameters.read_set([setting], ["03_alone"]) == {"03_alone": {"key": value}}


def test_a_study_that_was_begun_before_the_renaming_is_refused_and_untouched(small, capsys):
    finish("01_count")
    path = small / "outputs/small/01_count/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pretended": ["readers"]}))
    (small / "params/other").mkdir()
    (small / "params/other/03_alone.yaml").write_text("mishap: pretended\n")
    before = {p: p.read_bytes() for p in small.rglob("*") if p.is_file()}
    for command in (
        ["run", "small"],
        ["run", "small", "--force"],
        ["status", "small"],
        ["verify", "small"],
        ["run", "other"],
    ):
        assert study.main(command) != study.DONE
        assert "commit 64a37d2 is the last that reads it" in "".join(capsys.readouterr())
    with pytest.raises(runs.RunError, match="64a37d2"):
        runs.start("01_count", by_hand())
    assert {p: p.read_bytes() for p in small.rglob("*") if p.is_file()} == before


def test_braces_in_the_place_of_results_are_braces(small, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(small / "out{study}{"))
    assert run("--only", "03_alone") == study.DONE
    assert (small / "out{study}{/small/03_alone/notebook.ipynb").exists()


def test_interrupt_and_run_all_in_the_same_kernel(small):
    namespace = by_hand()
    first = runs.start("01_count", namespace)
    assert runs.start("01_count", namespace).folder == first.folder
    for _ in range(2):  # the cell was interrupted while it looked at the inputs
        broken = mock.patch.object(runs.Run, "write_json", side_effect=KeyboardInterrupt)
        with broken, pytest.raises(KeyboardInterrupt):
            runs.start("01_count", namespace)
    again = runs.start("01_count", namespace)
    again.finish()


def test_a_lock_that_cannot_be_taken_is_said(small, monkeypatch):
    refused = mock.Mock(side_effect=OSError(errno.ENOTSUP, "Operation not supported"))
    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(runs.RunError, match="cannot be locked .*not supported.*OUTPUTS="):
        runs.start("01_count", by_hand())


def test_a_copy_inside_another_repository_does_not_report_its_commit(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-qm", "x", "--allow-empty"], check=True)
    monkeypatch.setattr(folders, "ROOT", tmp_path)
    assert len(run_folder.git()["commit"]) == 40
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(folders, "ROOT", tmp_path / "copy")
    assert run_folder.git() == {"commit": None, "dirty": None}


def papermill(small, *arguments):
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(small / "notebooks/01_count.ipynb"),
        str(small / "out.ipynb"),
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=small)


def test_plain_papermill_checks_the_same(small):
    (small / "bad.yaml").write_text("numbrs: 3\n")
    failed = papermill(small, "-f", str(small / "bad.yaml"))
    assert failed.returncode != 0
    assert "unknown key 'numbrs' (did you mean 'numbers'" in failed.stderr
    failed = papermill(small, "-p", "numbers", "many")
    assert failed.returncode != 0
    assert "'numbers' must be int" in failed.stderr
    assert papermill(small, "-p", "numbers", "3").returncode == 0
    again = papermill(small, "-p", "numbers", "4")
    assert again.returncode != 0
    assert "finished with other settings" in again.stderr
    assert len(results(small / "outputs/small/01_count")) == 3


def test_two_at_once_is_one_sentence(small, monkeypatch):
    first = runs.begin("small", "01_count", {"numbers": 4, "wait": 0.0})
    monkeypatch.setattr(runs, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(runs.RunError, match="being worked on by another process"):
        runs.begin("small", "01_count", {"numbers": 4, "wait": 0.0})
    first.release()


def test_a_reading_set_that_has_been_begun_is_never_redone(small, capsys):
    finish_all()
    (small / "outputs/small/02_double/begun.json").write_text("{}")
    assert run("--only", "01_count", "--force") == study.FAILED
    assert "For another draw, rename its YAML" in capsys.readouterr().err
    assert (small / "outputs/small/01_count/made.json").exists()


def test_what_comes_before_a_set_that_is_being_read_is_not_redone_for_nothing(small, capsys):
    """03 reads nothing and comes first here:

    FORCE would redo it and then refuse 01, which 02 has begun to read.
    """
    (small / "params/small/01_count.yaml").unlink()
    shutil.move(small / "params/small/03_alone.yaml", small / "params/small/01_alone.yaml")
    shutil.move(small / "notebooks/03_alone.ipynb", small / "notebooks/01_alone.ipynb")
    path = small / "notebooks/01_alone.ipynb"
    path.write_text(path.read_text().replace("03_alone", "01_alone"))
    (small / "params/small/01_count.yaml").write_text("")
    finish_all()
    before = (small / "outputs/small/01_alone/made.json").stat().st_mtime_ns
    (small / "outputs/small/02_double/begun.json").write_text("{}")
    (small / "params/small/01_alone.yaml").write_text("words: other\n")
    (small / "params/small/01_count.yaml").write_text("numbers: 3\n")
    assert run("--force") == study.FAILED
    assert "Somebody has begun to read 01_count" in capsys.readouterr().err
    assert (small / "outputs/small/01_alone/made.json").stat().st_mtime_ns == before


def test_a_set_whose_key_was_opened_in_an_emergency_is_never_redone(study_folders):
    """A redo would draw the same images and delete the record of that opening."""
    one = runs.Run("small", "06_assemble_reading_set", {})
    opened = one.folder / "sealed" / seal.OPENINGS
    opened.parent.mkdir(parents=True)
    opened.write_text('{"how": "simulated readers", "utc": "2026"}\n')
    study._refuse_begun(one, [])
    opened.write_text('{"how": "emergency", "reason": "ill", "utc": "2026"}\n')
    with pytest.raises(runs.RunError, match="opened in an emergency, so it is never redone"):
        study._refuse_begun(one, [])


@pytest.mark.parametrize(("command", "code"), [("status", study.DONE), ("run", study.FAILED)])
def test_a_reader_of_the_output_who_has_enough_is_no_success_of_a_run(small, command, code):
    """As `make status | head -1` does; a run that lost its output has stopped."""
    asked = [
        sys.executable,
        "-c",
        f"import sys; from helpers import study; sys.exit(study.main(['{command}', 'small']))",
    ]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        asked,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
    )
    os.close(writing)
    assert done.returncode == code and "Traceback" not in done.stderr


def test_simulated_readers_are_nobody(tmp_path):
    assert not run_folder.begun(tmp_path)
    (tmp_path / "begun.json").write_text("{}")
    assert run_folder.begun(tmp_path), "who reads is not known here"
    engine = store.open_store(tmp_path / "readings.sqlite")
    accounts.add_reader(engine, "simulated-1", simulated=True)
    assert not run_folder.begun(tmp_path)
    accounts.add_reader(engine, "reader-x")
    engine.dispose()
    assert run_folder.begun(tmp_path)
    run_folder.clear(tmp_path)
    assert (tmp_path / "readings.sqlite").exists() and (tmp_path / "begun.json").exists(), (
        "what a person answers stays"
    )
    (tmp_path / "readings.sqlite").write_text("no record")
    assert run_folder.begun(tmp_path), "in doubt somebody reads"


CELL = HEAD + "numbers: int = 4  # how many\nwait: float = 0.0  # seconds each"


def by_hand(*cells, **variables):
    """The globals() of a kernel in which the parameters cell and then `cells` were executed."""
    namespace = {}
    for cell in (CELL, *cells):
        exec(cell, namespace)
    return namespace | {"In": ["", CELL, *cells]} | variables


@pytest.mark.parametrize(
    ("cells", "yaml", "in_force", "said"),
    [
        ([], "", 4, ""),
        ([], "numbers: 2", 2, "numbers = 2 (01_count.yaml), not 4 (default)"),
        (["study = 'small'; numbers = 4; wait = 0.0"], "numbers: 2", 4, "numbers = 4 (typed in the"
         " notebook), not 2 (01_count.yaml)"),
        (["# Parameters\nnumbers = 3"], "numbers: 2", 3, "numbers = 3 (given by papermill or SET)"
         ", not 2 (01_count.yaml)"),
        (["numbers = 9"], "numbers: 2", 9, "numbers = 9 (typed in the notebook), not 2 "
         "(01_count.yaml)"),
        (["# Parameters\nnumbers = 3", "numbers = 9"], "", 9, "numbers = 9 (typed in the notebook)"
         ", not 3 (given by papermill or SET)"),
        (["numbers = 4"], "numbers: 2", 4, "numbers = 4 (typed in the notebook), not 2"),
        (["numbers, *rest = sorted([9, 1])"], "", 1, "numbers = 1 (typed in the notebook), not 4"),
        (["for numbers in range(8): pass"], "", 7, "numbers = 7 (typed in the notebook), not 4"),
        ([CELL.replace("= 4", "= 6")], "numbers: 2", 6, "numbers = 6 (typed in the notebook), not "
         "2 (01_count.yaml)"),
        ([CELL.replace("= 4", "= 6"), "# Parameters\nnumbers = 3"], "", 3, "numbers = 3 (given by "
         "papermill or SET), not 4 (default)"),
        (["numbers = 9", CELL], "numbers: 2", 2, "numbers = 2 (01_count.yaml), not 4"),
    ],
)  # fmt: skip
def test_what_is_in_force_by_hand_and_what_it_overrules(small, capsys, cells, yaml, in_force, said):
    (small / "params/small/01_count.yaml").write_text(yaml)
    namespace = by_hand(*cells)
    opened = runs.start("01_count", namespace)
    opened.release()
    assert namespace["numbers"] == opened.parameters.numbers == in_force
    assert manifest(opened.folder)["parameters"]["numbers"] == in_force
    told = capsys.readouterr().out
    assert said in told and (said or "in force" not in told)


def test_a_default_that_was_edited_and_saved_but_not_committed_counts_as_typed(
    small, capsys, monkeypatch
):
    git = ["git", "-C", str(small / "notebooks"), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    path = small / "notebooks" / "01_count.ipynb"
    path.write_text(path.read_text().replace("numbers: int = 4", "numbers: int = 6"))
    (small / "params/small/01_count.yaml").write_text("numbers: 2\n")
    edited = CELL.replace("= 4", "= 6")
    runs.start("01_count", by_hand(edited) | {"In": ["", edited]}).release()
    told = capsys.readouterr().out
    assert "numbers = 6 (typed in the notebook), not 2 (01_count.yaml)" in told
    monkeypatch.setenv("STUDY_BATCH", "1")  # JupyterLab saves by itself: make study must say so
    (small / "params/small/01_count.yaml").write_text("")
    given = "# Parameters\nstudy = 'small'\nvariant = ''\nnumbers = 6\nwait = 0.5"
    runs.start("01_count", by_hand(given) | {"In": ["", edited, given]}).release()
    assert (
        "uses: numbers = 6 (saved in the notebook, not committed), not 4 (default); wait = 0.5"
        " (given by papermill or SET), not 0.0 (default)."
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    "used",
    [
        lambda run: run.parameters.wait,
        lambda run: run.write("draw.csv", None),
        lambda run: run.write_bytes("x", b""),
        lambda run: run.write_json("x.json", 1),
        lambda run: run.file("x"),
        lambda run: run.beside("x.csv"),
        lambda run: run.reads("02_double"),
        lambda run: run.finish(),
    ],
)
@pytest.mark.parametrize("changed", [{"numbers": 9}, {"study": "other"}, {"wait": [1]}])
def test_a_variable_changed_after_the_start_is_refused_until_it_acts(small, used, changed):
    namespace = by_hand()
    opened = runs.start("01_count", namespace)
    key, value = next(iter(changed.items()))
    before = namespace[key]
    namespace[key] = value
    with pytest.raises(runs.RunError) as error:
        used(opened)
    said = f"'{key}' is {value!r} in this notebook now, but the run uses {before!r}"
    assert said in str(error.value) and "run the cell with runs.start again" in str(error.value)
    assert not list(opened.folder.glob("x*"))
    opened.release()


def test_a_list_that_is_changed_in_place_after_the_start_is_refused(small):
    path = small / "notebooks/01_count.ipynb"
    line = 'kinds: list = [\\"a\\"]  # any\\nwait: float'
    path.write_text(path.read_text().replace("wait: float", line, 1))
    cell = CELL.replace("wait: float", 'kinds: list = ["a"]  # any\nwait: float')
    namespace = {}
    exec(cell, namespace)
    opened = runs.start("01_count", namespace | {"In": ["", cell]})
    opened._namespace["kinds"].append("b")
    with pytest.raises(runs.RunError, match=r"'kinds' is \['a', 'b'\] in this notebook now"):
        opened.finish()
    assert opened.values["kinds"] == manifest(opened.folder)["parameters"]["kinds"] == ["a"]
    opened.release()


def test_what_a_refused_start_would_have_used_is_not_taken_for_typed(small):
    (small / "params/small/01_count.yaml").write_text("numbers: 2\n")
    finish("01_count")
    namespace = by_hand()
    (small / "params/small/01_count.yaml").write_text("numbers: 5\n")
    with pytest.raises(runs.RunError, match="numbers: 2 before, 5 now"):
        runs.start("01_count", namespace)
    (small / "params/small/01_count.yaml").write_text("numbers: 2\n")
    assert runs.start("01_count", namespace).finished


@pytest.mark.parametrize("name", ["../../../evil", "a b", "x/y", "a.b", "x{y}", "x\n", "x" * 300])
def test_a_variant_that_names_another_folder_makes_none(small, name):
    before = sorted(small.rglob("*"))
    with pytest.raises(parameters.ParameterError, match="use at most 100 letters, digits, - and _"):
        runs.start("01_count", by_hand(f"variant = {name!r}"))
    assert sorted(small.rglob("*")) == before


@pytest.mark.parametrize("name", ["01_count.yml", "01_count.b.YAML", "study.yml"])
def test_a_settings_file_with_another_ending_is_not_silently_left_out(small, capsys, name):
    (small / "params/small" / name).touch()
    (small / "params/small/._01_count.yaml").touch()  # of an archive that macOS made
    assert run("--only", "03_alone") == study.FAILED
    said = capsys.readouterr().err
    assert f"{name}: the name must be <notebook>.yaml" in said and said.count("\n") == 1
    (small / "params/small" / name).unlink()
    assert planning.plan("small", [])[0].name == "01_count"


def test_a_value_typed_after_the_start_acts_when_the_start_cell_runs_again(small):
    (small / "params/small/01_count.yaml").write_text("numbers: 2\n")
    namespace = by_hand()
    runs.start("01_count", namespace)
    assert namespace["numbers"] == 2
    exec("numbers = 9", namespace)
    namespace["In"] += ["numbers = 9", "run = runs.start('01_count', globals())"]
    again = runs.start("01_count", namespace)
    assert again.parameters.numbers == manifest(again.folder)["parameters"]["numbers"] == 9
    (small / "params/small/01_count.yaml").write_text("numbers: 2\nwait: 0.5\n")
    again = runs.start("01_count", namespace)
    assert (again.parameters.numbers, again.parameters.wait) == (9, 0.5)
    namespace["In"] += [CELL]
    exec(CELL, namespace)
    again = runs.start("01_count", namespace)
    assert again.parameters.numbers == 2
    again.release()


def test_a_parameter_is_added_by_a_line_in_the_cell_and_the_line_that_uses_it(small):
    path = small / "notebooks/01_count.ipynb"
    text = (
        path.read_text()
        .replace("# seconds each", "# seconds each\\nsign: int = 1  # 1 or -1")
        .replace(".json', i)", ".json', run.parameters.sign * i)")
    )
    path.write_text(text)
    assert run("--only", "01_count", "--set", "01_count.sign=-1") == study.DONE
    assert json.loads((small / "outputs/small/01_count/parts/3.json").read_text()) == -3
    assert manifest(small / "outputs/small/01_count")["parameters"]["sign"] == -1


def test_only_what_the_schema_calls_a_run_is_one(small):
    path = small / "notebooks/03_alone.ipynb"
    path.write_text(
        path.read_text().replace(
            "# file: beside the YAML",
            '# file: beside the YAML\\nlabel: str = \\"\\"  # shown in figures\\n'
            'base: str = \\"tiny\\"  # run or model: either',
        )
    )
    assert planning.plan("small", ["03.label=04_lora", "03.base=hub/04_lora"])
    for setting in ("03.base=04_lora", "02.counted=anything"):
        with pytest.raises(runs.RunError, match="which is not a run of this study"):
            planning.plan("small", [setting])


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "06_assemble_reading_set.yaml",
            "# All",
            "readers: 3\n# All",
            "plans 3 readers (readers), but 07_read_cases invites 2",
        ),
        (
            "draw.csv",
            "count,training",
            "cuont,training",
            "column 'cuont' is not known; did you mean 'count'?",
        ),
        (
            "draw.csv",
            ",xray,,10,",
            ",xray,efusion,10,",
            "did you mean 'effusion'?",
        ),
        ("prompts.csv", ",effusion,", ",efusion,", "efusion"),
        ("sampling_prompts.csv", ",effusion,", ",efusion,", "efusion"),
    ],
)
def test_what_a_later_stage_would_refuse_is_said_before_the_first_one_starts(
    study_folders, capsys, name, old, new, said
):
    shutil.copytree(ROOT / "params" / "rehearsal", study_folders / "params" / "mine")
    path = study_folders / "params" / "mine" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert study.main(["run", "mine"]) == study.FAILED
    assert said in capsys.readouterr().err
    assert not any((study_folders / "outputs").iterdir())


def test_nothing_new_is_built_on_something_stale(small, capsys):
    finish("01_count")
    (small / "params/small/01_count.yaml").write_text("numbers: 5\n")
    assert run() == study.STALE
    assert (
        "02_double: stale, left as it is (reads 01_count, which is stale)"
        in capsys.readouterr().out
    )
    assert not (small / "outputs/small/02_double/doubled.json").exists()
    assert (small / "outputs/small/03_alone/alone.json").exists(), (
        "what does not rest on it goes on"
    )


def test_the_folder_of_real_images_never_stands_in_an_executed_notebook(
    small, monkeypatch, tmp_path, capsys
):
    (tmp_path / "Doe_Jane").mkdir()
    monkeypatch.setenv("CASES", str(tmp_path / "Doe_Jane"))
    monkeypatch.setattr(folders, "NOTEBOOKS", small / "notebooks")
    path = small / "notebooks" / "03_alone.ipynb"
    path.write_text(
        path.read_text().replace("the data are odd", str(tmp_path / "Doe_Jane" / "x.dcm"))
    )
    run("--only", "03_alone", "--set", "03_alone.mishap=error")
    executed = (small / "outputs/small/03_alone/notebook.ipynb").read_text()
    assert "ValueError" in executed and "Doe_Jane" not in executed
    assert "Doe_Jane" in "".join(capsys.readouterr()), "the terminal names it"


def test_a_folder_of_real_images_is_not_silently_ignored(small, monkeypatch, tmp_path, capsys):
    cell = HEAD + 'source: str = "folder"  # one of: folder, phantom'
    notebook(small / "notebooks/03_alone.ipynb", cell, START.format(name="03_alone"))
    (small / "params/small/03_alone.yaml").write_text("source: phantom\n")
    monkeypatch.setenv("CASES", str(tmp_path))
    assert run() == study.FAILED
    said = capsys.readouterr().err
    assert "03_alone draws phantoms, so it would ignore CASES=: remove `source: phantom`" in said
    assert not (small / "outputs/small").exists()
    finish("03_alone", source="phantom")
    assert run("--only", "03_alone") == study.FAILED, "nor later"
    finish("01_count")
    assert run("--only", "01_count") == study.DONE, "a stage that reads no images"


def alive(pids) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid)
            and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]  # fmt: skip


@pytest.mark.parametrize(
    ("who", "sent"),
    [
        ("runner", signal.SIGINT),
        ("runner", signal.SIGTERM),
        ("runner", signal.SIGKILL),
        ("kernel", signal.SIGKILL),
    ],
)
def test_no_worker_outlives_its_study(small, who, sent):
    """Ctrl-C, SIGTERM, kill -9, and a kernel that is restarted."""
    notebook(
        small / "notebooks/03_alone.ipynb",
        HEAD + "seconds: int = 600  # of work",
        START.format(name="03_alone")
        + "\nfrom helpers.runner.workers import worker_pool\npool = worker_pool(2, 'json')",
        "at_work = [pool.submit(time.sleep, seconds) for _ in range(2)]\n"
        "run.write_json('pids.json', [os.getpid(), *pool._processes])\n"
        "at_work[0].result()",
        "run.finish()",
    )
    command = [sys.executable, "-m", "helpers.study", "run", "small", "--only", "03_alone"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        # who runs the tests in the background may have had Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    path = small / "outputs/small/03_alone/pids.json"
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)
    pids = json.loads(path.read_text())
    assert len(alive(pids)) == 3
    os.kill(process.pid if who == "runner" else pids[0], sent)
    assert process.wait(timeout=60) != study.DONE
    deadline = time.monotonic() + 60
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids)


def test_a_study_waits_for_its_readers_and_goes_on_when_they_have_locked(
    small, capsys, monkeypatch
):
    notebook(small / "notebooks/07_read_cases.ipynb", HEAD, START.format(name="07_read_cases"))
    finish_all()
    (small / "params/small/07_read_cases.yaml").write_text("")
    monkeypatch.setattr(study, "collect", lambda opened: "reader-1 has to lock")
    assert run() == study.DONE
    said = capsys.readouterr().out
    assert "[4/4] 07_read_cases: reader-1 has to lock\n\nStudy 'small' waits for its" in said
    assert states()["07_read_cases"] == "interrupted" and "complete" not in said
    monkeypatch.setattr(study, "collect", lambda opened: "")
    assert run() == study.DONE and states()["07_read_cases"] == "finished"
