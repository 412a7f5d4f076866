"""Run folders: secrets are private, names of people's folders stay in .keys, a finished run changes
nothing.
"""

import os
import shutil
import stat
from unittest import mock

import pandas as pd
import pytest
from conftest import notebook

from helpers import tables
from helpers.runner import folders, parameters, run_folder, runs, status, workers
from helpers.runner.progress import progress


@pytest.fixture
def run(study_folders, monkeypatch):
    (study_folders / "params" / "s").mkdir()
    monkeypatch.setattr(folders, "NOTEBOOKS", study_folders)
    for name in ("01_prepare_cases", "02_generate_openai"):
        cell = "seed: int = 1  # any\ncases: str = ''  # run: read"
        notebook(study_folders / f"{name}.ipynb", cell)
    opened = runs.begin("s", "01_prepare_cases", {"seed": 1})
    yield opened
    opened.release()


def test_keys_are_private_stable_and_their_place_is_said(study_folders, capsys):
    made = folders.study_key("s", "pseudonym")
    assert "pseudonym" in capsys.readouterr().out
    path = study_folders / "keys" / "s" / "pseudonym"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert folders.study_key("s", "pseudonym") == made
    assert len(made) == 32
    folders.study_key("s", "pseudonyms")
    assert "Made the pseudonym key of study 's'" in capsys.readouterr().out
    assert folders.study_key("s", "other") != made


def test_keys_that_others_can_open_are_said_once(study_folders, capsys):
    folders.study_key("s", "seal")
    assert "Other accounts" not in capsys.readouterr().out
    folder = study_folders / "keys" / "s"
    for mode in (0o755, 0o710):
        folder.chmod(mode)
        for _ in range(2):
            folders.study_key("s", "seal")
        folder.chmod(0o700)
        folders.study_key("s", "seal")
    said = capsys.readouterr().out
    assert said.count("Other accounts of this machine can open") == 1
    assert f"chmod 700 {folder}" in said


def test_the_cases_folder_is_remembered_in_keys_and_nowhere_else(
    study_folders, monkeypatch, tmp_path
):
    assert folders.cases_folder("s") is None
    monkeypatch.setenv("CASES", str(tmp_path))
    assert folders.cases_folder("s") == tmp_path
    monkeypatch.delenv("CASES")
    assert folders.cases_folder("s") == tmp_path
    held = [
        p
        for p in study_folders.rglob("*")
        if p.is_file() and str(tmp_path).encode() in p.read_bytes()
    ]
    assert [p.relative_to(study_folders).parts[0] for p in held] == ["keys"]


def test_a_finished_run_shows_and_changes_nothing(run):
    row = {"image_id": "a", "checkpoint": "03_x", "prompt_id": "p", "replicate": 0, "seed": 1}
    run.write("samples.csv", pd.DataFrame([row]))
    run.finish(samples=1)
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    run.write("samples.csv", pd.DataFrame([row, row]))
    run.write_json("new.json", 1)
    run.write_bytes("new.bin", b"1")
    run.mark_simulated("nothing")
    run.finish(samples=2)
    assert {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()} == before
    assert run.manifest["files"][0]["rows"] == 1
    with pytest.raises(tables.TableError):
        run.write("samples.csv", pd.DataFrame([{"image_id": "a"}]))


def test_what_is_simulated_is_handed_on_to_every_run_that_reads_it(run):
    run.mark_simulated("phantom cases")
    run.finish()
    second = runs.begin("s", "02_generate_openai", {"cases": "01_prepare_cases"})
    second.reads("01_prepare_cases")
    assert second.simulated == ["phantom cases"]
    second.release()


def test_an_unfinished_run_is_not_read(run):
    second = runs.begin("s", "02_generate_openai", {"cases": "01_prepare_cases"})
    with pytest.raises(runs.RunError, match="reads 01_prepare_cases, which is not finished"):
        second.reads("01_prepare_cases")
    second.release()


@pytest.mark.parametrize("name", ["PARAMS", "OUTPUTS", "KEYS"])
def test_a_relative_folder_or_one_at_home_is_the_same_wherever_a_kernel_runs(
    monkeypatch, tmp_path, name
):
    found = {
        "PARAMS": lambda: folders.params_folder("s"),
        "OUTPUTS": lambda: folders.outputs_folder("s"),
        "KEYS": lambda: folders.keys_folder("s"),
    }[name]
    monkeypatch.setattr(folders, "ROOT", tmp_path / "checkout")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")  # as in JupyterLab
    for given, place in (("a b/c", "checkout/a b/c"), ("~/x", "home/x"), ("", "checkout")):
        monkeypatch.setenv(name, given)
        assert found().is_relative_to(tmp_path / place)
    monkeypatch.setenv("CASES", "real")
    assert folders.cases_folder("s") == tmp_path / "checkout/real"


