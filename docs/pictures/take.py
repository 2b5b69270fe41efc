"""Take the pictures of the documentation from a page that ``ozgraph analyze --html`` wrote.

    python docs/pictures/take.py report.html        # of torchvision's ResNet-50, exported to ONNX

Needs Playwright and a Chromium (``apt-get install chromium``).
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SHOTS = {
    "light": """
        const page = oz.page, scope = page.model.scopes.find((scope) => scope.label === "layer2.2").number;
        const family = page.model.families.find((family) => family.dim === "layer2.0.conv3.weight").number;
        page.toggle(scope); page.slim.set(0.5); page.choose({ kind: "family", number: family }, true);
        page.drawing.fit(); page.drawing.show(`s${scope}`);""",
    "dark": """
        const page = oz.page, scope = page.model.scopes.find((scope) => scope.label === "layer2.2").number;
        page.toggle(scope); page.slim.set(0.4); page.panel.treemap.terms = "mac_terms"; page.panel.tab("where");
        page.drawing.show(`s${scope}`);""",
}

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    for theme, script in SHOTS.items():
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=theme)
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.evaluate(f"() => {{ {script} }}")
        page.wait_for_timeout(500)
        page.screenshot(path=Path(__file__).with_name(f"page-{theme}.png"))
    browser.close()
