"""Shows the reading page in 07's notebook: to readers under the server, else for practice."""

import json
import os

from IPython import get_ipython
from IPython.display import display

from helpers.reading import widget

PAGE = "READING_PAGE"


def show(study: str) -> None:
    """Display the page: under the reading server for readers, in a notebook for practice.

    Practice answers stay in this kernel and are deleted with it.
    """
    if os.environ.get(PAGE):
        # An exception in a widget's callback would go to the browser with its traceback.
        get_ipython().showtraceback = lambda *_, **__: None
        display(widget.ReadingPage(json.loads(os.environ[PAGE])))
        return
    from helpers.reading import practice, setting  # a reader's kernel needs neither

    print(
        f"`make reader STUDY={study}` serves this page to readers;"
        f" `make reader STUDY={study} DO=status` says who has read how much."
    )
    try:
        display(practice.PracticePage(setting.load(study)))
    except setting.SettingError as error:
        print(f"There is nothing to practise on yet. {error}")
