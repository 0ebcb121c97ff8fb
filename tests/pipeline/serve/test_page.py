"""The page in a real browser: each place and each action, text from outside stays text, phones, axe's checks."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect
from support.browser import PATIENCE, open_browser
from support.checkpoints import make_cross_encoder
from support.paths import ROOT
from support.small_run import SmallRun

from models.endpoints.registry import Registry
from pipeline.evaluation.kept import keep_evaluation
from pipeline.serve.app import create_app
from pipeline.serve.corpus import open_corpus
from pipeline.serve.security import Door

pytestmark = pytest.mark.browser

AXE = ROOT / "build" / "clients" / "axe-core" / "node_modules" / "axe-core" / "axe.min.js"
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PLACES = (
    "#/search?q=hound",
    "#/search?q=hound&rerank=ranker",
    "#/search?q=hound&mode=bm25",
    "#/documents?id=d1",
    "#/endpoints?id=mine",
    "#/endpoints?new=1",
    "#/runs",
)


def document(number: int, edition: int = 0) -> dict[str, Any]:
    said = f"Edition {edition} of document {number} says something of a hound and a fox."
    return {
        "_id": f"d{number}",
        "title": f"Report {number}",
        "path": f"reports/{number}.pdf",
        "text": f"A hound sleeps on page one. {said} The fox of the third page, number {number}, is awake.",
        "page_offsets": [0, 28, 28 + len(said) + 1],
        "year": 2000 + number,
        "kind": "report" if number % 2 else "memo",
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    folder = tmp_path_factory.mktemp("page")
    small = SmallRun(folder, endpoints={"path": str(folder / "eps")})
    properties = small.config["mappings"]["properties"]
    properties |= {"kind": {"type": "keyword"}, "path": {"type": "keyword"}}
    properties["dense"]["inference_id"] = "mine"
    hashing = {"service": "hashing", "service_settings": {"dimensions": 32}}
    Registry(folder / "eps").put("mine", hashing, "text_embedding")
    settings = {
        "model_id": str(make_cross_encoder("bert", folder / "ranker")),
        "num_threads": 1,
        "num_allocations": 1,
    }
    Registry(folder / "eps").put(
        "ranker", {"service": "elasticsearch", "service_settings": settings}, "rerank"
    )
    evil = {
        "_id": EVIL,
        "title": EVIL,
        "text": f"okapi {EVIL} okapi",
        "year": 1999,
        "kind": EVIL,
        "path": EVIL,
    }
    small.write([document(n) for n in range(40)])
    assert small.run() == 0
    small.write([document(n, edition=n % 2) for n in range(40)] + [evil, b"not json"])
    assert small.run() == 0
    modes = {"dense": {"ndcg@10": 0.61, "recall@100": 0.9}, "bm25": {"ndcg@10": 0.55, "recall@100": 0.8}}
    for version in (0, 1):
        result = {"table_version": version, "queries": 10, "modes": modes, "intervals": {}}
        keep_evaluation(folder / "evaluations.jsonl", result)
    return small


@pytest.fixture(scope="module")
def address(small: SmallRun) -> Iterator[str]:
    """The page, served on a free port."""
    yield from served(create_app(open_corpus(str(small.config_path))))


def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, which must end without an error in its console."""
    context = browser.new_context(viewport={"width": 1320, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security" in line.text else None)
    page.goto(address)
    yield page
    assert errors == []
    assert "owned" not in page.title()
    context.close()


def choose(page: Page, legend: str) -> None:
    page.get_by_role("radio", name=legend).check(force=True)


def test_a_person_searches(page: Page) -> None:
    page.get_by_label("Query").fill("hound")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("section[data-mode]")).to_have_count(4)
    assert page.locator("section[data-mode] h2").all_inner_texts() == ["BM25", "Sparse", "Dense", "Hybrid"]
    hit = page.locator("section[data-mode=bm25] .hit").first
    expect(hit.locator("mark").first).to_have_text("hound")
    expect(hit.locator("h3")).to_contain_text("Report")
    expect(hit.locator(".path")).to_contain_text("reports/")
    hit.get_by_text("Why").click()
    expect(hit.locator(".tokens li").first).to_be_visible()
    choose(page, "Dense")
    expect(page.locator("section[data-mode]")).to_have_count(1)
    assert page.url.endswith("#/search?q=hound&mode=dense")
    page.go_back()
    expect(page.locator("section[data-mode]")).to_have_count(4)
    assert page.get_by_role("radio", name="Side by side").is_checked()


def test_a_question_is_a_link(page: Page, address: str) -> None:
    page.goto(f"{address}#/search?q=hound&mode=bm25&filter=year%3E%3D2035&k=3&field=text")
    page.reload()
    expect(page.locator(".hit")).to_have_count(3)
    values = [
        page.get_by_label(name, exact=True).input_value() for name in ("Query", "Filter", "Hits", "Field")
    ]
    assert values == ["hound", "year>=2035", "3", "text"]


def test_the_best_hits_are_ranked_again(page: Page, address: str) -> None:
    page.goto(f"{address}#/search?q=hound&mode=bm25&k=3")
    expect(page.locator(".hit")).to_have_count(3)
    expect(page.get_by_label("Depth")).to_be_disabled()
    expect(page.locator(".hit .path").first).not_to_contain_text("found at")
    page.get_by_label("Rerank").select_option("ranker")
    expect(page.locator(".hit .path").first).to_contain_text("found at")
    assert page.url.endswith("&k=3&rerank=ranker")
    scores = [float(score) for score in page.locator(".hit .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[0] < 1
    page.get_by_label("Depth").fill("2")
    page.get_by_label("Depth").press("Enter")
    expect(page.locator("#depth-error")).to_contain_text("from 3 to 1000")
    expect(page.locator(".hit")).to_have_count(0)
    page.get_by_label("Depth").fill("20")
    page.get_by_label("Depth").press("Enter")
    expect(page.locator(".hit")).to_have_count(3)
    page.reload()
    assert page.get_by_label("Depth").input_value() == "20"
    assert page.get_by_label("Rerank").input_value() == "ranker"
    page.goto(f"{address}#/search?q=hound&mode=bm25&k=3&rerank=.rerank-v1-elasticsearch")
    expect(page.locator("#rerank-error")).to_contain_text("Let an open cross-encoder stand in")
    page.go_back()
    expect(page.locator(".hit .path").first).to_contain_text("found at")
    expect(page.locator("#rerank-error")).to_have_text("")


def test_filters_are_suggested_from_the_mapping(page: Page) -> None:
    box = page.get_by_label("Filter", exact=True)
    box.press_sequentially("k")
    offered = page.locator("#filter-values option")
    expect(offered.first).to_have_attribute("value", re.compile("="))
    assert {"year=", "kind=", "path="} <= {one.get_attribute("value") for one in offered.all()}
    box.fill("year>=2001 AND kind=r")
    expect(offered).to_have_count(1)
    assert offered.first.get_attribute("value") == "year>=2001 AND kind=report"


def test_errors_stand_beside_their_field_and_never_above_old_results(page: Page) -> None:
    page.get_by_label("Query").fill("hound")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".hit").first).to_be_visible()
    page.get_by_label("Filter", exact=True).fill("colour=red")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#filter-error")).to_contain_text("is no field that a filter can use")
    expect(page.locator(".hit")).to_have_count(0)
    expect(page.get_by_label("Filter", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Filter", exact=True).fill("kind=memo")
    page.get_by_label("Hits").fill("1000")
    page.get_by_label("Hits").press("Enter")
    expect(page.locator("#k-error")).to_contain_text("from 1 to 100")
    expect(page.locator("#filter-error")).to_have_text("")


def test_documents_are_browsed_filtered_and_opened(page: Page, address: str) -> None:
    page.get_by_role("link", name="Documents").click()
    expect(page.locator(".pick li")).to_have_count(25)
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".pick li")).to_have_count(16)
    page.go_back()
    page.get_by_label("Filter").fill("year=2003")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator(".pick li")).to_have_count(1)
    page.locator(".pick a").click()
    field = page.locator("[data-field=dense]")
    expect(field).to_be_visible()
    text = document(3, edition=1)["text"]
    drawn = field.locator(".text").last
    assert "".join(drawn.locator("span").all_inner_texts()) == text
    rows = field.locator("tbody").last.locator("tr")
    assert drawn.locator("sup").count() == rows.count() == 2
    assert [row.locator("[data-name=Page]").inner_text() for row in rows.all()] == ["1", "3"]
    rows.nth(1).get_by_role("button").click()
    assert "".join(drawn.locator("span.on").all_inner_texts()).strip().startswith("The fox of the third page")
    sparse = page.locator("[data-field=sparse]")
    assert sparse.locator(".text .both").count() >= 1
    sparse.get_by_text("Tokens with weights").first.click()
    expect(sparse.locator(".tokens li").first).to_be_visible()
    page.get_by_role("button", name="Copy id").click()
    assert page.evaluate("navigator.clipboard.readText()") == "d3"
    page.get_by_text("Source as JSON").click()
    assert json.loads(page.locator(".detail pre").inner_text())["kind"] == "report"
    expect(page.locator(".facts").first).to_contain_text("2003")


