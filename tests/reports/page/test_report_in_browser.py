"""The page in a real browser: nothing is asked for, nothing sticks out, what is hostile is text."""

import os

import pytest
from reports.page.headless import HOW, browser, browser_path
from reports.page.page_runs import HOSTILE

PATH = browser_path()

pytestmark = pytest.mark.skipif(PATH is None or os.name != "posix", reason=HOW)

# Elements that reach beyond the window, unless a box around them scrolls.
OUTSIDE = """
[...document.querySelectorAll('body *')].filter(element =>
  !element.closest('.scroll, svg') && element.getBoundingClientRect().right > innerWidth + 0.5
).map(element => element.outerHTML.slice(0, 100))
"""
CHARTS = """
[...document.querySelectorAll('svg')].map(chart => chart.getBoundingClientRect()).map(box => [box.width, box.height])
"""


@pytest.fixture(scope="module")
def chromium():
    with browser(PATH) as started:
        yield started


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands_on_its_own_at_any_width(chromium, whole_page, width, scheme):
    chromium.open(whole_page, width, 900, **{"prefers-color-scheme": scheme})
    assert chromium.requests() == []
    assert chromium.complaints() == []
    assert chromium.ask("document.documentElement.scrollWidth") == width
    assert chromium.ask(OUTSIDE) == []
    charts = chromium.ask(CHARTS)
    assert len(charts) >= 6
    assert all(w > 200 and h > 100 for w, h in charts)


def test_hostile_titles_are_text(chromium, whole_page):
    chromium.open(whole_page, 1280, 900)
    assert HOSTILE["item1"] in chromium.ask("document.body.innerText")
    assert chromium.ask("document.querySelectorAll('script, main img, b').length") == 0
    longest = "Math.max(...[...document.querySelectorAll('bdi')].map(text => text.textContent.length))"
    assert chromium.ask(longest) <= 161


def test_script_would_not_run_even_if_there_were_any(chromium, whole_page, tmp_path):
    harmed = tmp_path / "harmed.html"
    harmed.write_text(whole_page.read_text().replace("</main>", "<script>window.ran = true</script></main>"))
    chromium.open(harmed, 1280, 900)
    assert chromium.ask("window.ran === true") is False
    assert any("Content Security Policy" in line for line in chromium.complaints())


def test_heads_of_tables_stay_in_sight(chromium, whole_page):
    chromium.open(whole_page, 390, 900)
    box = "document.querySelector('#g1-results').parentElement.querySelector('.scroll')"
    assert chromium.ask(f"{box}.scrollWidth > {box}.clientWidth")
    chromium.ask(f"{box}.scrollLeft = 150")
    left = chromium.ask(f"{box}.querySelector('tbody th').getBoundingClientRect().left")
    assert left == pytest.approx(chromium.ask(f"{box}.getBoundingClientRect().left"), abs=1)


def test_what_is_folded_is_open_in_print(chromium, whole_page, tmp_path):
    chromium.open(whole_page, 1280, 900)
    shown = "getComputedStyle(document.querySelector('details'), '::details-content').contentVisibility"
    assert chromium.ask(shown) == "hidden"
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.ask(shown) == "visible"
    chromium.printed(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
