"""The reading page as a widget: a few texts, one plain ES module, one stylesheet.

It knows no reader, no answer and no truth.
"""

import json
import os
from pathlib import Path

import anywidget
import traitlets
from IPython import get_ipython
from IPython.display import display

STATIC = Path(__file__).resolve().parent / "static"
PAGE = "READING_PAGE"


class ReadingPage(anywidget.AnyWidget):
    """The page.

    Nothing that a browser sets here is read: answers go to the server with the reader's own
    session.
    """

    _esm = STATIC / "widget.js"
    told = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, told: dict):
        super().__init__()
        self.set_trait("told", told)

    def set_state(self, sync_data: dict) -> None:
        """What a browser sets is dropped."""


def show(study: str) -> None:
    """Under the reading server display the page; anywhere else say how it is started."""
    if os.environ.get(PAGE):
        # An exception in a widget's callback would go to the browser with its traceback.
        get_ipython().showtraceback = lambda *_, **__: None
        display(ReadingPage(json.loads(os.environ[PAGE])))
    else:
        print(
            f"This page is served to readers by `make reader STUDY={study}`.\n"
            f"`python -m helpers.reading.server {study} status` says who has read how much."
        )