@pytest.mark.parametrize("content", ["", "12", "zz" * 32, "ab" * 31])
def test_a_damaged_key_is_never_used(study_folders, content):
    folders.study_key("s", "pseudonyms")
    (folders.keys_folder("s") / "pseudonyms").write_text(content)
    with pytest.raises(parameters.ParameterError, match="pseudonyms is damaged: restore it"):
        folders.study_key("s", "pseudonyms")


def test_a_damaged_manifest_is_one_sentence(run):
    run.release()
    (run.folder / "manifest.json").write_text('{"status": "fin')
    with pytest.raises(runs.RunError, match="is damaged"):
        runs.load("s", "01_prepare_cases")
    after = {"seed": 1, "cases": run.name}
    wrong = [
        f'{{"status": "finished", "files": [], "{name}": {value}}}'.encode()
        for name, value in (
            ("files", '["a.csv"]'),
            ("files", '{"a.csv": 1}'),
            ("inputs", "[]"),
            ("parameters", '["x"]'),
            ("code", '"x"'),
            ("finished_utc", "3"),
        )
    ]
    wrong += [b"", b"[]", b"null", b"\xff\xfe", b'{"status": "finished"}', b"[" * 99_999]
    for content in wrong:
        (run.folder / "manifest.json").write_bytes(content)
        opened = runs.begin("s", "02_generate_openai", after)  # a notebook that reads the run
        with pytest.raises(runs.RunError, match="is damaged"):
            opened.reads(run.name)
        opened.release()


def test_files_without_their_manifest_are_made_again_but_nothing_paid_or_read_is_lost(run, capsys):
    run.write_json("image1.json", 1)
    run.write_json("paid/image1.json", 1)
    run.release()
    (run.folder / "manifest.json").unlink()
    again = runs.begin("s", "01_prepare_cases", {"seed": 2})
    assert "has files but no manifest" in capsys.readouterr().out
    assert set(run_folder.hashes(again.folder)) == {"paid/image1.json"}
    again.release()
    (run.folder / "manifest.json").unlink()
    for name in ("readings.sqlite", "export.csv"):  # readers were invited before the run began
        (run.folder / name).touch()
    runs.begin("s", "01_prepare_cases", {"seed": 2}).release()
    assert set(run_folder.hashes(run.folder)) >= {"readings.sqlite", "export.csv"}


def test_a_run_that_another_process_finishes_while_this_one_waits_is_shown(run, monkeypatch):
    run.write_json("image1.json", 1)
    monkeypatch.setattr(runs, "lock", lambda *_: run.finish() or mock.Mock())
    after = runs.begin("s", "01_prepare_cases", {"seed": 1})
    assert after.finished and runs.load("s", run.name).finished


def test_verify_names_a_table_that_was_emptied_or_is_no_table_any_more(run):
    for name in ("a.csv", "b.csv"):
        run.write_bytes(name, b"x\n1\n")
    run.finish()
    (run.folder / "a.csv").write_bytes(b"")
    (run.folder / "b.csv").write_bytes(b"\xff\x00,\n1,2,3\n")
    assert run_folder.differing(run.folder, run.manifest) == [
        "a.csv has changed",
        "b.csv has changed",
    ]


def test_verify_names_a_run_that_is_missing_altogether(run, capsys):
    run.write_json("image1.json", 1)
    run.finish()
    after = runs.begin("s", "02_generate_openai", {"cases": run.name})
    after.reads(run.name)
    after.finish()
    assert status.verify("s", lambda _: None)
    shutil.rmtree(run.folder)
    capsys.readouterr()
    assert not status.verify("s", lambda _: None)
    said = "02_generate_openai: 01_prepare_cases, which it was made from, is missing"
    assert capsys.readouterr().out.strip() == said


def test_verify_names_every_run_without_a_manifest_that_can_be_read(run, capsys):
    run.write_json("image1.json", 1)
    run.finish()
    for name in ("02_generate_openai", "02_generate_openai.second"):
        after = runs.begin("s", name, {"cases": run.name})
        after.write_json("image2.json", 1)
        after.finish()
    assert status.verify("s", lambda _: None)
    (run.folder / "manifest.json").write_text("[")
    (after.folder / "manifest.json").unlink()
    capsys.readouterr()
    assert not status.verify("s", lambda _: None)
    lines = capsys.readouterr().out.splitlines()
    assert "manifest.json is damaged" in lines[0] and lines[1].endswith("1 file as written")
    assert lines[2] == "02_generate_openai.second: its manifest.json is missing"


@pytest.mark.parametrize(("set_to", "taken"), [("3", 3), ("2,1", 2), (" 4 ", 4)])
def test_the_outer_number_of_threads_counts(monkeypatch, set_to, taken):
    monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    assert workers.cores() == taken
    for odd in ("", "many", "0", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", odd)
        assert workers.cores() == len(os.sched_getaffinity(0))


def test_progress_in_a_batch_is_plain_lines_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setenv("STUDY_BATCH", "1")
    assert list(progress(range(5), "images", every=0)) == list(range(5))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("images: 2 of 5, ")
    assert lines[1].endswith(" s left")
