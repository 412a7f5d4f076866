"""Stage 01 from folder to tables: everything accounted for, nobody named, nothing crossing a split,
interruptions harmless.
"""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, values
from dicom_files import chest_slice, chest_xray, write
from PIL import Image

from helpers import images
from helpers.files import sha256
from helpers.prepare_cases import case_figures, cases, importing, storing
from helpers.prepare_cases.metadata_tables import LayoutError
from helpers.runner import folders, new_study, runs

CELL = {"size": 96, "slices": 3, "burned_in_text": "keep", "workers": 1}
CELL |= {"images_hold_no_text": True}


def hospital(folder, patients=12):
    """A messy folder:

    DICOM X-rays, a CT series, PNG copies, a generated image, damaged files, tables and notes.
    """
    rows = []
    for patient in range(patients):
        for visit in range(2):
            name = f"clinic/Doe_Jane_{patient}/scan.{visit}.dcm"
            write(
                folder / name,
                chest_xray(128, patient * 10 + visit),
                PatientAge="091Y",
                PatientSex="F",
                ViewPosition="PA",
                PatientBirthDate="19300101",
            )
            rows.append(
                {
                    "file": name,
                    "finding": ["No Finding", "Effusion (left)", "Mass"][patient % 3],
                    "patient_id": f"DOE-{patient}",
                    "modality": "xray",
                }
            )
    Image.fromarray(images.eight_bits(chest_xray(128, 0), 12)).save(folder / "copy of Doe.png")
    rows.append(
        {
            "file": "copy of Doe.png",
            "finding": "No Finding",
            "patient_id": "SOMEONE",
            "modality": "xray",
        }
    )
    Image.fromarray(chest_xray(128, 999, 8)).save(folder / "gan.png")
    rows.append(
        {"file": "gan.png", "modality": "xray", "origin": "generated", "generator": "A GAN"}
    )
    for k in range(6):
        lung = (
            chest_slice(seed=k) if k else np.where(chest_slice() > -900, 40, -1000).astype(np.int16)
        )
        write(
            folder / f"series/{k}.dcm",
            lung,
            bits=16,
            modality="CT",
            SeriesInstanceUID="1.2.3",
            PatientID="CT-1",
            ImagePositionPatient=[0, 0, k],
        )
    (folder / "broken.dcm").write_bytes((folder / "series/1.dcm").read_bytes()[:900])
    (folder / "notes.txt").write_text("Mrs Doe came in on Monday")
    (folder / "empty.png").write_bytes(b"")
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def prepared(folder, monkeypatch, study="s", **changes):
    monkeypatch.setenv("CASES", str(folder))
    run = begun(study, **changes)
    return run, cases.prepare(run)


def begun(study, **changes):
    return runs.begin(study, "01_prepare_cases", values("01_prepare_cases", **{**CELL, **changes}))


@pytest.fixture
def made(tmp_path, study_folders, monkeypatch):
    return prepared(hospital(tmp_path / "in"), monkeypatch)


def test_every_file_is_taken_or_refused_with_a_reason(made, tmp_path):
    run, of = made
    found = importing.files_below(tmp_path / "in")
    assert of.imported["file_hash"].nunique() + len(of.rejected) == len(found)
    assert not set(of.imported["file_hash"]) & set(of.rejected["file_hash"])
    reasons = of.rejected["reason"].value_counts()
    assert (
        reasons["text, not an image"]
        == reasons["empty file"]
        == reasons["metadata table, read for labels"]
        == 1
    )
    assert reasons[reasons.index.str.startswith("damaged")].sum() == 1
    assert (
        reasons["CT series: other slices were chosen"] == 2
        and reasons[reasons.index.str.startswith("CT slice that shows little")].sum() == 1
    )
    stored = {f"images/{path.name}" for path in (run.folder / "images").iterdir()}
    assert stored == set(of.images["path"]), "no image without a row, no row without an image"
    for row in of.images.itertuples():
        array = images.read_png(run.folder / row.path)
        assert array.shape == (row.height, row.width) == (96, 96) and array.max() < 2**row.bits
        assert sha256(run.folder / row.path) == row.sha256


