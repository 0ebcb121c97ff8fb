"""Extraction gives back what is in a document."""

import difflib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.known_documents import WITHOUT_HEADINGS, WRITERS, known_document, pdf

from transforms.read.extract.library import UnreadableError, decode, extract, split_pages


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def share_in_order(wanted: list[str], found: list[str]) -> float:
    """How much of `wanted` stands in `found` in its order."""
    matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / len(wanted)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ending", WRITERS)
def test_words_and_headings_of_known_documents(ending, seed):
    known = known_document(seed)
    type_name, write = WRITERS[ending]
    found = extract(write(known), type_name)
    # A mail's title is a header of it.
    text = f"{found['title']} {found['text']}" if ending == "eml" else found["text"]
    assert share_in_order(words(" ".join(known.words())), words(text)) >= 0.98
    if ending not in WITHOUT_HEADINGS:
        headings = [" ".join(words(line)) for line in text.splitlines() if re.match(r"#{1,6} ", line)]
        assert [
            heading for heading in map(words, known.headings()) if " ".join(heading) not in headings
        ] == []


@pytest.mark.parametrize(
    "ending", ["pdf", "docx", "pptx", "xlsx", "odt", "odp", "ods", "epub", "rtf", "html", "eml"]
)
def test_titles_and_authors_of_known_documents(ending):
    known = known_document(5)
    type_name, write = WRITERS[ending]
    found = extract(write(known), type_name)
    assert found["title"] == known.title
    assert found["author"].startswith("Ada Writer")


@pytest.mark.parametrize("ending", ["docx", "odt", "html", "epub", "rst", "adoc", "xlsx"])
def test_tables_become_markdown_tables(ending):
    type_name, write = WRITERS[ending]
    lines = extract(write(known_document(6)), type_name)["text"].splitlines()
    assert any(re.match(r"\|\s*name\s*\|\s*place\s*\|", line) for line in lines)


@pytest.mark.parametrize("ending", ["docx", "odt", "html", "epub", "rst", "adoc", "pdf"])
def test_lists_become_markdown_lists(ending):
    known = known_document(7)
    type_name, write = WRITERS[ending]
    text = extract(write(known), type_name)["text"]
    items = [item for kind, value in known.blocks if kind == "list" for item in value]
    assert all(re.search(rf"^\s*[-*] +{item}", text, re.MULTILINE) for item in items)


@pytest.mark.parametrize(("ending", "pages"), [("pdf", 3), ("pptx", 4), ("odp", 4)])
def test_pages_are_where_their_text_begins(ending, pages):
    known = known_document(8)
    type_name, write = WRITERS[ending]
    found = extract(write(known), type_name)
    text, offsets = found["text"], found["page_offsets"]
    assert found["pages"] == len(offsets) == pages
    starts = known.headings() if pages == 4 else known.headings()[1:]
    for start, heading in zip(offsets[1:], starts, strict=True):
        assert text[start:].lstrip("# ").startswith(heading)


@pytest.mark.parametrize(
    ("encoding", "declared", "text"),
    [
        ("utf-8", "", "Grüße aus Köln"),
        ("utf-8-sig", "", "Grüße aus Köln"),
        ("utf-16", "", "Grüße aus Köln"),
        ("iso-8859-1", '<meta charset="iso-8859-1">', "Grüße aus Köln"),
        (
            "windows-1251",
            '<meta content="text/html; charset=windows-1251">',
            "Привет из Кёльна",
        ),
        ("shift_jis", '<META CHARSET="Shift_JIS">', "ケルンからこんにちは"),
    ],
)
def test_pages_in_any_encoding(encoding, declared, text):
    page = f"<html><head>{declared}<title>{text}</title></head><body><p>{text}</p></body></html>"
    found = extract(page.encode(encoding), "html")
    assert (found["title"], found["text"].strip()) == (text, text)


def test_the_encoding_of_plain_text_is_guessed():
    text = "Die Bücher über Gärten stehen früher oder später wieder in den großen Räumen. " * 5
    assert decode(text.encode("latin-1"), "text") == text


def test_scripts_styles_and_menus_are_no_text():
    page = "<html><body><nav>Menu</nav><script>alert(1)</script><style>p{}</style><p>Text</p></body></html>"
    assert extract(page.encode(), "html")["text"].strip() == "Text"


@pytest.mark.parametrize(
    ("content", "type_name", "reason"),
    [
        (b"", "pdf", "the file is empty"),
        (b"%PDF-1.4 nothing", "pdf", "cannot be read"),
        (b"PK\x03\x04 nothing", "docx", "cannot be read"),
        (b"", "encrypted office document", "empty"),
        (b"x", "encrypted office document", "encrypted"),
        (b"<html></html>", "html", "has no text"),
        (b"  \n ", "text", "has no text"),
    ],
)
def test_what_has_no_text_says_why(content, type_name, reason):
    with pytest.raises(UnreadableError, match=reason):
        extract(content, type_name)


def test_an_encrypted_pdf_says_so():
    from reportlab.lib import pdfencrypt
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas("unused", encrypt=pdfencrypt.StandardEncryption("secret"))
    canvas.drawString(100, 100, "hidden")
    with pytest.raises(UnreadableError, match="the document is encrypted"):
        extract(canvas.getpdfdata(), "pdf")


def test_a_scanned_pdf_says_so(tmp_path):
    from PIL import Image
    from reportlab.pdfgen.canvas import Canvas

    Image.new("RGB", (50, 50), "white").save(tmp_path / "page.png")
    canvas = Canvas("unused")
    canvas.drawImage(str(tmp_path / "page.png"), 0, 0)
    with pytest.raises(UnreadableError, match=r"its pages are images: set source\.extract\.ocr"):
        extract(canvas.getpdfdata(), "pdf")


def test_the_same_bytes_give_the_same_text():
    content = pdf(known_document(9))
    assert extract(content, "pdf") == extract(content, "pdf")


@given(st.lists(st.text(alphabet="ab #\n", max_size=8), min_size=1, max_size=6))
def test_page_markers_are_taken_out(pages):
    marked = "".join(f"\n\nM-{number}\n\n{page}" for number, page in enumerate(pages, 1))
    text, offsets = split_pages(marked, "M-")
    assert "M-" not in text
    assert len(offsets) == len(pages)
    assert offsets == sorted(offsets)
    for start, end, page in zip(offsets, [*offsets[1:], len(text)], pages, strict=True):
        assert text[start:end].strip() == page.strip()
