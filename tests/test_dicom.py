"""DICOM: every transfer syntax, both photometric interpretations, windows, frames; compared with
DCMTK's rendering.
"""

import re
import shutil
import subprocess
import warnings
from pathlib import Path

import dicom_files
import numpy as np
import pydicom
import pytest
from dicom_files import chest_slice, chest_xray, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid

from helpers import images
from helpers.formats import dicom
from helpers.formats.picture import ImageError
from helpers.formats.windowing import luminance, window
from helpers.prepare_cases import deidentify

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def frames(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(SAMPLES / name, force=True)
        return dataset, list(dicom._frames(dataset))


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("MR_small.dcm", uid.ExplicitVRLittleEndian),
        ("MR_small_implicit.dcm", uid.ImplicitVRLittleEndian),
        ("MR_small_bigendian.dcm", uid.ExplicitVRBigEndian),
        ("image_dfl.dcm", uid.DeflatedExplicitVRLittleEndian),
        ("MR_small_RLE.dcm", uid.RLELossless),
        ("SC_rgb_small_odd_jpeg.dcm", uid.JPEGBaseline8Bit),
        ("JPGExtended.dcm", uid.JPEGExtended12Bit),
        ("SC_rgb_jpeg_gdcm.dcm", uid.JPEGLosslessSV1),
        ("MR_small_jpeg_ls_lossless.dcm", uid.JPEGLSLossless),
        ("JPEGLSNearLossless_16.dcm", uid.JPEGLSNearLossless),
        ("MR_small_jp2klossless.dcm", uid.JPEG2000Lossless),
        ("JPEG2000.dcm", uid.JPEG2000),
    ],
)
def test_every_transfer_syntax_is_decoded(name, syntax):
    dataset, decoded = frames(name)
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert decoded[0].shape[:2] == (dataset.Rows, dataset.Columns)
    assert decoded[0].min() < decoded[0].max()


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_implicit",
        "MR_small_bigendian",
        "MR_small_expb",
        "MR_small_RLE",
        "MR_small_jpeg_ls_lossless",
        "MR_small_jp2klossless",
    ],
)
def test_lossless_encodings_of_one_picture_give_the_same_values(name):
    np.testing.assert_array_equal(frames(f"{name}.dcm")[1][0], frames("MR_small.dcm")[1][0])


@pytest.mark.parametrize(
    "name", ["JPEG2000.dcm", "MR_small_jp2klossless.dcm", "693_J2KI.dcm", "examples_jpeg2k.dcm"]
)
def test_two_decoders_agree_on_jpeg_2000(name):
    """DCMTK reads no JPEG 2000: GDCM and OpenJPEG are compared with each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (pydicom.dcmread(SAMPLES / name) for _ in range(2))
        first.pixel_array_options(decoding_plugin="gdcm")
        second.pixel_array_options(decoding_plugin="pylibjpeg")
        assert np.abs(first.pixel_array.astype(int) - second.pixel_array.astype(int)).max() <= 1


# What DCMTK shows otherwise, and why; measured with DCMTK 3.6.7.
DIFFERENT = {
    "SC_rgb_rle_32bit.dcm": "32-bit colour: DCMTK renders 8 of 32 bits by another rule",
    "SC_rgb_rle_32bit_2frame.dcm": "32-bit colour, as above",
    "liver_1frame.dcm": (
        "one bit a pixel: DCMTK unpacks the bits of a segmentation in another order"
    ),
    "liver_expb_1frame.dcm": "one bit a pixel, as above",
    "rtdose_expb.dcm": (
        "32-bit big endian: DCMTK swaps words, our values equal those of the little-endian file"
    ),
    "rtdose_expb_1frame.dcm": "32-bit big endian, as above",
}


def test_the_big_endian_dose_equals_the_little_endian_one():
    np.testing.assert_array_equal(frames("rtdose_expb.dcm")[1][0], frames("rtdose.dcm")[1][0])


def reference(path, options, folder):
    """DCMTK's 8-bit rendering, grey or colour; None when it cannot read the file."""
    target = folder / "reference.pnm"
    for tool in ("dcm2pnm", "dcmj2pnm", "dcml2pnm"):
        if shutil.which(tool) is None:
            continue
        done = subprocess.run(
            [tool, "-O", *options, "--write-raw-pnm", str(path), str(target)], capture_output=True
        )
        if done.returncode == 0 and target.exists():
            content = target.read_bytes()
            header = re.match(rb"P([56])\s+(\d+)\s+(\d+)\s+255\s", content)
            shape = (int(header[3]), int(header[2]), *((3,) if header[1] == b"6" else ()))
            return np.frombuffer(content[header.end() :], np.uint8, int(np.prod(shape))).reshape(
                shape
            )
    return None


