"""Headless Chromium for tests of HTML pages."""

import contextlib
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Nothing of the browser's own may go to a network.
ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextlib.contextmanager
def headless_browser():
    """A browser, without a window; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=ARGUMENTS, chromium_sandbox=False
        )
        yield browser
        browser.close()


class Opened:
    """Opens pages, and notes what they ask for and complain about."""

    def __init__(self, browser):
        self.browser = browser
        self.contexts, self.wanted, self.requests, self.messages = [], set(), set(), []

    def __call__(self, file, *, width=1200, height=900, colours="light", script=True):
        """The page of a file, as Playwright gives it.

        Arguments
        ---------
        file : Path
            The HTML file.
        width, height : int
            Of the window.
        colours : str
            "light" or "dark": what the system prefers.
        script : bool
            Whether JavaScript runs.
        """
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=colours,
            java_script_enabled=script,
        )
        self.contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: self.requests.add(request.url))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("dialog", lambda dialog: (self.messages.append(dialog.message), dialog.dismiss()))
        self.wanted.add(Path(file).as_uri())
        page.goto(Path(file).as_uri())
        return page

    def close(self):
        """Ends the pages. Fails if one asked for more than itself, or wrote into the console."""
        for context in self.contexts:
            context.close()
        loaded = {url for url in self.requests if not url.startswith("data:")}
        assert loaded == self.wanted, f"loaded {loaded - self.wanted}"
        assert not self.messages, self.messages


def is_too_wide(page):
    """Whether a reader has to scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
