"""NIfTI volumes: which slices, how they lie, and how much lung a slice shows."""

import dicom_files
import nibabel
import numpy as np
import pytest
from dicom_files import chest_slice

from helpers.formats import volumes
from helpers.formats.picture import ImageError


def volume(tmp_path, slices=20, name="v.nii.gz", axes="RAS"):
    """A chest of `slices` slices, lungs only in the middle half, a nodule in the right lung's
    front.
    """
    stack = np.stack(
        [
            (
                chest_slice(seed=k)
                if slices // 4 <= k < 3 * slices // 4
                else np.where(chest_slice(seed=k) > -900, 40, -1000)
            )
            for k in range(slices)
        ]
    )
    stack[:, 50:56, 36:44] = np.where(stack[:, 50:56, 36:44] < -700, 60, stack[:, 50:56, 36:44])
    array = stack[:, ::-1, ::-1].transpose(
        2, 1, 0
    )  # rows to the back and columns to the left become RAS
    image = nibabel.Nifti1Image(array.astype(np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
        )
    )
    nibabel.save(turned, tmp_path / name)
    return tmp_path / name, stack


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SRA", "PIR"])
@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii"])
def test_slices_lie_as_radiologists_look_whatever_the_file_order(tmp_path, axes, name):
    path, stack = volume(tmp_path, name=name, axes=axes)
    np.testing.assert_array_equal(volumes.axial(path)[0], stack)


def test_slices_with_lung_are_chosen_evenly(tmp_path):
    path, stack = volume(tmp_path)
    taken = list(dicom_files.read(path, slices=4))
    assert len(taken) == 4 and all(volumes.lung_share(one.hounsfield) > 0.2 for one in taken)
    places = [next(k for k in range(20) if (stack[k] == one.hounsfield).all()) for one in taken]
    assert all(5 <= place < 15 for place in places)
    assert max(np.diff(places)) - min(np.diff(places)) <= 1 and places[-1] - places[0] >= 5


def test_lung_share_knows_lung_from_air_around_and_gas_inside():
    assert volumes.lung_share(chest_slice()) > 0.2
    body = np.where(chest_slice() > -900, 40, -1000)
    assert volumes.lung_share(body) < 0.01
    gas = body.copy()
    gas[50:70, 50:70] = -1010
    assert volumes.lung_share(gas) < 0.02
    assert volumes.lung_share(np.full((64, 64), -1000)) == 0
    assert volumes.lung_share(chest_slice()[20:-20, 14:-14]) > 0.2, (
        "also where the field of view cuts the chest open"
    )


def test_spaced_takes_all_when_few_and_none_without_lung():
    assert volumes.spaced(np.array([0.3, 0.3, 0.01, 0.3]), 8) == [0, 1, 3]
    assert volumes.spaced(np.zeros(5), 3) == []
    assert volumes.spaced(np.array([0.05, 0.2]), 3, min_share=0.1) == [1]


def test_volumes_that_are_no_chest_ct_say_so(tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.ones((8, 8, 8), np.int16), np.eye(4)), tmp_path / "mri.nii.gz"
    )
    with pytest.raises(ImageError, match="Hounsfield"):
        list(dicom_files.read(tmp_path / "mri.nii.gz"))
    path, _ = volume(tmp_path)
    (tmp_path / "cut.nii.gz").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageError, match="damaged"):
        list(dicom_files.read(tmp_path / "cut.nii.gz"))


def test_a_volume_is_known_by_its_content_not_its_name(tmp_path):
    for stored, name in (("v.nii.gz", "IM0001"), ("v.nii.gz", "a.nii"), ("v.nii", "b.nii.gz")):
        path, stack = volume(tmp_path, name=stored)
        path.rename(tmp_path / name)
        np.testing.assert_array_equal(volumes.axial(tmp_path / name)[0], stack)


def test_a_tilted_gantry_does_not_change_the_shape_of_pixels(tmp_path):
    path, _ = volume(tmp_path)
    turn = np.eye(4)
    turn[1:3, 1:3] = np.array([[np.sqrt(3), -1], [1, np.sqrt(3)]]) / 2  # by 30 degrees
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(image.dataobj, turn @ image.affine), tmp_path / "t.nii")
    height, width = dicom_files.read(tmp_path / "t.nii")[0].pixels.shape
    assert height == width


def test_missing_values_lie_outside_the_field_of_view(tmp_path):
    _, stack = volume(tmp_path)
    array = stack.astype(np.float32)[:, ::-1, ::-1].transpose(2, 1, 0).copy()
    array[:5] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "nan.nii.gz")
    read = volumes.axial(tmp_path / "nan.nii.gz")[0]
    assert np.isfinite(read).all() and read[..., -5:].max() == read.min()


@pytest.mark.parametrize("broken", ["zeros", "nan", "flat"])
def test_a_broken_sform_leaves_the_qform_and_is_said(tmp_path, broken):
    image = nibabel.load(volume(tmp_path, name="good.nii.gz")[0])
    expected = dicom_files.read(tmp_path / "good.nii.gz", slices=2)
    image.header.set_qform(image.affine, code=1)
    for name in ("srow_x", "srow_y", "srow_z"):
        image.header[name] = {"zeros": 0, "nan": np.nan, "flat": image.affine[0]}[broken]
    image.header["sform_code"] = 1
    path = tmp_path / "broken.nii"
    header = image.header.copy()
    header["vox_offset"] = 352
    path.write_bytes(
        header.binaryblock
        + bytes(4)
        + np.asarray(image.dataobj).astype(header.get_data_dtype()).tobytes("F")
    )
    shown = dicom_files.read(path, slices=2)
    assert shown[0].doubt == "NIfTI with a broken sform; its qform is used"
    for one, other in zip(shown, expected):
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1)])
def test_trailing_dimensions_of_one_are_dropped(tmp_path, more):
    image = nibabel.load(volume(tmp_path, name="good.nii.gz")[0])
    longer = np.asarray(image.dataobj).reshape(*image.shape, *more)
    nibabel.save(nibabel.Nifti1Image(longer, image.affine), tmp_path / "more.nii.gz")
    for one, other in zip(*(dicom_files.read(tmp_path / f"{n}.nii.gz") for n in ("good", "more"))):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_volume_without_an_affine_is_named_and_one_with_flat_voxels_gets_its_shape(tmp_path):
    image = nibabel.load(volume(tmp_path, name="good.nii.gz")[0])
    image.header.set_sform(None, 0)
    image.header.set_qform(None, 0)
    bare = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    nibabel.save(bare, tmp_path / "bare.nii.gz")
    assert dicom_files.read(tmp_path / "bare.nii.gz")[0].doubt == "NIfTI without affine"
    wide = nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-2.0, -1, 1, 1]))
    nibabel.save(wide, tmp_path / "wide.nii.gz")
    height, width = dicom_files.read(tmp_path / "wide.nii.gz")[0].pixels.shape
    assert width == 2 * height or height * 2 == width
