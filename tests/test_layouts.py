"""Each data set's layout is recognised by itself; mixtures too; tables that cannot be used say what
to do.
"""

import gzip
import re
import unicodedata

import conftest
import pytest

from helpers.prepare_cases import data_sets, file_names, layouts
from helpers.prepare_cases.metadata_tables import LayoutError


def tree(folder, **contents):
    """Files of a folder: text for tables, nothing for images.

    Names use | for / because they are keywords.
    """
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def described(folder, contents, **options):
    files = tree(folder, **contents)
    frame = layouts.describe(folder, files, conftest.values("01_prepare_cases", **options))
    assert frame["file"].tolist() == files, "one row per file"
    return frame.set_index("file")


def test_nih(tmp_path):
    table = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View"
        " Position\n00000001_000.png,Cardiomegaly|Effusion,0,1,58,M,PA\n00000009_002.png,No"
        " Finding,2,9,60,F,AP\n"
    )
    frame = described(
        tmp_path,
        {
            "Data_Entry_2017.csv": table,
            "images_001/images/00000001_000.png": "",
            "images_002/images/00000009_002.png": "",
        },
    )
    row = frame.loc["images_001/images/00000001_000.png"]
    assert row["layout"] == "NIH ChestX-ray14" and row["finding"] == "effusion|cardiomegaly"
    assert (row["patient_id"], row["sex"], row["age"], row["view"], row["modality"]) == (
        "nih 1",
        "M",
        "58",
        "PA",
        "xray",
    )
    assert frame.loc["Data_Entry_2017.csv", "skip"].startswith("metadata table")


def test_chexpert(tmp_path):
    labels = ",".join(data_sets.CHEXPERT_LABELS)
    table = (
        f"Path,Sex,Age,Frontal/Lateral,AP/PA,{labels}\n"
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,"
        "Female,68,Frontal,AP,,,1.0,-1.0,,,,,,,1.0,,,\n"
        "CheXpert-v1.0-small/train/patient00002/study1/view1_lateral.jpg,"
        "Male,87,Lateral,,1.0,,,,,,,,,,,,,\n"
    )
    one, two = (
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_lateral.jpg",
    )
    frame = described(
        tmp_path,
        {"train.csv": table, one: "", two: "", "train/patient00003/study1/view1_frontal.jpg": ""},
    )
    assert frame.loc[one, "finding"] == "effusion|cardiomegaly", (
        "uncertain labels (-1) are not asserted"
    )
    assert frame.loc[two, ["finding", "view", "patient_id", "layout"]].tolist() == [
        "no_finding",
        "lateral",
        "chexpert patient00002",
        "CheXpert",
    ]
    assert frame.loc["train/patient00003/study1/view1_frontal.jpg", "layout"] == ""


def test_mimic(tmp_path):
    metadata = (
        "dicom_id,subject_id,study_id,ViewPosition\n"
        "aaa-bbb,10000032,50414267,PA\nccc-ddd,10000032,53189527,LATERAL\n"
    )
    labels = (
        "subject_id,study_id,"
        + ",".join(data_sets.CHEXPERT_LABELS)
        + "\n10000032,50414267,1.0"
        + "," * 13
        + "\n10000032,53189527,,,,,,,,1.0"
        + "," * 6
        + "\n"
    )
    one = "files/p10/p10000032/s50414267/aaa-bbb.jpg"
    frame = described(
        tmp_path,
        {
            "mimic-cxr-2.0.0-metadata.csv.gz": gzip.compress(metadata.encode()),
            "mimic-cxr-2.0.0-chexpert.csv": labels,
            one: "",
            "files/p10/p10000032/s53189527/ccc-ddd.jpg": "",
            "files/p10/p10000032/s50414267.txt": "FINDINGS: clear lungs",
        },
    )
    assert frame.loc[one, ["layout", "finding", "view", "report"]].tolist() == [
        "MIMIC-CXR-JPG",
        "no_finding",
        "PA",
        "files/p10/p10000032/s50414267.txt",
    ]
    assert frame.loc["files/p10/p10000032/s53189527/ccc-ddd.jpg", ["finding", "view"]].tolist() == [
        "pneumonia",
        "LATERAL",
    ]