def ours(path):
    """Our rendering at 8 bits by the same rule, and DCMTK's options for it."""
    dataset = pydicom.dcmread(path, force=True)
    values = next(iter(dicom._frames(dataset)))
    if values.ndim == 3:
        grey = luminance(values)
        return images.eight_bits(grey, grey.dtype.itemsize * 8), []
    pixels, bits, used, _ = dicom.grey(dataset, values, 16, "file")
    wanted = dicom.stored_window(dataset)
    if used == "full range" or not wanted:
        return images.eight_bits(pixels, bits), ["+Wm"]
    shown, _ = window(dicom.rescaled(dataset, values), *wanted[:2], 8, wanted[2])
    return (255 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown), [
        "+Ww",
        str(wanted[0]),
        str(wanted[1]),
    ]


@pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs Debian's package dcmtk")
@pytest.mark.filterwarnings("ignore")
def test_rendering_agrees_with_dcmtk_to_one_grey_level(tmp_path):
    compared, differing = 0, {}
    for path in sorted(
        [*SAMPLES.glob("*.dcm"), *SHARED.glob("*_dicom/*.dcm"), *SHARED.glob("ct_dicom/*.dcm")]
    ):
        try:
            shown, options = ours(path)
        except Exception:  # not every sample of pydicom is an image; what we reject is tested below
            continue
        expected = reference(path, options, tmp_path)
        (tmp_path / "reference.pnm").unlink(missing_ok=True)
        if expected is None:
            continue
        expected = luminance(expected) if expected.ndim == 3 else expected
        compared += 1
        if (
            expected.shape != shown.shape
            or np.abs(expected.astype(int) - shown.astype(int)).max() > 1
        ):
            differing[path.name] = np.abs(expected.astype(int) - shown.astype(int)).max()
    assert compared >= 45
    assert set(differing) <= set(DIFFERENT), differing


def picture(path, **options):
    return dicom_files.read(path, **options)[0]


def test_monochrome1_is_shown_white_on_black(tmp_path):
    pixels = chest_xray()
    two = picture(write(tmp_path / "2.dcm", pixels, BodyPartExamined="CHEST"))
    one = picture(
        write(tmp_path / "1.dcm", pixels.max() - pixels + pixels.min(), photometric="MONOCHROME1")
    )
    assert np.abs(two.pixels.astype(int) - one.pixels.astype(int)).max() <= 1


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_odd_depths_keep_every_step(tmp_path, bits):
    pixels = np.linspace(0, 2**bits - 1, 100 * 100).astype(np.uint16).reshape(100, 100)
    shown = picture(write(tmp_path / "x.dcm", pixels, bits=bits))
    assert shown.bits == bits and shown.original_bits == bits and shown.clipped == 0
    np.testing.assert_array_equal(shown.pixels, pixels)


def test_sixteen_bits_are_not_white(tmp_path):
    shown = picture(write(tmp_path / "x.dcm", chest_xray(bits=16), bits=16), bits=12)
    assert 0.2 < shown.pixels.mean() / 4095 < 0.8


