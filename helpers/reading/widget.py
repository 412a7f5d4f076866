"""The reading page as a widget. Its traits are the page's texts, settings and questions; its code
is a few plain ES modules. Readers' answers do not go through it but straight to the server.
"""

from pathlib import Path

import anywidget
import traitlets


class ReadingPage(anywidget.AnyWidget):
    """The page of one study. It knows no reader, no answer and no truth.

    `settings` are the study's texts and questions, `words` all words of the page. Values set by a
    browser are ignored: answers go to the server with the reader's own session.
    """

    _esm = Path(__file__).resolve().parent / "static" / "widget.js"
    settings = traitlets.Dict(read_only=True).tag(sync=True)
    words = traitlets.Dict(read_only=True).tag(sync=True)
    # The page's own files, where no server is.
    files = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(self, page: dict):
        super().__init__()
        self.set_trait("words", page["words"])
        self.set_trait("settings", {k: v for k, v in page.items() if k != "words"})

    def set_state(self, sync_data: dict) -> None:
        """Ignore values that a browser sets."""
