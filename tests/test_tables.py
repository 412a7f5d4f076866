"""Tables: what is written is read back, what does not fit is refused by name, a kill leaves old or
new.
"""

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from helpers import plurals, table_columns, tables
from helpers.files import write_atomically


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (1, ["image"], "1 image"),
        (0, ["image"], "0 images"),
        (1200, ["image is", "images are"], "1,200 images are"),
        (1, ["image is", "images are"], "1 image is"),
    ],
)
def test_one_is_not_plural(number, words, said):
    assert plurals.counted(number, *words) == said


def test_outputs_readme_is_printed_from_the_columns():
    assert (ROOT / "outputs" / "README.md").read_text() == tables.document(), (
        "run: python -m helpers.tables > outputs/README.md"
    )


@pytest.mark.parametrize("name", table_columns.TABLES)
def test_every_table_has_an_empty_form_that_survives_the_disk(name, tmp_path):
    tables.write(tables.empty(name), tmp_path / "table.csv", name)
    pd.testing.assert_frame_equal(tables.read(tmp_path / "table.csv", name), tables.empty(name))


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda s: s.strip() == s
)


@given(
    descriptions=st.lists(st.none() | words, min_size=1, max_size=8),
    seconds=st.floats(0, 1e6, allow_nan=False),
    label=st.sampled_from(table_columns.LABELS),
)
def test_readings_survive_the_disk(tmp_path_factory, descriptions, seconds, label):
    path = tmp_path_factory.mktemp("t") / "readings.csv"
    rows = [
        {
            "reader_id": "r1",
            "blind_id": f"b{i}",
            "position": i + 1,
            "label": label,
            "description": d,
            "seconds": seconds,
            "changes": 0,
        }
        for i, d in enumerate(descriptions)
    ]
    written = tables.write(pd.DataFrame(rows), path)
    pd.testing.assert_frame_equal(tables.read(path), written)
    assert [None if pd.isna(d) else d for d in written["description"]] == descriptions


def readings(**changes):
    row = {"reader_id": "r1", "blind_id": "b1", "position": 1, "label": "real", "changes": 0}
    return pd.DataFrame([{**row, **changes}])


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (
            readings(label="maybe"),
            "column 'label' row 1 is 'maybe'; allowed: real, fake, uncertain",
        ),
        (readings(colour="red"), "unknown column 'colour'"),
        (readings().drop(columns="label"), "column 'label' (the answer) is missing"),
        (readings(reader_id=None), "column 'reader_id' is empty in row 1"),
        (readings(position="third"), "column 'position' must be integer"),
    ],
)
def test_what_does_not_fit_is_named(frame, said, tmp_path):
    with pytest.raises(tables.TableError) as error:
        tables.write(frame, tmp_path / "readings.csv")
    assert said in str(error.value)
    assert not list(tmp_path.iterdir()), "a refused table leaves nothing behind"


def test_a_file_that_is_no_table_is_one_sentence(tmp_path):
    (tmp_path / "readings.csv").write_bytes(b"\xff\xfe\x00junk")
    with pytest.raises(tables.TableError, match=r"readings\.csv: not a CSV table"):
        tables.read(tmp_path / "readings.csv")
    with pytest.raises(FileNotFoundError, match="run the stage that writes it first"):
        tables.read(tmp_path / "events.csv")


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old" * 1000)
    loop = (
        "from helpers.files import write_atomically; from pathlib import Path\nwhile True:"
        f" write_atomically(Path({str(path)!r}), b'new' * 3_000_000)"
    )
    for wait in (0.6, 0.75, 0.9):
        process = subprocess.Popen([sys.executable, "-c", loop])
        with pytest.raises(subprocess.TimeoutExpired):  # it writes until it is killed
            process.wait(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert path.read_bytes() in (b"old" * 1000, b"new" * 3_000_000)


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o000, 0o644)])
def test_a_file_is_no_more_open_than_the_umask_allows(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "answers.csv", b"private")
    finally:
        os.umask(before)
    assert (tmp_path / "answers.csv").stat().st_mode & 0o777 == mode