def test_signed_values_and_rescale(tmp_path):
    hounsfield = chest_slice()
    shown = picture(
        write(
            tmp_path / "x.dcm",
            hounsfield,
            bits=16,
            modality="CT",
            RescaleSlope=2,
            RescaleIntercept=0,
        ),
        bits=12,
    )
    np.testing.assert_allclose(shown.hounsfield, hounsfield.astype(float) * 2)
    expected, _ = window(hounsfield * 2, -600, 1500, 12)
    np.testing.assert_array_equal(shown.pixels, expected)
    assert shown.window == "-600/1500"


def test_window_and_voi_lut_of_the_file(tmp_path):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    shown = picture(write(tmp_path / "w.dcm", pixels, WindowCenter=[1000, 5], WindowWidth=[500, 5]))
    expected, clipped = window(pixels, 1000, 500, 12)
    np.testing.assert_array_equal(shown.pixels, expected)
    assert shown.clipped == pytest.approx(clipped) and clipped > 0.8 and shown.window == "1000/500"
    whole = picture(tmp_path / "w.dcm", xray_window="full")
    np.testing.assert_array_equal(whole.pixels, pixels)
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = (
        [4096, 0, 12],
        np.arange(4095, -1, -1, dtype="<u2").tobytes(),
    )
    looked_up = picture(write(tmp_path / "v.dcm", pixels, VOILUTSequence=[table]))
    np.testing.assert_array_equal(looked_up.pixels, 4095 - pixels)


def test_a_window_that_shows_nothing_is_not_used(tmp_path):
    shown = picture(write(tmp_path / "w.dcm", chest_xray(), WindowCenter=-5000, WindowWidth=10))
    assert shown.window == "full range" and shown.pixels.min() < shown.pixels.max()


def test_every_frame_is_read(tmp_path):
    stack = np.stack([chest_xray(seed=seed) for seed in range(3)])
    shown = list(dicom_files.read(write(tmp_path / "m.dcm", stack)))
    assert [one.frame for one in shown] == [0, 1, 2]
    np.testing.assert_array_equal(shown[2].pixels.argmax(), stack[2].argmax())


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"modality": "MR"}, "MR is neither X-ray nor CT"),
        ({"BodyPartExamined": "HAND"}, "another body part"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "modality": "CT"}, "localizer"),
        ({"modality": "CT"}, "Hounsfield"),
        ({"Rows": 60000, "Columns": 60000}, "impossible number of pixels"),
    ],
)
def test_what_is_no_chest_picture_says_why(tmp_path, tags, reason):
    with pytest.raises(ImageError, match=reason):
        picture(write(tmp_path / "x.dcm", chest_xray(), **tags))


def test_metadata_overrules_the_modality_of_the_header(tmp_path):
    assert picture(
        write(tmp_path / "x.dcm", chest_xray(), modality="OT"), modality="xray"
    ).pixels.any()


@pytest.mark.parametrize(
    "name", ["test-SR.dcm", "rtplan.dcm", "MR_truncated.dcm", "badVR.dcm", "waveform_ecg.dcm"]
)
@pytest.mark.filterwarnings("ignore")
def test_samples_without_a_usable_picture_are_refused(name):
    with pytest.raises(ImageError):
        list(dicom_files.read(SAMPLES / name, modality="xray"))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    names = [
        "JPEGLSNearLossless_16.dcm",
        "JPGExtended.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
    ]
    plain = write(folder / "plain.dcm", chest_xray(), WindowCenter=2048, WindowWidth=4096)
    return folder / "damaged.dcm", [
        plain.read_bytes(),
        *((SAMPLES / name).read_bytes() for name in names),
    ]


@given(
    st.integers(0, 5),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_a_picture_or_a_reason(encoded, which, cut, flips):
    path, contents = encoded
    content = bytearray(contents[which][: int(len(contents[which]) * cut)])
    for place, value in flips:
        if content:
            content[int(place * (len(content) - 1))] = value
    path.write_bytes(bytes(content))
    try:
        for one in dicom_files.read(path, modality="xray"):
            assert one.pixels.ndim == 2 and one.pixels.max() < 2**one.bits
    except ImageError as error:
        assert str(error) and "Secret" not in str(error)


def sequence(**values):
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]