def test_nothing_that_names_a_person_leaves(made, tmp_path):
    run, of = made
    everything = b"".join(path.read_bytes() for path in run.folder.rglob("*") if path.is_file())
    for word in (
        b"Doe_Jane",
        b"of Doe",
        b"SECRET",
        b"Secret",
        b"SOMEONE",
        b"19300101",
        b"clinic",
        b"091Y",
        b"scan.",
        b"1.2.3",
        b"notes",
        b"GAN.png",
        str(tmp_path).encode(),
    ):
        assert word not in everything, word
    assert set(of.images["age_band"].dropna()) == {"90+"} and set(of.images["sex"].dropna()) == {
        "F"
    }
    keys = folders.keys_folder("s")
    for path in keys.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
    names = pd.read_csv(keys / "01_prepare_cases.names.csv", dtype=str)
    assert (
        set(names["image_id"].dropna()) == set(of.images["image_id"])
        and names["file"].str.contains("Doe_Jane_3").any()
    )


def test_patients_and_copies_stay_together(made):
    _, of = made
    real = of.images[of.images["origin"] == "real"]
    assert real.groupby("patient")["split"].nunique().max() == 1
    copies = real[real["duplicate_group"].notna()]
    assert (
        len(copies[copies["modality"] == "xray"]) == 2
        and copies.groupby("duplicate_group")["split"].nunique().max() == 1
    )
    assert copies[copies["modality"] == "xray"]["patient"].nunique() == 2, (
        "the copy came under another patient id"
    )
    assert real["split"].notna().all()


def test_what_a_generated_image_was_made_from_is_kept_by_id(tmp_path, study_folders, monkeypatch):
    folder = hospital(tmp_path / "in")
    table = pd.read_csv(folder / "metadata.csv").assign(**{"Made from": ""})
    named = table["file"] == "gan.png"
    for name in ("copy of Doe.png", "somewhere/else.png"):
        table.loc[named, "Made from"] = name
        table.to_csv(folder / "metadata.csv", index=False)
        run, of = prepared(folder, monkeypatch, study=name[:2].strip() + "x")
        row = of.images[of.images["origin"] == "generated"].iloc[0]
        file = Path(os.environ["KEYS"]) / run.study / f"{run.name}.names.csv"
        names = pd.read_csv(file).set_index("image_id")["file"]
        if name == "copy of Doe.png":
            assert names[row["made_from"]] == name
        else:
            assert pd.isna(row["made_from"])
    assert of.images.loc[of.images["origin"] == "real", "made_from"].isna().all()


def test_generated_pictures_come_in_by_the_same_door(made):
    _, of = made
    row = of.images[of.images["origin"] == "generated"].iloc[0]
    assert row["generator"] == "A GAN" and pd.isna(row["split"]) and pd.isna(row["patient"])


def test_findings_sides_captions_and_slices(made):
    _, of = made
    effusion = of.images[of.images["finding"] == "effusion"].iloc[0]
    assert (
        effusion["side"] == "left"
        and effusion["caption"] == "chest X-ray, PA view, with left pleural effusion"
    )
    slices = of.images[of.images["modality"] == "ct"]
    assert len(slices) == 3 and set(slices["view"]) == {"axial"}


def test_a_finished_run_is_shown_and_not_touched(made, monkeypatch):
    run, of = made
    run.finish(**cases.summary(of))
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    again, shown = prepared(runs_folder_moved_away(monkeypatch), monkeypatch)
    assert again.finished
    pd.testing.assert_frame_equal(shown.images, of.images)
    assert {
        path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != ".lock"
    } == {p: t for p, t in before.items() if p.name != ".lock"}


def runs_folder_moved_away(monkeypatch):
    """The cases folder as a colleague has it who was given the run folder alone: not there."""
    monkeypatch.delenv("CASES")
    return "/nowhere"


def test_same_folder_and_keys_give_the_same_cases_whatever_the_workers(
    tmp_path, study_folders, monkeypatch
):
    folder = hospital(tmp_path / "in", 10)
    run, _ = prepared(folder, monkeypatch, workers=1)
    tables = {
        name: (run.folder / name).read_bytes()
        for name in ("images.csv", "imported.csv", "rejected.csv")
    }
    run.release()
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "elsewhere"))
    run, _ = prepared(folder, monkeypatch, workers=3)
    for name, content in tables.items():
        assert (run.folder / name).read_bytes() == content, name


