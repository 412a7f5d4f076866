"""A reader in a real browser: signs in, fills the forms, looks and answers by keys."""

import json
import os
import shutil

from playwright.sync_api import Page, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """The Chromium that is there; None lets Playwright take its own."""
    return (
        os.environ.get("CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


def launch():
    """(playwright, browser); close the browser, stop the playwright."""
    playwright = sync_playwright().start()
    return playwright, playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)


class Reader:
    """One reader's page.

    `acknowledged` are the ids of messages that the server said are saved; `elsewhere` requests to
    other hosts.
    """

    def __init__(self, browser, link: str, width: int = 1440, height: int = 900, **context):
        self.link = link
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.acknowledged: dict[str, str] = {}
        self.elsewhere: list[str] = []
        self.problems: list[str] = []
        self.page.on("response", self._heard)
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def unexpected(self) -> list[str]:
        """The problems that a killed kernel does not explain: Voila's own script reports that one
        as an error of the page.
        """
        return [problem for problem in self.problems if problem != "Kernel connection disconnected"]

    def _heard(self, response) -> None:
        if response.url.endswith("reading/record") and response.status == 200:
            try:
                told, sent = response.json(), json.loads(response.request.post_data)
            except Exception:
                return  # the page went away before its answer was read
            if told.get("saved"):
                self.acknowledged[sent["message"]["id"]] = sent["message"]["blind_id"]

    def _asked(self, request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self) -> None:
        """Sign in by the link."""
        self.page.goto(self.link)
        self.page.wait_for_function(
            "document.querySelector('#reading h1, canvas[data-shown], dialog[open]')"
        )

    def register(self, prior_ai: bool = True) -> None:
        """Consent, registration, instructions and display check, up to the first image."""
        self.come_to_the_display_check(prior_ai)
        self.check_display()
        self.shown()

    def come_to_the_display_check(self, prior_ai: bool = True) -> None:
        """Consent, registration and instructions; `prior_ai`: whether that is asked."""
        page = self.page
        page.check("#agree")
        page.click("button.primary")
        page.fill("input[name=years]", "12")
        page.fill("input[name=specialty]", "Radiology")
        if prior_ai:
            page.click(".choice:has-text('No')")
        page.click("button.primary")
        page.wait_for_selector("h1:has-text('How it works')")
        page.click("button.primary")

    def check_display(
        self, right: bool = True, room: str = "Dimmed", device: str = "Laptop"
    ) -> None:
        """Choose in both rows the field with the square (or another one), and say the rest."""
        page = self.page
        for row in page.locator(".fields").all():
            fields = row.locator(".choice:has(.patch)")
            odd = fields.evaluate_all(
                "all => all.findIndex(field =>"
                " field.querySelector('.patch span').style.background !== 'none')"
            )
            fields.nth(odd if right else (odd + 1) % fields.count()).click()
        page.click(f".choice:has-text('{room}')")
        page.click(f".choice:has-text('{device}')")
        page.click("button.primary")

    def shown(self, other_than: str = "") -> str:
        """The blind_id of the image on the screen, once there is one (other than `other_than`)."""
        self.page.wait_for_function(
            "other => { const c = document.querySelector('canvas.picture'); return c &&"
            " c.dataset.shown && c.dataset.shown !== other }",
            arg=other_than,
        )
        return self.page.evaluate("document.querySelector('canvas.picture').dataset.shown")

    def dialog(self) -> str:
        """Go on past a dialog if one is open; returns its title."""
        found = self.page.locator("dialog[open]")
        if not found.count():
            return ""
        title = found.get_attribute("aria-label")
        found.locator("button.primary").click()
        return title

    def answer(self, key: str = "f", text: str | None = None) -> str:
        """Answer the image on the screen by keys, its own id in the words; returns its blind_id."""
        self.dialog()
        blind_id = self.shown()
        self.page.keyboard.press(key)
        self.page.fill("#description", f"seen {blind_id}" if text is None else text)
        self.page.keyboard.press("Enter")
        return blind_id

    def finished(self) -> bool:
        """Whether all images have been answered."""
        return self.page.locator("form.lock").count() > 0

    def saved(self, seconds: float = 30) -> None:
        """Wait until the page says that everything is saved."""
        self.page.wait_for_function(
            "Object.keys(localStorage).every(key => !key.startsWith('reading/'))",
            timeout=seconds * 1000,
        )

    def lock(self, code: str) -> str:
        """Lock by the code; returns the head of the record that the page shows."""
        self.page.fill("form.lock input", code)
        self.page.click("form.lock button")
        return self.page.locator("code.head").inner_text()

    def grey(self, x: float, y: float) -> int:
        """The grey value on the screen at a place of the canvas (shares of its width and
        height).
        """
        return self.page.evaluate(
            "([x, y]) => { const c = document.querySelector('canvas.picture'); return"
            " c.getContext('2d').getImageData(Math.floor(x * c.width), Math.floor(y * c.height), 1,"
            " 1).data[0] }",
            [x, y],
        )