def test_padding_is_black_and_leaves_the_contrast_alone(tmp_path):
    pixels = chest_xray()
    framed = np.pad(pixels, 20, constant_values=65535)
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        shown = picture(
            write(
                tmp_path / "x.dcm",
                framed,
                bits=16,
                photometric=photometric,
                PixelPaddingValue=65535,
            )
        )
        plain = picture(write(tmp_path / "p.dcm", pixels, bits=16, photometric=photometric))
        np.testing.assert_array_equal(shown.pixels[20:-20, 20:-20], plain.pixels)
        assert shown.pixels[:20].max() == 0
    hounsfield = chest_slice()
    stored = np.where(hounsfield < -900, 63536, hounsfield + 1024).astype(np.uint16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "PixelPaddingValue": 63536}
    ct = picture(write(tmp_path / "ct.dcm", stored, bits=16, modality="CT", **tags))
    assert ct.hounsfield.max() < 200 and ct.pixels[0, 0] < 0.3 * 4095 * 16


def test_bits_above_those_stored_are_no_grey(tmp_path):
    pixels = chest_xray()
    expected = picture(write(tmp_path / "a.dcm", pixels)).pixels
    overlay = (pixels | (np.indices(pixels.shape).sum(0) % 2 * 0x8000)).astype(np.uint16)
    np.testing.assert_array_equal(picture(write(tmp_path / "b.dcm", overlay)).pixels, expected)


def test_enhanced_ct_takes_its_values_from_the_functional_groups(tmp_path):
    stack = np.stack([chest_slice(seed=seed) for seed in range(3)])
    groups = {
        "SharedFunctionalGroupsSequence": sequence(
            PixelValueTransformationSequence=sequence(RescaleSlope=1, RescaleIntercept=-2048),
            PlaneOrientationSequence=sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            PixelMeasuresSequence=sequence(PixelSpacing=[1, 2]),
        ),
        "PerFrameFunctionalGroupsSequence": [
            sequence(PlanePositionSequence=sequence(ImagePositionPatient=[0, 0, 5 * k]))[0]
            for k in range(3)
        ],
    }
    shown = list(
        dicom_files.read(
            write(
                tmp_path / "e.dcm",
                (stack + 2048).astype(np.uint16),
                bits=16,
                modality="CT",
                **groups,
            )
        )
    )
    assert [one.header.position for one in shown] == [0, 5, 10]
    np.testing.assert_array_equal([one.hounsfield for one in shown], stack)
    assert shown[0].pixels.shape == (64, 128)


def test_functional_groups_leave_the_rest_of_the_header_in_force(tmp_path):
    tags = {"PatientOrientation": ["R", "F"], "PresentationLUTShape": "INVERSE"}
    tags |= {"ImagerPixelSpacing": [0.2, 0.1], "WindowCenter": 2048, "WindowWidth": 4096}
    groups = sequence(FrameAnatomySequence=sequence(FrameLaterality="U"))
    plain = picture(write(tmp_path / "a.dcm", chest_xray(), **tags))
    shown = write(tmp_path / "b.dcm", chest_xray(), **tags, SharedFunctionalGroupsSequence=groups)
    np.testing.assert_array_equal(picture(shown).pixels, plain.pixels)
    assert plain.pixels.shape == (128, 64)


@pytest.mark.parametrize("tags", [{"Rows": 100}, {"Columns": 120}, {"NumberOfFrames": 1}])
def test_a_header_that_counts_too_few_pixels_is_no_crop(tmp_path, tags):
    pixels = np.stack([chest_xray()] * 2) if "NumberOfFrames" in tags else chest_xray()
    with pytest.raises(ImageError, match="more pixels than its header says"):
        picture(write(tmp_path / "x.dcm", pixels, **tags))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"modality": "CT", "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not axial"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "raw detector data"),
        ({"modality": "XC"}, "neither X-ray nor CT"),
        ({"modality": ""}, "default_modality"),
    ],
)
def test_reformats_raw_data_and_photographs_are_refused(tmp_path, tags, reason):
    with pytest.raises(ImageError, match=reason):
        picture(
            write(
                tmp_path / "x.dcm",
                (
                    chest_xray()
                    if "modality" not in tags or tags["modality"] != "CT"
                    else chest_slice()
                ),
                **tags,
            )
        )