def test_killed_in_the_middle_it_goes_on_to_the_same_result(tmp_path, study_folders, monkeypatch):
    folder = hospital(tmp_path / "in", 40)
    run, undisturbed = prepared(folder, monkeypatch, study="whole")
    keys = folders.keys_folder("whole")
    script = textwrap.dedent(f"""
        import sys; sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT)!r}]
        from test_cases import begun
        from helpers.prepare_cases import cases
        from helpers.runner import runs
        if __name__ == "__main__":
            cases.prepare(begun("killed", workers=2))
    """)
    (tmp_path / "killed.py").write_text(script)
    (folders.keys_folder("killed") / "pseudonyms").write_bytes((keys / "pseudonyms").read_bytes())
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "killed.py")], start_new_session=True
    )
    target = folders.outputs_folder("killed") / "01_prepare_cases" / "images"
    while process.poll() is None and (not target.is_dir() or len(list(target.glob("*.png"))) < 20):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (target.parent / "images.csv").exists(), "it was killed in the middle"
    next(target.glob("*.png")).write_bytes(b"half a pic")
    run, continued = prepared(folder, monkeypatch, study="killed")
    pd.testing.assert_frame_equal(continued.images, undisturbed.images)
    for path in continued.images["path"]:
        assert (run.folder / path).read_bytes() == (
            folders.outputs_folder("whole") / "01_prepare_cases" / path
        ).read_bytes()


@pytest.mark.parametrize("many", [20, 4])
def test_a_file_that_kills_its_worker_is_rejected_and_the_others_are_kept(
    tmp_path, monkeypatch, many
):
    folder = tmp_path / "in"
    for number in range(many):
        write(folder / f"{number}.dcm", chest_xray(96, number), BodyPartExamined="CHEST")
    known = [
        {"file": f"{number}.dcm", "modality": "xray", "sha256": "", "skip": ""}
        for number in range(many)
    ]
    monkeypatch.setattr(storing, "take_files", take_files_unless_one_is_fatal)
    taken = list(
        importing.take(
            folder,
            known,
            tmp_path / "images",
            tmp_path / "journal.jsonl",
            values("01_prepare_cases", **CELL | {"workers": 2}),
            b"key",
            {},
        )
    )
    assert sorted(one.file for one in taken) == sorted(row["file"] for row in known)
    assert [one.file for one in taken if one.reason] == ["3.dcm"]
    assert "crashed" in next(one.reason for one in taken if one.reason)


def take_files_unless_one_is_fatal(job, numbers):
    if "3.dcm" in [pickle.loads(job.read_bytes())[0][number]["file"] for number in numbers]:
        os.kill(os.getpid(), signal.SIGSEGV)
    return storing.take_files(job, numbers)


def empty(folder):
    folder.mkdir()


def only_notes(folder):
    folder.mkdir()
    (folder / "a.txt").write_text("words")


def no_columns(folder):
    hospital(folder, 1)
    (folder / "metadata.csv").write_text("name,age\nx,3\n")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (empty, cases.CasesError, "is empty"),
        (only_notes, cases.CasesError, "No image .* 1 file in .* text, not an image"),
        (no_columns, LayoutError, "needs a column 'file'"),
        (lambda folder: None, cases.CasesError, "is not there"),
    ],
)
def test_folders_that_cannot_become_cases_say_what_to_do(
    tmp_path, study_folders, monkeypatch, make, error, message
):
    make(tmp_path / "in")
    with pytest.raises(error, match=message):
        prepared(tmp_path / "in", monkeypatch)


def test_a_modality_that_is_none_is_named(tmp_path, study_folders, monkeypatch):
    with pytest.raises(cases.CasesError, match="default_modality: 'X-ray' must be xray, ct or"):
        prepared(hospital(tmp_path / "in", 1), monkeypatch, default_modality="X-ray")


def test_no_folder_named_says_how_to_name_one(study_folders):
    with pytest.raises(cases.CasesError, match="CASES="):
        cases.prepare(begun("s"))


def test_captions_from_reports_are_opt_in_and_warned_about(
    tmp_path, study_folders, monkeypatch, capsys
):
    folder = tmp_path / "in"
    for number in range(3):
        write(folder / f"{number}.dcm", chest_xray(96, number))
    pd.DataFrame(
        {"file": [f"{n}.dcm" for n in range(3)], "report": ["Small effusion.", "", "Clear\nlungs."]}
    ).to_csv(folder / "metadata.csv", index=False)
    _, plain = prepared(folder, monkeypatch, study="plain")
    assert not plain.images["caption"].str.contains("Small").any()
    _, told = prepared(folder, monkeypatch, study="told", captions_from_reports=True)
    assert {"Small effusion.", "Clear lungs.", "chest X-ray"} == set(told.images["caption"])
    assert "patient data" in capsys.readouterr().out