def test_an_endpoint_is_added_tested_and_deleted(page: Page, small: SmallRun) -> None:
    page.get_by_role("link", name="Endpoints").click()
    row = page.get_by_role("row", name=re.compile(r"^\.minilm-l6-v2"))
    for word in ("text_embedding", "elasticsearch", "all-minilm-l6-v2", "384"):
        expect(row).to_contain_text(word)
    page.get_by_role("link", name="Add endpoint").click()
    page.get_by_label("Id", exact=True).fill("Not An Id")
    page.get_by_label("Task").select_option("text_embedding")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(
        page.locator("#setting-model_id-error, #id-error").filter(has_text=re.compile(r"\w")).first
    ).to_be_visible()
    page.get_by_label("Id", exact=True).fill("short-minilm")
    page.get_by_label("model_id").fill("all-minilm-l6-v2")
    page.get_by_label("Maximum input tokens").fill("8")
    page.get_by_label("Words in a chunk").fill("5")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#max_chunk_size-error")).to_contain_text("must be greater than or equal to [20.0]")
    page.get_by_label("Words in a chunk").fill("50")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#endpoint h2")).to_have_text("short-minilm")
    stored = Registry(small.folder / "eps").get("short-minilm")
    assert (stored.service_settings["max_input_tokens"], stored.chunking_settings.max_chunk_size) == (8, 50)
    page.get_by_role("button", name="Copy id").click()
    assert page.evaluate("navigator.clipboard.readText()") == "short-minilm"
    page.get_by_label("Test with a text").fill("a long text of which the end is cut off")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.locator("#attempt")).to_contain_text("384 dimensions")
    expect(page.locator("#attempt")).to_contain_text("8 tokens read")
    expect(page.locator("#attempt")).to_contain_text("truncated")
    page.get_by_text("Definition as JSON").click()
    assert json.loads(page.locator("#endpoint pre").inner_text()) == stored.to_json()
    page.get_by_role("button", name="Delete …").click()
    expect(page.get_by_role("dialog")).to_contain_text("Nothing that is known here uses it")
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("link", name="short-minilm")).to_have_count(0)
    assert not (small.folder / "eps" / "short-minilm.json").exists()