def test_rsna(tmp_path):
    one, two = "stage_2_train_images/0004cfab.dcm", "stage_2_train_images/00313ee0.dcm"
    frame = described(
        tmp_path,
        {
            "stage_2_train_labels.csv": (
                "patientId,x,y,width,height,Target\n0004cfab,1,2,3,4,1\n0004cfab,5,6,7,8,1\n00313ee0,,,,,0\n"
            ),
            "stage_2_detailed_class_info.csv": (
                "patientId,class\n0004cfab,Lung Opacity\n00313ee0,No Lung Opacity / Not Normal\n"
            ),
            one: "",
            two: "",
        },
    )
    assert frame.loc[one, ["layout", "finding"]].tolist() == ["RSNA Pneumonia", "opacity"]
    assert frame.loc[two, "finding"] == "other"


def test_kaggle_covid_radiography(tmp_path):
    names = [
        f"COVID-19_Radiography_Dataset/{name}/images/{name}-1.png"
        for name in ("COVID", "Normal", "Lung_Opacity", "Viral Pneumonia")
    ]
    mask = "COVID-19_Radiography_Dataset/COVID/masks/COVID-1.png"
    frame = described(
        tmp_path,
        {
            **dict.fromkeys([*names, mask], ""),
            "COVID-19_Radiography_Dataset/README.md.txt": "words",
        },
    )
    assert frame.loc[names, "finding"].tolist() == ["covid19", "no_finding", "opacity", "pneumonia"]
    assert set(frame.loc[names, "layout"]) == {"Kaggle COVID-19 Radiography"} and set(
        frame.loc[names, "modality"]
    ) == {"xray"}
    assert "mask" in frame.loc[mask, "skip"]


def test_hannover(tmp_path):
    table = (
        "image_id,patient_id,sex,age,admission_offset,modality,projection\n"
        "006f3a8a,9dcc6f58,m,,3,,ap\n"
    )
    frame = described(tmp_path, {"data.csv": table, "png/006f3a8a.png": ""})
    assert frame.loc[
        "png/006f3a8a.png", ["layout", "finding", "sex", "view", "modality"]
    ].tolist() == [
        "Hannover COVID-19",
        "covid19",
        "m",
        "ap",
        "xray",
    ]


def test_tcia(tmp_path):
    table = (
        "Series UID,Collection,Subject ID,Modality,File"
        " Location\n1.2.3,TCGA-LUAD,TCGA-17-Z000,CT,./TCGA-LUAD/TCGA-17-Z000/1-2-3\n"
    )
    name = "TCGA-LUAD/TCGA-17-Z000/1-2-3/1-001.dcm"
    frame = described(tmp_path, {"metadata.csv": table, name: ""})
    assert frame.loc[name, ["layout", "patient_id", "modality"]].tolist() == [
        "TCIA",
        "tcia TCGA-17-Z000",
        "ct",
    ]


def test_a_table_of_ones_own_with_a_mapping_or_known_names(tmp_path):
    contents = {"mine.csv": "Bild;Diagnose;Pat\na.png;Effusion;p1\n", "sub/a.png": ""}
    frame = described(
        tmp_path,
        contents,
        metadata_table="mine.csv",
        columns=["Bild:file", "Diagnose:finding", "Pat:patient_id"],
    )
    assert frame.loc["sub/a.png", ["layout", "finding", "patient_id"]].tolist() == [
        "plain CSV",
        "effusion",
        "p1",
    ]
    other = tmp_path / "other"
    frame = described(
        other,
        {
            "metadata.csv": (
                "Filename,Label,Origin,Credit,Side\nx/a.png,nodule,generated,A"
                " GAN,L\nx/b.png,normal,real,,\n"
            ),
            "x/a.png": "",
            "x/b.png": "",
        },
    )
    assert frame.loc["x/a.png", ["origin", "generator", "side", "finding"]].tolist() == [
        "generated",
        "A GAN",
        "left",
        "nodule",
    ]
    assert frame.loc["x/b.png", "origin"] == "real"


def test_folders_named_by_class_and_mixtures(tmp_path):
    nih = "Image Index,Finding Labels,Patient ID\n1.png,Mass,1\n"
    frame = described(
        tmp_path,
        {
            "nih/d.csv": nih,
            "nih/1.png": "",
            "xray/PNEUMONIA/p1.jpeg": "",
            "ct/normal/n1.jpeg": "",
            "rest/u.png": "",
        },
    )
    assert frame.loc["nih/1.png", "layout"] == "NIH ChestX-ray14"
    assert frame.loc["xray/PNEUMONIA/p1.jpeg", ["layout", "finding", "modality"]].tolist() == [
        "folders by class",
        "pneumonia",
        "xray",
    ]
    assert frame.loc["ct/normal/n1.jpeg", ["finding", "modality"]].tolist() == ["no_finding", "ct"]
    assert frame.loc["rest/u.png", "layout"] == ""


