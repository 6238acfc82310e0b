"""A headless Chromium."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_WIDTHS = {"wide": (1280, 900), "phone": (390, 844)}

_CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255];
};
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest('.inview, .skip, svg')) continue;
  const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) found.push(`${element.tagName} "${element.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
}
return found;
"""


@contextmanager
def chromium(screen: str = "wide", scheme: str = "light", *, calm: bool = True) -> Iterator[Browser]:
    """A separate browser; skips the test if none is installed.

    Args:
        screen: "wide" (1280 x 900) or "phone" (390 x 844, touch).
        scheme: "light" or "dark".
        calm: the user prefers reduced motion.
    """
    pytest.importorskip("selenium", reason="the browser tests need selenium (pip install '.[dev]')")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium is not installed (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser = Browser(running)
        browser.screen(screen)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        running.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield browser
    finally:
        running.quit()


class Browser:
    """What tests do with a page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def screen(self, name: str) -> None:
        """Look at pages on a "wide" screen or a "phone"."""
        width, height = _WIDTHS[name]
        phone = name == "phone"
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )

    def open(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a body of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def count(self, selector: str) -> int:
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def wait(self, met: Callable[[], Any], seconds: float = 180) -> Any:
        """Wait until `met` gives something true, and return that."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := met():
                return found
            time.sleep(0.05)
        raise AssertionError(f"it did not come about within {seconds:.0f} s; the page says:\n{self.text('body')[:800]}")

    def wait_for_faces(self, count: int = 1) -> None:
        """Wait until so many faces are on the wall and their pictures are there."""
        script = (
            "const all = [...document.querySelectorAll('.tile img')];"
            "return all.length >= arguments[0] && all.every((one) => one.complete && one.naturalWidth > 0)"
        )
        self.wait(lambda: self.run(script, count))

    def low_contrast(self) -> list[str]:
        """Visible texts whose contrast with what is behind them is below 4.5 to 1 (WCAG AA)."""
        # A colour on its way to another one is not what is read.
        self.wait(lambda: self.run("return document.getAnimations().every((one) => one.playState !== 'running')"))
        return self.run(_CONTRAST)

    def complaints(self) -> list[str]:
        """What the console says at the level of warnings and errors."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
