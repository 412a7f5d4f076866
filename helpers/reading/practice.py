"""The reading page for practice inside a notebook, with a practice reader and a temporary record.
Messages come through the widget and are handled as on the server.
"""

import dataclasses
import tempfile
from pathlib import Path

from helpers.reading import accounts, reader_state, store
from helpers.reading.setting import STATIC, Setting, decoded
from helpers.reading.widget import ReadingPage

READER = "practice"


class PracticePage(ReadingPage):
    """The widget with a practice record behind it, in a temporary folder of this kernel."""

    def __init__(self, opened: Setting):
        super().__init__(opened.page)
        files = [*STATIC.glob("*.js"), STATIC / "style.css"]
        self.set_trait("files", {path.name: path.read_text(encoding="utf-8") for path in files})
        self.opened = opened
        self.on_msg(self._receive)

    def begin(self) -> dict:
        """Delete the answers and begin a new record; returns the code that locks it."""
        self.folder = tempfile.TemporaryDirectory(prefix="practice_")
        place = Path(self.folder.name)
        self.setting = dataclasses.replace(self.opened, folder=place)
        self.engine = store.open_store(place / "readings.sqlite")
        accounts.add_reader(self.engine, READER, simulated=True)
        return {"code": accounts.new_code(self.engine, READER, days=1)}

    def _receive(self, _, sent: dict, __) -> None:
        status, data, pixels = self.answer(sent.get("path"), sent.get("body"))
        self.send({"id": sent.get("id"), "status": status, "data": data}, buffers=pixels)

    def answer(self, path: str, body: dict | None) -> tuple[int, dict, list[bytes]]:
        """The answer that the server would give: status, data and, for an image, its pixels."""
        if path == "begin":
            return 200, self.begin(), []
        reader = (self.engine, self.setting, READER)
        try:
            match path:
                case "reading/settings":
                    return 200, self.opened.page, []
                case "reading/state":
                    reader_state.enter(*reader)
                    return 200, reader_state.state(*reader), []
                case "reading/image" if reader_state.may_fetch(*reader, body["id"]):
                    *form, pixels = decoded(self.setting.images[body["id"]].path)
                    return 200, {"form": form}, [pixels]
                case "reading/image":
                    return 403, {}, []
                case "reading/record":
                    return self._record(body)
        except store.Refused as refusal:
            return 422, {"saved": False, "error": str(refusal)}, []
        return 404, {}, []

    def _record(self, body: dict) -> tuple[int, dict, list[bytes]]:
        message = body.get("message")
        if isinstance(message, dict) and message.get("event") == "locked":
            digest = accounts.code_digest(body.get("code"))
            if accounts.code_holder(self.engine, digest) != READER:
                return 403, {"saved": False, "error": "code"}, []
        kept = reader_state.receive(self.engine, self.setting, READER, message)
        state = reader_state.state(self.engine, self.setting, READER)
        return 200, {**kept, "state": state}, []
