# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the page of ``anomalib-vmpfd inspect``, as in docs/inspect.md: sample parts, in Chromium.

Give the checkpoint of the quickstart, ``--data datasets/sample/washer/test`` and ``--output docs/images``.
"""

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from anomalib_vmpfd.inspection.command import open_page

WIDTHS = (1280, 390)
COLORS = 160


def browser() -> webdriver.Chrome:
    """A headless Chromium."""
    options = webdriver.ChromeOptions()
    for switch in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(switch)
    # a driver that is there, so that Selenium looks for none
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def picture(chromium: webdriver.Chrome, url: str, width: int, scheme: str, images: int) -> Image.Image:
    """The whole page at a width, as soon as all images are judged."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    chromium.get(url)
    judged = (
        "return [...document.querySelectorAll('#summary strong')].reduce((sum, each) => sum + +each.textContent, 0)"
    )
    WebDriverWait(chromium, 120).until(lambda driver: driver.execute_script(judged) == images)
    time.sleep(1)
    height = chromium.execute_script("return document.documentElement.scrollHeight")
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**screen, "height": height})
    time.sleep(1)
    return Image.open(io.BytesIO(chromium.get_screenshot_as_png())).convert("RGB")


def main() -> None:
    """Write ``inspect_<width>.png``, and with ``--dark`` also ``inspect_<width>_dark.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    images = len(list(args.data.rglob("*.png")))
    chromium = browser()
    with tempfile.TemporaryDirectory() as folder:
        page = open_page(args.ckpt_path, Path(folder), args.data)
        for width in WIDTHS:
            for scheme in ("light", "dark") if args.dark else ("light",):
                taken = picture(chromium, page.local_url, width, scheme, images)
                name = f"inspect_{width}{'_dark' if scheme == 'dark' else ''}.png"
                taken.quantize(COLORS).save(args.output / name, optimize=True)
        page.close(verbose=False)
    chromium.quit()


if __name__ == "__main__":
    main()