PROMPTS = [
    ["prompt_id", "modality", "view", "finding", "side", "wording", "prompt", "count"],
    ["p1", "xray", "PA", "effusion|mass", "left", "sentence", "", "10"],
    ["p2", "ct", "axial", "no_finding", "", "", "Zeigt größere Lunge, ohne Befund", "3"],
]
SAVED = {
    "plain": lambda text: text.encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "sixteen bits": lambda text: text.encode("utf-16"),
    "sixteen bits without a mark": lambda text: text.encode("utf-16-le"),
    "Windows": lambda text: text.encode("cp1252"),
    "sep line": lambda text: f"sep=;\r\n{text}".encode(),
    "blank rows": lambda text: ("\n\n" + text.replace("\n", "\n\n") + ",,,,,,,\n").encode(),
    "old line ends": lambda text: text.replace("\n", "\r").encode(),
    "upper case": lambda text: text.replace("xray", "X-Ray").replace("PA", "pa").encode(),
    "counts": lambda text: text.replace(",10\n", ",10.0\n").replace(",3\n", ', "3,0"\n').encode(),
    "spaces": lambda text: text.replace("effusion|mass", " Effusion | MASS ").encode(),
    "header": lambda text: text.replace("prompt_id", "Prompt ID").encode(),
    "own columns": lambda text: "\n".join(
        f"{line},{'Notes' if not n else 'mine'}" for n, line in enumerate(text.splitlines())
    ).encode(),
}


def as_csv(rows, separator=","):
    return "".join(
        separator.join(f'"{cell}"' if separator in cell else cell for cell in row) + "\n"
        for row in rows
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("how", SAVED)
def test_a_table_is_read_however_a_spreadsheet_saved_it(tmp_path, how, separator):
    if separator != "," and how in ("sep line", "blank rows", "counts", "own columns"):
        separator = ","
    path = tmp_path / "prompts.csv"
    rows = as_csv(PROMPTS, ";") if how == "sep line" else as_csv(PROMPTS, separator)
    path.write_bytes(SAVED[how](rows))
    table = tables.filled_in(path, "prompts")
    assert table["prompt_id"].tolist() == ["p1", "p2"] and table["count"].tolist() == [10, 3]
    assert table["modality"].tolist() == ["xray", "ct"] and table["view"].tolist() == [
        "PA",
        "axial",
    ]
    assert table["finding"].tolist() == ["effusion|mass", "no_finding"]
    assert table["prompt"].tolist()[1] == PROMPTS[2][6]


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("xray", "xrai", r"row 2, column 'modality': 'xrai' is not one of .* mean 'xray'"),
        ("effusion", "efusion", r"row 2, column 'finding': .* did you mean 'effusion'\?"),
        (",10\n", ",ten\n", r"row 2, column 'count': 'ten' is not a whole number"),
        (",10\n", ",1.000\n", r"row 2, column 'count': '1.000' is not a whole number"),
        (",3\n", ",\n", r"row 3, column 'count' is empty"),
        ("modality,", "modalty,", r"column 'modalty' is not known; did you mean 'modality'\?"),
        (",count", ",n", r"column 'count' .* is missing"),
        (",3\n", ',"3\n', r"cannot be read as a table"),
        (",10\n", ",99999999999999999999\n", r"row 2, .*'9+' is not a whole number"),
        ("effusion", "Pleural effusion", r"row 2, column 'finding': .* did you mean 'effusion'\?"),
        ("xray", "X-ray image", r"row 2, column 'modality': .* did you mean 'xray'\?"),
        (",side,", ",Finding,", r"column 'finding' is there twice"),
        ("p1,", "1.23E+11,", r"row 2, column 'prompt_id': '1.23E\+11' was rounded: format"),
        ("p2,", "p2,a,b,c,d,e,f,g,h,", r"row 3 is too long"),
    ],
)
def test_what_is_not_understood_is_one_sentence_with_row_and_column(tmp_path, before, after, says):
    path = tmp_path / "prompts.csv"
    path.write_text(as_csv(PROMPTS).replace(before, after, 1))
    with pytest.raises(tables.TableError, match=rf"prompts\.csv.*{says}"):
        tables.filled_in(path, "prompts")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"PK\x03\x04" + bytes(range(256)) * 4])
def test_what_is_no_table_is_one_sentence(tmp_path, content):
    (tmp_path / "draw.csv").write_bytes(content)
    with pytest.raises(tables.TableError, match=r"draw\.csv"):
        tables.filled_in(tmp_path / "draw.csv", "draw")


def test_a_workbook_named_csv_is_called_a_workbook(tmp_path):
    for content in (b"PK\x03\x04\x14\0\6\0", b"\xd0\xcf\x11\xe0\xa1\xb1", b"<html><table>"):
        (tmp_path / "draw.csv").write_bytes(content)
        with pytest.raises(tables.TableError, match=r"draw\.csv .*workbook or a web page.*CSV"):
            tables.filled_in(tmp_path / "draw.csv", "draw")
