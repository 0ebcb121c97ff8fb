"""The page works in a real browser, and its answers are those of search."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Page, sync_playwright
from starlette.testclient import TestClient
from support.index_table import IndexTable
from support.paths import ROOT

from pipeline.search.explore import create_app
from pipeline.search.search import search
from transforms.index.update import update_index

XQUAD = ROOT / "data" / "xquad"
QUERY = "How many career sacks did Jared Allen have?"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IndexTable:
    table = IndexTable(tmp_path_factory.mktemp("explore") / "table")
    documents = [json.loads(line) for line in (XQUAD / "corpus.jsonl").read_text().splitlines()[:60]]
    table.put(*[{"_id": d["_id"], "text": d["text"].replace(". ", ".\n"), "year": 2020} for d in documents])
    return table


@pytest.fixture(scope="module")
def index(table: IndexTable, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("explore") / "index")
    update_index(table.path, path)
    return path


@pytest.fixture(scope="module")
def client(index: str) -> TestClient:
    return TestClient(create_app(index), base_url="http://127.0.0.1")


def test_answers_are_those_of_search(index: str, client: TestClient) -> None:
    found = client.get("/api/search", params={"q": QUERY, "k": 3}).json()["modes"]
    assert list(found) == ["bm25", "sparse", "dense", "hybrid"]
    for mode, result in found.items():
        assert [hit["_id"] for hit in result["hits"]] == [
            hit.id for hit in search(index, QUERY, mode=mode, k=3)
        ]


def test_a_document_comes_with_its_chunks(client: TestClient) -> None:
    shown = client.get("/api/document", params={"id": "d0"}).json()
    field = shown["fields"]["text_sparse"]
    assert len(field["chunks"]) == field["texts"]["text"].count("\n") + 1
    weights = [weight for _, weight in field["chunks"][0]["tokens"]]
    assert weights == sorted(weights, reverse=True)


def test_statistics_count_every_chunk(client: TestClient) -> None:
    unit = client.get("/api/statistics").json()["units"][0]
    assert sum(unit["length"]["counts"]) == unit["chunks"]
    assert sum(unit["chunks_per_document"]["counts"]) == 60


def test_errors_are_messages(client: TestClient) -> None:
    answer = client.get("/api/search", params={"q": "x", "field": "body"})
    assert (answer.status_code, answer.json()["error"][:23]) == (400, "the index has no field ")
    assert client.get("/api/document", params={"id": "none"}).status_code == 400
    assert client.get("/api/search", params={"q": "x", "filter": "colour=red"}).status_code == 400


def test_a_part_that_was_vacuumed_is_said(table: IndexTable, client: TestClient) -> None:
    (part,) = Path(table.path).rglob("*.parquet")
    aside = part.rename(part.with_suffix(".aside"))
    answer = client.get("/api/document", params={"id": "d0"})
    aside.rename(part)
    assert answer.status_code == 400
    assert part.name in answer.json()["error"]


def test_other_hosts_are_refused(client: TestClient) -> None:
    assert client.get("/api/info", headers={"host": "elsewhere.example"}).status_code == 400
    assert client.get("/api/info", headers={"host": "localhost:8765"}).status_code == 200


def test_an_update_is_seen(table: IndexTable, index: str, client: TestClient) -> None:
    table.put({"_id": "fresh", "text": "<b>zebra</b> crossing"})
    update_index(table.path, index)
    hit = client.get("/api/search", params={"q": "zebra"}).json()["modes"]["bm25"]["hits"][0]
    assert (hit["_id"], hit["highlight"]) == ("fresh", "&lt;b&gt;<em>zebra</em>&lt;/b&gt; crossing")


def chromium() -> str:
    """Debian's chromium, or the browser that CHROMIUM names."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "no chromium: `apt-get install chromium`, or set CHROMIUM to the browser's path"
    return found


@pytest.fixture(scope="module")
def address(index: str) -> Iterator[str]:
    """The page, served on a free port."""
    server = uvicorn.Server(uvicorn.Config(create_app(index), log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        yield page
        browser.close()


@pytest.mark.browser
def test_a_person_searches_and_opens_a_document(page: Page, index: str, record_property: Any) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.get_by_label("Query").fill(QUERY)
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("#mode-hybrid article")
    assert [heading.inner_text().split()[0] for heading in page.query_selector_all("section h2")] == [
        "bm25",
        "sparse",
        "dense",
        "hybrid",
    ]
    first = page.locator("#mode-bm25 article").first
    assert first.locator(".link").inner_text() == search(index, QUERY, mode="bm25")[0].id == "d0"
    assert "sacks" in first.locator("em").all_inner_texts()
    assert first.locator(".tokens span").count() >= 3
    if target := os.environ.get("SCREENSHOT"):
        page.screenshot(path=target)
    first.locator(".link").click()
    page.wait_for_selector("#dialog[open] .text")
    drawn = page.locator("#dialog .text").first
    text = "".join(drawn.locator("span").all_inner_texts())
    assert text.startswith("The Panthers defense gave up just 308 points")
    assert drawn.locator("sup.start").count() == text.count("\n") + 1
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Statistics").click()
    page.wait_for_selector("#dialog .bars")
    page.get_by_role("button", name="Close").click()
    assert errors == []


@pytest.mark.browser
def test_markup_in_documents_stays_text(page: Page, table: IndexTable, index: str) -> None:
    table.put({"_id": "evil", "text": "okapi <img src=x onerror=\"document.title='owned'\"> okapi"})
    update_index(table.path, index)
    page.get_by_label("Query").fill("okapi")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("#mode-bm25 article:has-text('onerror')")
    assert page.locator("article img").count() == 0
    assert page.title() == "Explore the index"


@pytest.mark.browser
def test_a_wrong_filter_is_said(page: Page) -> None:
    page.get_by_label("Filter").fill("colour=red")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("#message.error")
    assert "is no field that a filter can use" in page.locator("#message").inner_text()
    page.get_by_label("Filter").fill("")