def test_one_name_in_two_folders_is_told_apart_or_left_alone(tmp_path):
    frame = described(
        tmp_path,
        {
            "metadata.csv": "file,finding\na/1.png,mass\n1.png,nodule\n",
            "a/1.png": "",
            "b/1.png": "",
        },
    )
    assert frame.loc["a/1.png", "finding"] == "mass"
    assert frame.loc["b/1.png", "finding"] == "", "1.png could be either"


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("patient,age\n1,5\n", {}, "names no file"),
        ("file,finding\nelsewhere.png,mass\n", {}, "names no file"),
        (
            "file,finding\na.png,mass\n",
            {"metadata_table": "other.csv"},
            "'other.csv' is not in the folder",
        ),
        ("Bild,finding\na.png,mass\n", {"columns": ["Picture:file"]}, "has the column 'Picture'"),
        ("file,Befund\na.png,mass\n", {"columns": ["Befunde:finding"]}, "the column 'Befunde'"),
        ("Bild,finding\na.png,mass\n", {"columns": ["Bild-file"]}, "must read yours:ours"),
        ('file,finding\na.png,"mass\n', {}, "cannot be read"),
        ("", {}, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_to_do(tmp_path, table, options, message):
    with pytest.raises(LayoutError, match=message):
        described(tmp_path, {"metadata.csv": table, "a.png": ""}, **options)


def test_a_part_of_chexpert_never_takes_the_labels_of_an_absent_patient(tmp_path):
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(data_sets.CHEXPERT_LABELS)}\n"
    row = "CheXpert-v1.0-small/train/{}/study1/view1_frontal.jpg,Female,68,Frontal,AP,{}\n"
    table = (
        header
        + row.format("patient00001", ",,,,,,,,,,1.0,,,")
        + row.format("patient00007", "1.0,,,,,,,,,,,,,")
    )
    one = "some/where/train/patient00007/study1/view1_frontal.jpg"
    frame = described(tmp_path, {"train.csv": table, one: ""})
    assert frame.loc[one, ["patient_id", "finding"]].tolist() == [
        "chexpert patient00007",
        "no_finding",
    ]


def test_tables_of_mimic_complete_each_other(tmp_path):
    labels = "subject_id,study_id," + ",".join(data_sets.CHEXPERT_LABELS)
    frame = described(
        tmp_path,
        {
            "cxr-record-list.csv.gz": gzip.compress(
                b"subject_id,study_id,dicom_id,path\n10000032,50414267,aaa-bbb,files/x.dcm\n"
            ),
            "mimic-cxr-2.0.0-metadata.csv.gz": gzip.compress(
                b"dicom_id,subject_id,study_id,ViewPosition\naaa-bbb,10000032,50414267,PA\n"
            ),
            "mimic-cxr-2.0.0-chexpert.csv.gz": gzip.compress(
                f"{labels}\n10000032,50414267,,,1.0,,,,,,,,,,,\n".encode()
            ),
            "mimic-cxr-2.0.0-negbio.csv.gz": gzip.compress(
                f"{labels}\n10000032,50414267,1.0,,,,,,,,,,,,,\n".encode()
            ),
            "files/p10/p10000032/s50414267/aaa-bbb.jpg": "",
        },
    )
    row = frame.loc["files/p10/p10000032/s50414267/aaa-bbb.jpg"]
    assert row[["view", "finding", "layout"]].tolist() == ["PA", "cardiomegaly", "MIMIC-CXR-JPG"]


def test_several_rows_of_one_file_are_one_picture_with_all_findings(tmp_path):
    table = (
        "file,finding,side,age\na.png,effusion,left,\na.png,nodule,right,61\nb.png,no finding,,\n"
    )
    frame = described(tmp_path, {"boxes.csv": table, "a.png": "", "b.png": ""})
    assert frame.loc["a.png", ["finding", "side", "age"]].tolist() == [
        "effusion|nodule",
        "bilateral",
        "61",
    ]


