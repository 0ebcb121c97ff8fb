"""`make docs`: the site builds without a warning, needs nothing from elsewhere, and knows every public name."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from pipeline import api

pytestmark = pytest.mark.slow
_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|srcset|href)=\"((?:https?:)?//[^\"]*)\""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; a warning fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    assert {page.name: found for page in pages if (found := _LOADED.findall(page.read_text()))} == {}
    for style in site.rglob("*.css"):
        assert not re.search(r"url\((?!data:)[\"']?(?:https?:)?//", style.read_text())


def test_the_search_finds_concepts_and_names(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    places = {entry["location"] for entry in index["docs"]}
    assert "chunking/#quirks-that-are-kept" in places
    assert {f"reference/pipeline/#pipeline.api.{name}" for name in api.__all__} <= places
    assert "reference/transforms/#transforms.embed.documents.EmbedDocuments" in places
    assert "reference/models/#models.model.Model.load" in places
    assert {
        f"reference/commands/#semantic-ingest-{name}" for name in ("run", "init", "load-qdrant")
    } <= places


def test_every_config_of_the_gallery_stands_on_its_page(site: Path) -> None:
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "gallery" / "index.html").read_text()))
    for config in (ROOT / "run_configs").glob("*.yaml"):
        assert config.read_text().splitlines()[0] in text, config.name
