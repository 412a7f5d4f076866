"""The phantom: physics, sides, differences between patients, DICOM files that readers of real ones
read.
"""

import io

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import findings
from helpers.rehearsal import anatomy, phantom, phantom_ct, phantom_xray

SIDED = ("effusion", "consolidation", "nodule", "pneumothorax")
cases = {
    "seed": st.integers(0, 10**6),
    "finding": st.sampled_from(anatomy.FINDINGS),
    "side": st.sampled_from(["left", "right"]),
}


@settings(max_examples=25, deadline=None)
@given(**cases, view=st.sampled_from(["PA", "AP"]), visit=st.integers(0, 3))
def test_every_xray_is_a_twelve_bit_picture_and_follows_from_its_seed(
    seed, finding, side, view, visit
):
    picture = phantom_xray.xray(seed, finding, side, 96, view, visit)
    assert picture.shape == (96, 96) and picture.dtype == np.uint16
    assert picture.max() <= 4095 and picture.std() > 300
    assert (picture == phantom_xray.xray(seed, finding, side, 96, view, visit)).all()


@settings(max_examples=25, deadline=None)
@given(**cases, level=st.one_of(st.just(-1.0), st.floats(0, 1)))
def test_every_ct_slice_has_air_around_it_lung_soft_tissue_and_bone_in_hounsfield_units(
    seed, finding, side, level
):
    hu = phantom_ct.ct_slice(seed, finding, side, 128, level)
    assert hu.shape == (128, 128) and hu.dtype == np.int16
    assert -1050 < np.median(hu[:6]) < -950, "air"
    assert ((hu > -950) & (hu < -550)).mean() > 0.02, "lung"
    assert ((hu > -20) & (hu < 120)).mean() > 0.05, "soft tissue"
    assert (hu > 250).mean() > 0.003, "bone"


@pytest.mark.parametrize("finding", SIDED)
@pytest.mark.parametrize(
    "draw", [phantom_xray.xray, lambda *case: phantom_ct.ct_slice(*case, level=0.35)]
)
def test_a_finding_is_on_its_side_and_right_is_on_the_picture_s_left(finding, draw):
    changes = {"left": [], "right": []}
    for seed in range(6):
        without = draw(seed, "no_finding", "", 128).astype(float)
        for side in changes:
            change = np.abs(draw(seed, finding, side, 128) - without)
            changes[side].append(change[:, 64:].sum() - change[:, :64].sum())
    assert np.mean(changes["left"]) > 0 > np.mean(changes["right"])


def test_findings_look_as_they_should():
    lungs = np.s_[40:80, 20:108]
    for seed in range(4):
        clean = phantom_xray.xray(seed, size=128).astype(float)
        assert (
            phantom_xray.xray(seed, "effusion", "left", 128)[70:90, 80:110].mean()
            > clean[70:90, 80:110].mean()
        ), "fluid attenuates"
        assert phantom_xray.xray(seed, "infiltrates", "", 128)[lungs].mean() > clean[lungs].mean()
    air = [
        (phantom_ct.ct_slice(seed, "pneumothorax", "right", 128, 0.4) < -950)[30:90, 10:64].mean()
        for seed in range(4)
    ]
    none = [
        (phantom_ct.ct_slice(seed, "no_finding", "", 128, 0.4) < -950)[30:90, 10:64].mean()
        for seed in range(4)
    ]
    assert np.mean(air) > np.mean(none) + 0.01


def test_a_large_heart_is_wider():
    for seed in range(4):
        normal, large = anatomy.Patient(seed), anatomy.Patient(seed, "cardiomegaly")
        assert large.p["heart"] > 1.2 * normal.p["heart"]
        change = phantom_xray.xray(seed, "cardiomegaly", "", 128).astype(float) - phantom_xray.xray(
            seed, size=128
        )
        assert change[60:90, 40:100].mean() > 50


def test_patients_differ_more_than_visits_and_visits_differ_more_than_nothing():
    people = [phantom_xray.xray(seed, size=96).astype(float) for seed in range(8)]
    visits = [phantom_xray.xray(0, size=96, visit=visit).astype(float) for visit in range(1, 8)]
    between = np.mean([np.abs(people[0] - other).mean() for other in people[1:]])
    within = np.mean([np.abs(people[0] - other).mean() for other in visits])
    assert between > within > 20


def test_the_air_around_a_slice_is_noisy():
    air = phantom_ct.ct_slice(3, size=128, level=0.4)[2:10, 2:120].astype(float)
    assert 15 < air.std() < 80


@pytest.mark.parametrize(("finding", "side"), [("pneumonia", "left"), ("effusion", "upper")])
def test_an_unknown_finding_or_side_is_refused(finding, side):
    with pytest.raises(ValueError, match="one of"):
        phantom_xray.xray(1, finding, side)


def test_cases_are_dicom_files_with_metadata_and_are_written_once(tmp_path):
    frame = phantom.write_cases(tmp_path, patients=6, seed=2, size=64, ct_patients=2)
    columns = "file modality origin finding patient_id sex age view licence credit sha256"
    assert list(frame.columns) == columns.split()
    assert (frame["origin"] == "real").all() and set(frame["modality"]) == {"xray", "ct"}
    assert frame["patient_id"].nunique() == 8 and frame["file"].is_unique
    for row in frame.to_dict("records"):
        content = (tmp_path / row["file"]).read_bytes()
        assert __import__("hashlib").sha256(content).hexdigest() == row["sha256"]
        data = pydicom.dcmread(io.BytesIO(content))
        assert (data.BitsStored, data.PhotometricInterpretation, data.PatientID) == (
            12,
            "MONOCHROME2",
            row["patient_id"],
        )
        assert data.pixel_array.shape == (64, 64) and data.pixel_array.max() <= 4095
        if row["modality"] == "ct":
            hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
            assert hu.min() < -900 and (np.abs(hu) < 200).mean() > 0.1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")}
    assert phantom.write_cases(tmp_path, patients=6, seed=2, size=64, ct_patients=2).equals(frame)
    (tmp_path / "metadata.csv").unlink()
    assert phantom.write_cases(tmp_path, patients=6, seed=2, size=64, ct_patients=2).equals(frame)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.dcm")} == before


def test_labels_of_the_cases_are_understood():
    for finding, label in phantom.LABELS.items():
        assert findings.from_label(label) == [finding]
        assert findings.from_label(f"{label} (left)") == [finding]
    assert findings.side_in_text("Effusion (left)") == "left"