def test_kaggle_folders_are_x_rays_wherever_they_were_unpacked(tmp_path):
    names = [
        f"{name}/images/{name}-1.png"
        for name in ("COVID", "Normal", "Lung_Opacity", "Viral Pneumonia")
    ]
    frame = described(tmp_path, dict.fromkeys([*names, "Normal/masks/Normal-1.png"], ""))
    assert frame.loc[names, "modality"].tolist() == ["xray"] * 4
    assert "mask" in frame.loc["Normal/masks/Normal-1.png", "skip"]


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("COVID-CT/non-COVID/1.png", ""),
        ("COVID-CT/CT_NonCOVID/1.png", ""),
        ("COVID-CT/CT_COVID/1.png", "covid19"),
        ("COVID-19_Dataset/unsorted/1.png", ""),
        ("COVID/COVID_negative/1.png", ""),
        ("covid/covid-neg/1.png", ""),
        ("CXR/BacterialPneumonia/1.png", "pneumonia"),
        ("train/No Finding/1.png", "no_finding"),
        ("train/PNEUMONIA/person17_virus_42.jpeg", "pneumonia"),
        ("Massachusetts General Hospital/1.png", ""),
    ],
)
def test_what_folders_affirm_and_what_they_do_not(tmp_path, name, finding):
    assert described(tmp_path, {name: ""}).loc[name, "finding"] == finding


@pytest.mark.parametrize(
    ("name", "layout", "patient", "view"),
    [
        ("images_001/00000013_004.png", "NIH ChestX-ray14", "nih 00000013", ""),
        (
            "train/patient00002/study1/view2_lateral.jpg",
            "CheXpert",
            "chexpert patient00002",
            "lateral",
        ),
        (
            "files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg",
            "MIMIC-CXR-JPG",
            "mimic 10000032",
            "",
        ),
    ],
)
def test_known_data_sets_without_their_tables_are_known_by_their_names(
    tmp_path, name, layout, patient, view
):
    row = described(tmp_path, {name: ""}).loc[name]
    assert row[["layout", "patient_id", "view", "modality", "finding"]].tolist() == [
        layout,
        patient,
        view,
        "xray",
        "",
    ]


def test_a_patient_named_in_the_path_is_told(tmp_path):
    names = [
        "train/PNEUMONIA/person17_virus_42.jpeg",
        "test/PNEUMONIA/person17_bacteria_1.jpeg",
        "Patient_3/a.png",
        "sub-01/anat/1.png",
    ]
    assert described(tmp_path, dict.fromkeys(names, "")).loc[names, "patient_in_path"].tolist() == [
        "person 17",
        "person 17",
        "patient 3",
        "sub 1",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_tables_as_spreadsheets_save_them(tmp_path, encoding, ends):
    table = ends.join(["Dateiname;Größe;Befund", "Müller, Jürgen.png;3;Mass", ""]).encode(encoding)
    options = {"metadata_table": "liste.csv", "columns": ["Dateiname:file", "Befund:finding"]}
    frame = described(tmp_path, {"liste.csv": table, "Müller, Jürgen.png": ""}, **options)
    assert frame.loc["Müller, Jürgen.png", "finding"] == "mass"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("generated/00000403_001.png", "generated"),
        ("AI-Generated images/1.png", "generated"),
        ("cxr/fake01.png", "generated"),
        ("StyleGAN2/train/a.png", "generated"),
        ("DALL-E 2/1.png", "generated"),
        ("dalle2/1.png", "generated"),
        ("Stable_Diffusion/1.png", "generated"),
        ("SyntheticCXR/1.png", "generated"),
        ("non-synthetic/1.png", "real"),
        ("real_vs_fake/real/1.png", "real"),
        ("real_vs_fake/fake/1.png", "generated"),
        ("real_and_fake/1.png", ""),
        ("fake/real_1.png", "?"),
        ("samples/1.png", "?"),
        ("in/1_ct_no_samples_per_pixel.dcm", ""),
        ("in/samples-per-pixel-absent.dcm", ""),
        ("without_diffusion/1.png", ""),
        ("sd/1.png", "?"),
        ("Morgan_Hogan/organ.png", ""),
        ("degenerative/1.png", ""),
        ("Michigan/vegan_001.png", ""),
        ("ChatGPT Image 12. Apr 2025, 10_15_00.png", "generated"),
        ("gpt-image-1/1.png", "generated"),
        ("SynthCXR/1.png", "generated"),
        ("CTGAN/1.png", "generated"),
        ("künstlich/1.png", "generated"),
        ("générées/1.png", "generated"),
        ("FLUX.1-dev/1.png", "?"),
        ("simulations/1.png", "?"),
        ("imagen_001.png", ""),
    ],
)
def test_names_that_say_where_an_image_comes_from(name, expected):
    assert file_names.origin(name)[0] == expected


