"""What a page looks like: its accessibility in both colour schemes, and pictures for the documents."""

import os
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SCHEMES: tuple[Literal["light"], Literal["dark"]] = "light", "dark"

WIDTHS = 390, 1440
"""Widths in pixels of a phone and of a wide screen."""

SCREENSHOTS = "BROWSER_SCREENSHOTS"
"""The environment variable with the folder for pictures. Without it, no picture is taken."""


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with the page as it is now, one line for each rule."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {each['help']}: "
        + "; ".join(f"{node['target']} {node['failureSummary']}" for node in each["nodes"][:3])
        for each in found
    ]


def check_looks(page: Page, name: str) -> None:
    """Check the page in both colour schemes and at both widths, and take a picture of each.

    Errors: AssertionError if axe-core finds anything, or if the page is wider than the screen.
    """
    before, wrong = page.viewport_size, list[str]()
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            take_picture(page, f"{name}-{scheme}-{width}")
            where = f"{scheme} colours, {width} pixels wide: "
            wrong += [where + each for each in violations(page)]
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                wrong.append(f"{where}the page is {wide} pixels wide")
    page.emulate_media(color_scheme="light")
    if before:
        page.set_viewport_size(before)
    assert not wrong, "\n".join([f"the page {name}:", *wrong])


def take_picture(page: Page, name: str) -> None:
    """Write the visible part of the page as `name`.png, if BROWSER_SCREENSHOTS names a folder."""
    if folder := os.environ.get(SCREENSHOTS):
        path = Path(folder) / f"{name}.png"
        page.screenshot(path=path, animations="disabled")
