"""The report's pages in headless Chromium: nothing complains, tables sort, both corners react, axe finds no fault.

It takes a minute, so it wants GM_JAX_BROWSER=1; besides Chromium (`apt-get install chromium`), and
`pip install playwright axe-playwright-python`. GM_JAX_PAGES=FOLDER checks the pages in a folder in place of made-up
ones and leaves pictures of each beside them: light, dark, and 400 pixels wide.
"""

import os
import shutil
from pathlib import Path

import pytest

from gm_jax.report.__main__ import build
from tests.fake_runs import write_family, write_run

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.skipif("GM_JAX_BROWSER" not in os.environ, reason="it takes a minute: set GM_JAX_BROWSER=1"),
]

LOOKS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (400, "light")}  # width, colour scheme
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of pages: a given one, or that of a few made-up runs."""
    if "GM_JAX_PAGES" in os.environ:
        return Path(os.environ["GM_JAX_PAGES"]).absolute()
    root = tmp_path_factory.mktemp("browser")
    scores = {"frechet_pixels": 3.5, "sampling_time": 0.01, "judged_accuracy": 0.9, "elbo": -150.0}
    for seed in range(2):
        write_run(root / "runs" / f"fnn_{seed}", seed=seed)
    write_run(root / "runs" / "vae", "vae_mnist", results=scores, sprites=("latent_plane",))
    write_run(root / "runs" / "ddpm", "ddpm_mnist", 4500, steps=4500, results=scores, sprites=("reverse_film",))
    members = {size: {"mean_squared_error": 1 / size} for size in (2, 4, 8)}
    write_family(root / "runs" / "vae_mnist_sweep", "vae_mnist", "model.latent_dim", members)
    build(root / "runs", root / "pages")
    return root / "pages"


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser, path, look="light"):
    """A page, and what it complained of."""
    width, scheme = LOOKS[look]
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    return page, said


@pytest.mark.parametrize("look", LOOKS)
def test_pages_are_whole_and_usable(browser, folder, look):
    for path in sorted(folder.glob("*.html")):
        page, said = opened(browser, path, look)
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)"), path
        assert page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look][0], f"{path} scrolls sideways"
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        serious = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in SERIOUS]
        assert not serious and not said, (path, serious, said)
        if "GM_JAX_PAGES" in os.environ:
            page.screenshot(path=folder / f"{path.stem}_{look}.png", full_page=True)
        page.context.close()


def test_tables_sort_and_curves_hide(browser, folder):
    page, said = opened(browser, folder / "index.html")
    table = page.locator("table.rows")

    def column(number):
        return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()

    ids = column(1)
    for number, name in ((1, "Row"), (4, "The report")):
        for order in ("ascending", "descending"):
            table.get_by_role("button", name=name).click()
            head = table.locator(f"thead th:nth-child({number})")
            assert head.get_attribute("aria-sort") == order
        assert column(number)[0] == {1: ids[-1], 4: "2,412" if "2,412" in column(4) else column(4)[0]}[number]
    values = [float(text.removesuffix(" %").replace(",", "")) for text in column(4) if text[0].isdigit()]
    assert values == sorted(values, reverse=True) and len(values) > 5
    line, box = page.locator('.curves svg [data-line="0"]').first, page.locator(".curves input").first
    assert line.is_visible()
    box.uncheck()
    assert not line.is_visible() and not said


def picture(page, corner):
    """The pixels of a corner's large picture."""
    return page.locator(f"{corner} canvas").first.screenshot()


def test_both_corners_react_to_pointer_and_keys(browser, folder):
    page, said = opened(browser, folder / "index.html")
    before = picture(page, ".plane")
    plane = page.locator(".plane .map").first
    box = plane.bounding_box()
    plane.scroll_into_view_if_needed()
    plane.hover(position={"x": 0.1 * box["width"], "y": 0.1 * box["height"]})
    moved = picture(page, ".plane")
    said_at = page.locator(".plane output").first.inner_text()
    page.locator(".plane .x").first.press("End")
    assert before != moved != picture(page, ".plane")
    assert said_at.startswith("z = (-") and said_at != page.locator(".plane output").first.inner_text()

    last = picture(page, ".film")
    slider, output = page.locator(".film input").first, page.locator(".film output").first
    slider.press("Home")
    assert output.inner_text().startswith("state 1 of ") and picture(page, ".film") != last
    slider.press("ArrowRight")
    assert output.inner_text().startswith("state 2 of ")
    page.locator(".film button").first.click()
    page.wait_for_function("document.querySelector('.film output').textContent.includes('noise 0 %')")
    canvas = page.locator(".film canvas").first
    canvas.scroll_into_view_if_needed()
    canvas.click(position={"x": 2, "y": 2})
    assert output.inner_text().startswith("state 1 of ") and not said
