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

from helpers import table_columns, tables


def test_outputs_readme_is_printed_from_the_columns():
    assert (ROOT / "outputs" / "README.md").read_text() == tables.document(), (
        "run: python -m helpers.tables > outputs/README.md"
    )


@pytest.mark.parametrize("name", table_columns.TABLES)
def test_every_table_has_an_empty_form_that_survives_the_disk(name, tmp_path):
    tables.write(tables.empty(name), tmp_path / f"{name}.csv")
    pd.testing.assert_frame_equal(tables.read(tmp_path / f"{name}.csv"), tables.empty(name))


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
        "from helpers import tables; from pathlib import Path\nwhile True:"
        f" tables.write_atomically(Path({str(path)!r}), b'new' * 3_000_000)"
    )
    for wait in (0.6, 0.75, 0.9):
        process = subprocess.Popen([sys.executable, "-c", loop])
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert path.read_bytes() in (b"old" * 1000, b"new" * 3_000_000)