def test_a_folder_that_says_generated_is_never_real(tmp_path):
    files = [f"real/0000040{n}_000.png" for n in range(5)]
    files += [f"generated/0000040{n}_001.png" for n in range(5)]
    frame = described(tmp_path, dict.fromkeys(files, b""))
    made = frame[frame.index.str.startswith("generated")]
    assert set(made["origin"]) == {"generated"} and set(made["patient_id"]) == {""}
    assert set(made["credit"]) == {""} and set(made["modality"]) == {"xray"}
    assert frame.loc["real/00000401_000.png", "patient_id"] == "nih 00000401"
    assert any("'generated'" in note and "5 files" in note for note in frame.attrs["notes"])


@pytest.mark.parametrize(
    ("contents", "word"),
    [
        ({"samples/1.png": b"", "samples/2.png": b""}, "samples"),
        ({"fake/1.png": b"", "metadata.csv": "file,origin\nfake/1.png,real\n"}, "fake"),
        ({"real/1.png": b"", "metadata.csv": "file,origin\nreal/1.png,generated\n"}, "real"),
        (
            {
                "gan/00000001_000.png": b"",
                "t.csv": "Image Index,Finding Labels\n00000001_000.png,Mass\n",
            },
            "gan",
        ),
    ],
)
def test_what_names_leave_open_is_a_question_with_its_answer(tmp_path, contents, word):
    with pytest.raises(LayoutError, match=f"Real or generated.*'{word}:generated'"):
        described(tmp_path, contents)
    for answer in ("real", "generated"):
        frame = described(tmp_path, contents, origins=[f"{word}:{answer}"])
        pictures = frame[frame.index.str.endswith("png")]
        assert set(pictures["origin"]) == {answer}
    with pytest.raises(LayoutError, match="origins: .* must read"):
        described(tmp_path, contents, origins=[f"{word}-real"])


@pytest.mark.parametrize(
    "table",
    [
        "file,label\n1.png,FAKE\n2.png,Real\n",
        "file,finding,type\n1.png,Mass,synthetic\n2.png,Mass,real\n",
        "file,is_fake\n1.png,1\n2.png,0\n",
        "file,is_fake\n1.png,1.0\n2.png,0.0\n",
        "file;Real\n1.png;nein\n2.png;ja\n",
        "file,generator\n1.png,RoentGen\n2.png,\n",
        "file,label\n1.png,synthetic COVID\n2.png,Normal\n",
        "Image Index,Finding Labels,origin\n1.png,Mass,generated\n2.png,Mass,real\n",
    ],
)
def test_a_table_that_says_generated_in_another_way_is_understood(tmp_path, table):
    frame = described(tmp_path, {"1.png": b"", "2.png": b"", "t.csv": table})
    assert frame.loc["1.png", "origin"] == "generated" and frame.loc["1.png", "generator"]
    assert frame.loc["2.png", "origin"] in ("real", "")


def test_an_origin_that_is_neither_is_a_question(tmp_path):
    contents = {"1.png": b"", "t.csv": "file,origin\n1.png,Human\n"}
    with pytest.raises(LayoutError, match=r"Real or generated\?.*a table.*'human:real'"):
        described(tmp_path, contents)
    assert described(tmp_path, contents, origins=["human:real"]).loc["1.png", "origin"] == "real"
    contents["t.csv"] = "file,origin\n1.png,real\n1.png,generated\n"
    with pytest.raises(LayoutError, match="contradict each other"):
        described(tmp_path, contents)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file;Befund\n1.png;Mass\n2.png;Mass\n", "No column of findings.*file, Befund"),
        ("file;finding\n1.png;Erguss\n2.png;-\n", "labels of 2 of 2 files name no finding"),
        ("file,finding,finding\n1.png,Mass,Hernia\n2.png,,Mass\n", "the column 'finding' twice"),
        ("file,patient_id\n1.png,7\n1.png,007\n", "No column of findings"),
        ("Export\nfile,finding\n1.png,Mass\n", r"1 table .* cannot be read \(row 2 is too long"),
        ("file,finding,patient_id\n1.png,Mass,1\n1.png,Mass,2\n", "1 file more than one patient"),
    ],
)
def test_what_a_table_leaves_unsaid_is_told(tmp_path, table, says):
    frame = described(tmp_path, {"1.png": b"", "2.png": b"", "t.csv": table})
    (note,) = frame.attrs["notes"]
    assert re.search(says, note)