def test_checksums_of_the_metadata_are_obeyed(tmp_path, study_folders, monkeypatch):
    folder = tmp_path / "in"
    for number in range(2):
        write(folder / f"{number}.dcm", chest_xray(96, number))
    pd.DataFrame(
        {"file": ["0.dcm", "1.dcm"], "sha256": [sha256(folder / "0.dcm"), "0" * 64]}
    ).to_csv(folder / "metadata.csv", index=False)
    _, of = prepared(folder, monkeypatch)
    assert len(of.images) == 1 and of.rejected["reason"].str.contains("SHA-256").sum() == 1


@pytest.mark.soak
def test_memory_stays_flat_from_1000_to_20000_files(tmp_path, record_property):
    from speed import importing as speed

    few, many = speed.memory(20_000).iloc[0][["baseline", "ours"]]
    record_property("megabytes", [round(few), round(many)])
    assert many < few + 150


def test_shared_data_imports_with_every_file_accounted_for(study_folders, monkeypatch):
    shared = ROOT.parent / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("the real images are not on this machine")
    _, of = prepared(shared, monkeypatch, size=64)
    assert of.imported["file_hash"].nunique() + len(of.rejected) == len(
        importing.files_below(shared)
    )
    assert of.rejected["reason"].str.startswith(("CT slice", "text", "metadata")).all()
    assert (of.images["origin"] == "generated").sum() == 101


def test_without_patient_ids_a_study_stays_together(tmp_path, study_folders, monkeypatch, capsys):
    folder = tmp_path / "in"
    for number in range(12):
        for k in range(3):
            tags = {
                "StudyInstanceUID": f"1.2.{number}",
                "SeriesInstanceUID": f"1.2.{number}.{k}",
                "PatientID": ["", "ANONYMOUS"][number % 2],
            }
            write(folder / f"{number}_{k}.dcm", chest_xray(96, number * 3 + k), **tags)
    _, of = prepared(folder, monkeypatch)
    assert of.images["patient"].nunique() == 12
    assert of.images.groupby("patient")["split"].nunique().max() == 1 and set(
        of.images["split"]
    ) >= {"train", "test"}
    assert "The patient of 36 images is unknown" in capsys.readouterr().out


def test_one_patient_under_several_spellings_is_one(tmp_path, study_folders, monkeypatch):
    folder = tmp_path / "in"
    for number, identity in enumerate(["00042", "42", "42 ", "AbC", "ABC", "abc"]):
        write(folder / f"{number}.dcm", chest_xray(96, number), PatientID=identity)
    _, of = prepared(folder, monkeypatch)
    assert of.images["patient"].nunique() == 2


def test_a_table_that_leaves_images_out_makes_no_second_patient(
    tmp_path, study_folders, monkeypatch
):
    folder, names = tmp_path / "in", {}
    identities = ["MRN-1", "mrn-1", *["ANON"] * 3, *["SHARED"] * 3]
    studies = ["1.1", "1.2", "1.3", "1.3", "1.4", "1.5", "1.6", "1.7"]
    for number, (identity, study) in enumerate(zip(identities, studies)):
        tags = {"PatientID": identity, "StudyInstanceUID": study}
        names[number] = write(folder / f"{number}.dcm", chest_xray(96, number), **tags).name
    table = "file,patient_id\n0.dcm,A\n2.dcm,B\n4.dcm,unknown\n5.dcm,C\n6.dcm,D\n"
    (folder / "metadata.csv").write_text(table)
    run, _ = prepared(folder, monkeypatch)
    listed = pd.read_csv(folders.keys_folder("s") / f"{run.name}.names.csv", dtype=str)
    of_file = listed.dropna(subset="patient").set_index("file")["patient"]
    patient = [of_file[names[number]] for number in names]
    assert patient[0] == patient[1], "one header's id"
    assert patient[2] == patient[3] != patient[4], "one study; the same placeholder is nobody"
    assert len({*patient}) == 6, "an id that the table gives to two persons joins nobody"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_links_pipes_and_odd_names_are_accounted_for(tmp_path, study_folders, monkeypatch):
    folder = tmp_path / "in"
    write(folder / "a.dcm", chest_xray(96))
    (folder / 'a, "b"\nc.dcm').write_bytes((folder / "a.dcm").read_bytes())
    with Path(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.dcm")).open("wb") as file:
        file.write((folder / "a.dcm").read_bytes())
    (folder / "back").symlink_to(folder)
    (folder / "gone.dcm").symlink_to(tmp_path / "nowhere")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(50))
    os.mkfifo(folder / "pipe.csv")
    _, of = prepared(folder, monkeypatch)
    assert len(of.images) == 3 and len(of.images) + len(of.rejected) == 7
    assert (
        of.rejected["reason"]
        .str.startswith(("link to a folder", "cannot be read", "left over from macOS"))
        .all()
    )


