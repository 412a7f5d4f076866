"""Notebook 07 in JupyterLab: the very page, on a practice record that is thrown away."""

import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest
import reading_studies
from reading_browser import Reader
from reading_client import free_port

from helpers.runner.folders import NOTEBOOKS

TOKEN = "practice"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The address of notebook 07 in a JupyterLab of its own, for a study that is ready to read."""
    reading_studies.use(tmp_path, monkeypatch.setenv)
    reading_studies.make(tmp_path, read=3, training=1, size=256, break_after=0)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    text = (NOTEBOOKS / "07_read_cases.ipynb").read_text()
    chosen = text.replace(
        'study: str = \\"rehearsal\\"', f'study: str = \\"{reading_studies.STUDY}\\"'
    )
    assert chosen != text
    (folder / "07_read_cases.ipynb").write_text(chosen)
    port = free_port()
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    options = {
        "ServerApp.port": port,
        "ServerApp.ip": "127.0.0.1",
        "IdentityProvider.token": TOKEN,
        "ServerApp.root_dir": folder,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    home = {
        "JUPYTER_CONFIG_DIR": tmp_path / "config",
        "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": tmp_path / "workspaces",
        "IPYTHONDIR": tmp_path / "ipython",
    }
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "jupyter_lab_config.py").write_text("c.LabApp.news_url = None\n")
    with (tmp_path / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env=os.environ | {name: str(place) for name, place in home.items()},
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}/lab/tree/07_read_cases.ipynb?token={TOKEN}"
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=5)
            break
        except OSError:
            assert process.poll() is None, (tmp_path / "lab.log").read_text()
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=60)


def run_all(reader: Reader) -> None:
    """Run every cell of the notebook that is open in JupyterLab, by its menu."""
    page = reader.page
    page.wait_for_selector("#jp-main-statusbar >> text=| Idle", timeout=120_000)
    page.click("li.lm-MenuBar-item:has-text('Run')")
    page.click(".lm-Menu-item[data-command='runmenu:run-all']")
    page.mouse.move(700, 500)
    page.mouse.wheel(0, 5000)


def practice(reader: Reader):
    """The page inside the cell, as a frame that keys go to."""
    page = reader.page
    page.wait_for_selector("iframe[title=Practice]", timeout=60_000)
    frame = page.query_selector("iframe[title=Practice]").content_frame()
    frame.keyboard = page.keyboard
    return frame


def test_the_page_is_tried_by_keyboard_inside_jupyterlab_and_nothing_of_it_is_kept(
    lab, browser, tmp_path
):
    before = sorted(path for path in (tmp_path / "outputs").rglob("*"))
    reader = Reader(browser, lab)
    reader.page.goto(lab)
    run_all(reader)
    outer, frame = reader.page, practice(reader)
    frame.wait_for_selector("#agree", timeout=60_000)
    code = outer.locator("iframe[title=Practice]").locator("xpath=..").locator("code").inner_text()
    reader.page = frame
    reader.register()
    answered = [""]
    while not reader.finished():
        if not reader.dialog() and reader.shown() != answered[-1]:
            answered.append(reader.answer("f"))
        frame.wait_for_function(
            "last => document.querySelector('form.lock, dialog[open]') ||"
            " (document.querySelector('canvas.picture')?.dataset.shown ?? last) !== last",
            arg=answered[-1],
        )
    assert len(answered[1:]) == 4, "one training image and three to read"
    cells = outer.locator(".jp-Notebook .jp-Cell").count()
    head = reader.lock(code)
    assert re.fullmatch("[0-9a-f ]{64,80}", head.strip())
    assert cells == outer.locator(".jp-Notebook .jp-Cell").count(), "no key reached the notebook"
    outer.click("button:has-text('Start again')")
    outer.frame_locator("iframe[title=Practice]").locator("#agree").wait_for(timeout=60_000)
    assert sorted(path for path in (tmp_path / "outputs").rglob("*")) == before
    assert not reader.elsewhere and not reader.problems


def test_without_a_reading_set_notebook_07_says_what_to_do(study_folders, capsys):
    from helpers.reading import page

    folder = study_folders / "params" / "mine"
    folder.mkdir()
    (folder / "07_read_cases.yaml").write_text("")
    page.show("mine")
    said = capsys.readouterr().out
    assert "There is nothing to practise on yet." in said and "run 06 first" in said