def test_a_table_whose_file_column_names_nothing_is_told_so(tmp_path):
    contents = {"001.png": b"", "metadata.csv": "file,finding\n1,Mass\n"}
    with pytest.raises(LayoutError, match="its column 'file' must hold the files' paths") as error:
        described(tmp_path, contents)
    assert "closest" not in str(error.value)


def test_a_denied_class_keeps_its_modality(tmp_path):
    contents = {"CT_COVID/0.png": b"", "CT_NonCOVID/1.png": b"", "cxr/no pneumonia/2.jpg": b""}
    frame = described(tmp_path, contents)
    assert frame["modality"].tolist() == ["ct", "ct", "xray"]
    assert frame["finding"].tolist() == ["covid19", "", ""] and not frame["skip"].any()


def test_leftovers_of_other_systems_are_left_out_by_name(tmp_path):
    left = ["._metadata.csv", ".DS_Store", "Thumbs.db", "__MACOSX/._a.csv", "x/._a_1.png"]
    contents = {"a_1.png": b"", "metadata.csv": "file,finding\na_1.png,mass\n"}
    frame = described(tmp_path, contents | dict.fromkeys(left, b"\0\5\x16\7"))
    assert set(frame.loc[left, "skip"]) == {"left over from macOS or Windows"}
    assert frame.loc["a_1.png", "finding"] == "mass"


@pytest.mark.parametrize(("disk", "table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_compare_in_one_unicode_form(tmp_path, disk, table):
    name = "Müller/Röntgen.png"
    stored, written = (unicodedata.normalize(form, name) for form in (disk, table))
    contents = {stored: b"", "metadata.csv": f"file,finding\n{written},mass\n"}
    frame = described(tmp_path, contents)
    assert frame.loc[stored, "finding"] == "mass" and (tmp_path / stored).exists()


@pytest.mark.parametrize("title", ["imagename", "Image_ID", "patientid", "Aufnahme", "scan no"])
def test_a_table_is_known_by_what_it_names(tmp_path, title):
    table = f"{title},diagnosis\n" + "".join(f"img{n},mass\n" for n in range(4))
    frame = described(tmp_path, {f"img{n}.png": b"" for n in range(4)} | {"list.csv": table})
    assert (frame["finding"] == "mass").sum() == 4


def test_a_renamed_finding_leaves_the_files_found_by_what_the_table_names(tmp_path):
    table = "Aufnahme;Befund\n" + "".join(f"{n}.png;Mass\n" for n in range(4))
    contents = {f"{n}.png": b"" for n in range(4)} | {"liste.csv": table}
    frame = described(tmp_path, contents, columns=["Befund:finding"])
    assert frame["finding"].tolist() == ["mass"] * 4 + [""]


@pytest.mark.parametrize("options", [{}, {"columns": ["Bild:file"]}, {"metadata_table": "l.csv"}])
def test_no_message_about_a_table_names_a_patient(tmp_path, options):
    table = "ZZNAME;Hans;12.03.1950\nCRP;5;mg/l\n"
    contents = {"a.png": b"", "labels.csv": "patients,Bilder\nx,mass\n"}
    contents |= {"ZZNAME^Hans/ZZNAME lab.csv": table} | ({} if options else {"ZZNAME.csv": table})
    try:
        said = described(tmp_path, contents, **options).attrs["notes"][0]
    except LayoutError as error:
        said = str(error)
    assert "ZZNAME" not in said and "Hans" not in said
    assert "'labels.csv'" in said or "Bilder" in said or "first line must name" in said


def test_a_table_that_names_nothing_is_said_with_the_nearest_columns(tmp_path):
    frame = described(tmp_path, {"a.png": b"", "labels.csv": "patients,findngs\nx,mass\n"})
    assert "'findngs' (finding)" in frame.attrs["notes"][0]