@pytest.mark.parametrize("part", ["TORAX AP", "UNKNOWN", "", "PORT CHEST"])
def test_a_chest_in_other_words_is_a_chest(tmp_path, part):
    assert picture(write(tmp_path / "x.dcm", chest_xray(), BodyPartExamined=part)).pixels.any()


@pytest.mark.parametrize("modality", ["", "OT"])
def test_the_default_modality_serves_where_a_header_does_not_say_it(tmp_path, modality):
    path = write(tmp_path / "x.dcm", chest_xray(), modality=modality)
    assert picture(path, default_modality="xray").header.modality == "xray"
    with pytest.raises(ImageError, match="MR is neither"):
        picture(write(tmp_path / "m.dcm", chest_xray(), modality="MR"), default_modality="xray")


def test_a_view_may_stand_in_a_code(tmp_path):
    path = write(
        tmp_path / "x.dcm",
        chest_xray(),
        ViewPosition="",
        ViewCodeSequence=sequence(CodeMeaning="postero-anterior"),
    )
    assert deidentify.view(picture(path).header.view, "xray") == "PA"


def test_a_window_for_other_values_is_not_used(tmp_path):
    shown = picture(
        write(tmp_path / "w.dcm", chest_xray() // 2 + 1500, WindowCenter=128, WindowWidth=256)
    )
    assert shown.window == "full range" and shown.clipped == 0


def test_preambles_may_be_missing(tmp_path):
    whole = write(tmp_path / "x.dcm", chest_xray())
    expected, content = picture(whole).pixels, whole.read_bytes()
    for number, start in enumerate((128, 132)):
        (tmp_path / f"{number}").write_bytes(content[start:])
        np.testing.assert_array_equal(picture(tmp_path / f"{number}").pixels, expected)


def test_a_file_cut_off_before_its_pixels_is_damaged(tmp_path):
    whole = (SAMPLES / "MR_small_RLE.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged DICOM"):
        picture(tmp_path / "x.dcm", modality="xray")


def test_values_below_another_high_bit_are_found_and_wrong_high_bits_ignored(tmp_path):
    pixels = chest_xray()
    expected = picture(write(tmp_path / "a.dcm", pixels)).pixels
    np.testing.assert_array_equal(
        picture(write(tmp_path / "b.dcm", (pixels << 4).astype(np.uint16), HighBit=15)).pixels,
        expected,
    )
    np.testing.assert_array_equal(
        picture(write(tmp_path / "c.dcm", pixels, HighBit=15)).pixels, expected
    )


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000_data_overrule_a_header_that_is_wrong_about_the_sign(tmp_path, signed):
    pixels = chest_xray().astype(np.int16) - 2048 * signed
    dataset = pydicom.dcmread(
        write(tmp_path / "a.dcm", pixels if signed else pixels.astype(np.uint16))
    )
    dataset.compress(uid.JPEG2000Lossless)
    dataset.save_as(tmp_path / "right.dcm")
    dataset.PixelRepresentation = int(not signed)
    dataset.save_as(tmp_path / "wrong.dcm")
    np.testing.assert_array_equal(
        picture(tmp_path / "wrong.dcm").pixels, picture(tmp_path / "right.dcm").pixels
    )


def odd(path, **texts):
    """An X-ray whose header holds texts where pydicom wants numbers."""
    write(path, chest_xray(96, 5), **dict.fromkeys(texts, "1111.0"))
    content = path.read_bytes()
    for text in texts.values():
        content = content.replace(b"1111.0", text.encode().ljust(6), 1)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("center", "width", "used"),
    [
        ("2047,5", "4000,0", "2047.5/4000"),
        ("\\2047", "\\4000", "2047/4000"),
        ("NORMAL", "4000", "full range"),
        ("2047", "wide", "full range"),
        ("2047", "0", "full range"),
        ("2047", "1", "full range"),
        ("2047", "-5", "full range"),
        ("-9000", "200", "full range"),
        ("9000", "200", "full range"),
        ("2047", "1e9", "full range"),
    ],
)
def test_a_window_that_cannot_be_read_or_used_is_the_full_range(tmp_path, center, width, used):
    shown = picture(odd(tmp_path / "a.dcm", WindowCenter=center, WindowWidth=width))
    assert shown.window == used and len(np.unique(shown.pixels)) > 100