@pytest.mark.parametrize("policy", ["keep", "mask", "reject"])
def test_text_is_kept_in_real_images_only_when_somebody_says_that_there_is_none(
    tmp_path, study_folders, monkeypatch, policy
):
    write(tmp_path / "in" / "a.dcm", chest_xray(96))
    changes = {"burned_in_text": policy, "images_hold_no_text": False}
    if policy != "keep":
        prepared(tmp_path / "in", monkeypatch, **changes)
        return
    with pytest.raises(cases.CasesError, match="images_hold_no_text: true"):
        prepared(tmp_path / "in", monkeypatch, **changes)


@pytest.mark.parametrize("like", ["rehearsal", "unaware", "training", "pairs"])
def test_a_study_begun_from_a_simulated_one_has_nothing_that_only_simulated_images_may_have(
    tmp_path, monkeypatch, like
):
    shutil.copytree(ROOT / "params" / like, tmp_path / like)
    monkeypatch.setenv("PARAMS", str(tmp_path))
    new_study.copy("mine", like)
    texts = "".join(path.read_text() for path in (tmp_path / "mine").glob("*.yaml"))
    assert "burned_in_text" not in texts and "(simulated)" not in texts
    assert "ethics: enter the" in texts and "size: " in texts
    assert "imulated" not in (tmp_path / "mine" / "consent.txt").read_text()


def test_what_was_left_out_is_said_by_reason_with_what_helps(
    tmp_path, study_folders, monkeypatch, capsys
):
    for number in range(4):
        write(tmp_path / "in" / f"{number}.dcm", chest_xray(96, number))
        write(tmp_path / "in" / f"small{number}.dcm", chest_xray(32, number))
    (tmp_path / "in" / "notes.txt").write_text("words")
    run, _ = prepared(tmp_path / "in", monkeypatch)
    said = capsys.readouterr().out
    assert "5 files were left out: 4 smaller than 64 pixels; 1 text, not an image." in said
    assert "Warning: 4 files that may be images" in said and "lower min_pixels" in said
    run.finish()
    prepared(tmp_path / "in", monkeypatch)
    assert "5 files were left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([f"{n}.dcm,{n}" for n in range(4)], "file names as patient ids"),
        ([f"{n}.dcm,P{n}" for n in range(4)], "as many patients as files"),
        ([f"{n}.dcm,P{n // 2}" for n in range(4)], ""),
    ],
)
def test_ids_that_are_no_patients_are_warned_about(
    tmp_path, study_folders, monkeypatch, capsys, rows, says
):
    for number in range(4):
        write(tmp_path / "in" / f"{number}.dcm", chest_xray(96, number))
    (tmp_path / "in" / "metadata.csv").write_text("\n".join(["file,patient_id", *rows]))
    prepared(tmp_path / "in", monkeypatch)
    said = capsys.readouterr().out
    assert (says in said) if says else "Warning" not in said


def test_a_mask_whatever_its_name_is_no_xray(tmp_path, study_folders, monkeypatch):
    write(tmp_path / "in" / "a.dcm", chest_xray(96))
    mask = Image.fromarray(np.where(chest_xray(96) > 2000, 255, 0).astype(np.uint8))
    mask.save(tmp_path / "in" / "b.png")
    mask.convert("1").save(tmp_path / "in" / "c.tif")
    _, of = prepared(tmp_path / "in", monkeypatch, default_modality="xray")
    assert of.rejected["reason"].tolist() == ["at most two grey values: empty, or a mask"] * 2


def test_xrays_that_look_inverted_are_said_and_shown(tmp_path, study_folders, monkeypatch, capsys):
    for number in range(4):
        array = 4095 - chest_xray(96, number) if number == 2 else chest_xray(96, number)
        write(tmp_path / "in" / f"{number}.dcm", array, ViewPosition="PA")
    _, of = prepared(tmp_path / "in", monkeypatch)
    assert of.imported["inverted"].sum() == 1
    assert "1 X-ray looks inverted" in capsys.readouterr().out
    assert len(case_figures.with_marks(of, "inverted")) == 1


@pytest.mark.parametrize("simulated", [True, False])
def test_every_figure_of_simulated_cases_says_so(tmp_path, study_folders, monkeypatch, simulated):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.dcm", chest_xray(96, number))
    _, of = prepared(tmp_path / "in", monkeypatch)
    of.images["simulated"] = simulated
    for figure in (case_figures.flow(of), case_figures.histograms(of)):
        assert [text.get_text() for text in figure.texts] == ["SIMULATED"] * simulated
