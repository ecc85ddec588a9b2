"""A real browser.

It is Playwright's own (`playwright install chromium`) or the system's (`apt-get install chromium`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

# Chromium's sandbox does not work for root; the other flags prevent network calls of its own.
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)


def chromium(playwright: Playwright) -> str | None:
    """The browser to use. Without one the test is skipped, but fails in CI."""
    if Path(playwright.chromium.executable_path).exists():
        return None
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("no Chromium: apt-get install chromium, or .venv/bin/playwright install chromium")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(playwright), args=FLAGS)
        yield started
        started.close()
