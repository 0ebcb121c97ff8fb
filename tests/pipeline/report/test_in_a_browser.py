"""The pages of a run and of an evaluation in a real browser: nothing sticks out, nothing lies on something else."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from support.browser import open_browser
from support.small_run import SmallRun, document

from pipeline.__main__ import main

pytestmark = pytest.mark.browser

WIDTHS = (1280, 700, 400)
# Boxes of text that meet bars or each other, in the order of the page.
OVERLAPS = """() => {
  const box = element => element.getBoundingClientRect();
  const shown = element => box(element).width > 0 && box(element).height > 0;
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const texts = [...document.querySelectorAll("text, figcaption, .ends span, td, th, p, h1, h2, h3")].filter(shown);
  const bars = [...document.querySelectorAll("rect, td.bar i")].filter(shown);
  const found = [];
  for (const [at, text] of texts.entries()) {
    for (const bar of bars) if (!text.contains(bar) && meet(box(text), box(bar)))
      found.push(text.textContent + " on a bar");
    for (const other of texts.slice(at + 1)) if (!text.contains(other) && meet(box(text), box(other)))
      found.push(text.textContent + " on " + other.textContent);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run with failures and all that was skipped, and that of its evaluation."""
    folder = tmp_path_factory.mktemp("pages")
    job = SmallRun(folder)
    lines = [*(document(number) for number in range(60)), document(3), b"no json", b"[]"]
    job.write(lines)
    assert job.run("--quiet") == 0
    job.write([*(document(number, 1) for number in range(60)), document(3), b"no json", b"[]"])
    assert job.run("--quiet") == 0
    queries = [{"_id": f"q{n}", "text": f"Edition 1 of document {n} says"} for n in range(0, 60, 2)]
    (folder / "q.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(0, 60, 2))
    )
    argv = ["evaluate", str(job.config_path), "--queries", str(folder / "q.jsonl")]
    assert (
        main([*argv, "--qrels", str(folder / "qrels.tsv"), "--report", str(folder / "evaluation.html")]) == 0
    )
    return {"run": folder / "report.html", "evaluation": folder / "evaluation.html"}


def opened(browser: Browser, path: Path, width: int, scheme: str) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("name", ["run", "evaluation"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_its_window(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    page = opened(browser, pages[name], width, "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERLAPS) == []
    page.close()


@pytest.mark.parametrize("name", ["run", "evaluation"])
def test_a_page_is_dark_where_that_is_wished(browser: Browser, pages: dict[str, Path], name: str) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = opened(browser, pages[name], 800, scheme)
        style = "getComputedStyle(document.body)"
        colours |= {page.evaluate(f"{style}.backgroundColor"), page.evaluate(f"{style}.color")}
        page.close()
    assert len(colours) == 4


def test_the_links_of_a_report_lead_to_its_files(browser: Browser, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["run"], 1280, "light")
    addresses = page.evaluate("[...document.links].map(link => link.href)")
    assert len(set(addresses)) == 3
    for address in addresses:
        assert Path(address.removeprefix("file://")).is_file()
    page.close()