@pytest.mark.parametrize(("name", "text"), [("RescaleSlope", "steep"), ("RescaleIntercept", "n/a")])
def test_a_factor_that_cannot_be_read_is_refused_by_name(tmp_path, name, text):
    with pytest.raises(ImageError, match=f"{name} in the DICOM header is not a number"):
        picture(odd(tmp_path / "a.dcm", **{name: text}))
    assert picture(odd(tmp_path / "b.dcm", **{name: "1,0"})).pixels.any()


@pytest.mark.parametrize("missing", ["SamplesPerPixel", "BitsStored", "HighBit", "BitsAllocated"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_tags_that_are_missing_are_what_the_rest_implies(tmp_path, missing, how):
    expected = picture(write(tmp_path / "a.dcm", chest_xray(96, 5))).pixels
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    if how == "absent":
        del dataset[missing]
    else:
        dataset[missing].value = None
    dataset.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(picture(tmp_path / "b.dcm").pixels, expected)


@pytest.mark.parametrize(
    "written",
    ["", " MONOCHROME1 ", "monochrome2", None, "MONOCHROME 2", "MONOCHROME_1", "GRAYSCALE"],
)
def test_photometric_interpretation_oddly_written(tmp_path, written):
    path = write(tmp_path / "a.dcm", chest_xray(96, 5), photometric=written or "MONOCHROME2")
    expected = picture(write(tmp_path / "b.dcm", chest_xray(96, 5))).pixels
    if not written:
        dataset = pydicom.dcmread(path)
        dataset["PhotometricInterpretation"].value = written
        dataset.save_as(path)
    shown = picture(path).pixels
    inverse = written and "1" in written
    np.testing.assert_array_equal(shown, 4095 - expected if inverse else expected)


@pytest.mark.parametrize("signed", [False, True])
def test_a_sign_that_the_header_does_not_say(tmp_path, signed):
    values = chest_slice(seed=3).astype(int)
    values = values.astype(np.int16) if signed else (values + 40000).astype(np.uint16)
    write(
        tmp_path / "a.dcm", values, bits=16, modality="CT", RescaleIntercept=0 if signed else -40000
    )
    expected = picture(tmp_path / "a.dcm").hounsfield
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.PixelRepresentation
    dataset.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(picture(tmp_path / "b.dcm").hounsfield, expected)


@pytest.mark.parametrize("said", [8, 9, 10, 11])
def test_more_bits_than_the_header_says_never_wrap(tmp_path, said):
    expected = picture(write(tmp_path / "a.dcm", chest_xray(96, 5))).pixels
    shown = picture(write(tmp_path / "b.dcm", chest_xray(96, 5), bits=said))
    np.testing.assert_array_equal(shown.pixels, expected)


@pytest.mark.parametrize("stated", [None, 0])
def test_frames_that_the_header_does_not_count_are_read(tmp_path, stated):
    stack = np.stack([chest_xray(seed=seed) for seed in range(3)])
    dataset = pydicom.dcmread(write(tmp_path / "a.dcm", stack))
    dataset.NumberOfFrames = stated
    dataset.save_as(tmp_path / "b.dcm")
    counted, uncounted = (dicom_files.read(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert len(uncounted) == 3
    for one, other in zip(counted, uncounted):
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize(
    ("descriptor", "content"),
    [
        ([4096, 0, 8], np.arange(4096) * 16),
        ([4096, 0, 12], np.arange(100)),
        ([256, 0, 12], np.arange(256)),
        ([4096, 0, 12], np.full(4096, 7)),
    ],
)
def test_a_voi_lut_that_cannot_be_used_is_the_full_range(tmp_path, descriptor, content):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = descriptor, content.astype("<u2").tobytes()
    shown = picture(write(tmp_path / "a.dcm", chest_xray(), VOILUTSequence=[table]))
    assert shown.window == "full range" and len(np.unique(shown.pixels)) > 100


def test_presentation_lut_shape_inverse_turns_grey_round(tmp_path):
    expected = picture(write(tmp_path / "a.dcm", chest_xray(96, 5))).pixels
    shown = picture(write(tmp_path / "b.dcm", chest_xray(96, 5), PresentationLUTShape="INVERSE"))
    np.testing.assert_array_equal(shown.pixels, 4095 - expected)


def lopsided():
    """A CT slice of which no turn or mirror image is the same."""
    values = chest_slice(seed=1)
    values[20:40, 30:50] = 900
    return values


TURNS = [
    ("ROW", [1, 0, 0, 0, 1, 0], lambda a: a),
    ("mirrored", [-1, 0, 0, 0, 1, 0], lambda a: a[:, ::-1]),
    ("prone", [-1, 0, 0, 0, -1, 0], lambda a: a[::-1, ::-1]),
    ("rows to the front", [1, 0, 0, 0, -1, 0], lambda a: a[::-1]),
    ("transposed", [0, 1, 0, 1, 0, 0], lambda a: a.T),
    ("turned", [0, 1, 0, -1, 0, 0], lambda a: a.T[:, ::-1].T[::-1].T),
    ("tilted", [0.99, 0.1, 0, -0.1, 0.97, 0.2], lambda a: a),
]


@pytest.mark.parametrize(("name", "plane", "turn"), TURNS, ids=[name for name, *_ in TURNS])
def test_axial_ct_shows_the_right_on_the_left_and_the_front_at_the_top(tmp_path, name, plane, turn):
    upright = lopsided()
    expected = picture(write(tmp_path / "a.dcm", upright, bits=16, modality="CT")).pixels
    if name == "turned":  # columns point to the back, rows to the patient's right
        stored = upright[:, ::-1].T
    else:
        stored = turn(upright)
    path = write(
        tmp_path / "b.dcm",
        np.ascontiguousarray(stored),
        16,
        modality="CT",
        ImageOrientationPatient=plane,
    )
    shown = picture(path)
    np.testing.assert_array_equal(shown.pixels, expected)
    assert shown.doubt == "" and picture(tmp_path / "a.dcm").doubt == "DICOM without orientation"


@pytest.mark.parametrize(
    ("says", "turn"),
    [
        (["L", "F"], lambda a: a),
        (["R", "F"], lambda a: a[:, ::-1]),
        (["L", "H"], lambda a: a[::-1]),
        (["F", "L"], lambda a: a.T),
        (["A", "F"], lambda a: a),
        (["LH", "FL"], lambda a: a),
    ],
)
def test_patient_orientation_of_an_xray_is_heeded(tmp_path, says, turn):
    expected = chest_xray(96, 5)
    stored = np.ascontiguousarray(turn(expected))
    path = write(tmp_path / "a.dcm", stored, PatientOrientation=says)
    shown = picture(path).pixels
    plain = picture(write(tmp_path / "b.dcm", expected)).pixels
    np.testing.assert_array_equal(shown, plain)


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (96, 48)),
        ({"PixelSpacing": [0.1, 0.2]}, (48, 96)),
        ({"ImagerPixelSpacing": [0.2, 0.15]}, (96, 72)),
        ({"NominalScannedPixelSpacing": [0.2, 0.15]}, (96, 72)),
        ({"PixelSpacing": [0.2, 0.2]}, (96, 96)),
        ({"PixelSpacing": [0, 0.2]}, (96, 96)),
    ],
)
def test_pixels_that_are_not_square_are_made_so(tmp_path, tags, shape):
    assert picture(write(tmp_path / "a.dcm", chest_xray(96), **tags)).pixels.shape == shape