def test_raw_json_is_sent_as_it_is(page: Page, address: str, small: SmallRun) -> None:
    page.goto(f"{address}#/endpoints?new=1")
    page.get_by_label("Id", exact=True).fill("raw")
    page.get_by_label("Service").select_option("hashing")
    page.get_by_label("Request body").fill("{")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#raw-error")).to_contain_text("This is not JSON")
    page.get_by_label("Request body").fill(
        json.dumps({"service": "hashing", "service_settings": {"colour": 1}})
    )
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#raw-error")).to_contain_text("service_settings.colour")
    page.get_by_label("Request body").fill(
        json.dumps({"service": "hashing", "service_settings": {"dimensions": 8}})
    )
    page.get_by_label("Task").select_option("text_embedding")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#endpoint")).to_be_visible()
    Registry(small.folder / "eps").delete("raw")


def test_deleting_shows_what_uses_it(page: Page, address: str, small: SmallRun) -> None:
    page.goto(f"{address}#/endpoints?id=mine")
    page.get_by_role("button", name="Delete …").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(str(small.config_path))
    expect(dialog).to_contain_text(small.table_path)
    expect(page.get_by_role("button", name="Delete anyway")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert Registry(small.folder / "eps").get("mine")


def test_runs_tell_what_changed(page: Page) -> None:
    page.get_by_role("link", name="Runs").click()
    runs = page.get_by_role("region", name="Runs").locator("tbody tr")
    expect(runs).to_have_count(2)
    expect(runs.first).to_contain_text("1 added, 20 changed, 1 failed")
    expect(runs.first).to_contain_text("read:")
    assert page.get_by_role("region", name="Versions").locator("tbody tr").count() >= 2
    titles = page.locator("figure h2").all_inner_texts()
    assert {"Tokens a second, run by run", "ndcg@10 of each evaluation"} <= set(titles)
    assert page.locator("figure polyline").count() == 4
    runs.first.get_by_role("link").click()
    expect(page.locator("#run")).to_contain_text("Failures by reason")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Report of this run").click()
    expect(popup.value.locator("body")).to_contain_text("documents")


@pytest.mark.parametrize("width", [360, 768, 1320])
def test_no_place_scrolls_sideways(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for place in PLACES:
        open_place(page, address, place)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place


def open_place(page: Page, address: str, place: str) -> None:
    page.goto("about:blank")
    page.goto(address + place)
    page.wait_for_load_state("networkidle")
    expect(page.locator("main")).not_to_contain_text("Loading …")
    expect(page.locator("main")).not_to_contain_text("Searching …")
    expect(page.locator("main .card:visible").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_serious_findings(page: Page, address: str, scheme: Any) -> None:
    assert AXE.is_file(), "`make clients` fetches axe-core"
    page.emulate_media(color_scheme=scheme)
    found = []
    for place in PLACES:
        open_place(page, address, place)
        page.evaluate(AXE.read_text())  # as the debugger does, past the content security policy
        results = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for violation in results["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:200] for node in violation["nodes"]]
                found.append((place, violation["id"], nodes))
    assert found == []


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    page.get_by_label("Query").focus()
    page.keyboard.type("hound")
    page.keyboard.press("Enter")
    expect(page.locator(".hit").first).to_be_visible()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.id || '')"))
    assert {"SELECT field", "INPUT filter", "INPUT k", "SUMMARY ", "A "} <= reached


def test_markup_from_outside_stays_text(page: Page, address: str) -> None:
    page.goto(f"{address}#/search?q=okapi&mode=bm25")
    expect(page.locator(".hit h3")).to_have_text(EVIL)
    expect(page.locator(".hit .snippet")).to_contain_text("onerror=")
    page.locator(".hit a").click()
    expect(page.locator(".detail h2").first).to_have_text(EVIL)
    expect(page.locator(".detail .text").last).to_contain_text("okapi <script>")
    for place in ("search", "documents", "endpoints", "runs"):
        for name in ("q", "id", "filter", "text", "field", "mode", "k", "from", "rerank", "depth"):
            page.goto("about:blank")
            page.goto(f"{address}#/{place}?{name}={EVIL.replace(' ', '%20').replace('&', '%26')}")
            page.wait_for_load_state("networkidle")
            assert page.locator("main img, main script").count() == 0
            assert "owned" not in page.title()
    page.goto(f"{address}#/endpoints?new=1")
    page.get_by_label("Id", exact=True).fill(EVIL)
    page.get_by_label("Service").select_option("hashing")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#id-error")).to_contain_text("onerror=")
    assert page.locator("main img, main script").count() == 0


def test_a_key_is_asked_for(browser: Browser, small: SmallRun) -> None:
    serving = served(create_app(open_corpus(str(small.config_path)), Door(api_key="sk-planted-4711")))
    address = next(serving)
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("textbox", name="Key").fill("wrong")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("This key was refused.")).to_be_visible()
    page.get_by_role("textbox", name="Key").fill("sk-planted-4711")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_label("Query")).to_be_visible()
    page.context.close()
    next(serving, None)
