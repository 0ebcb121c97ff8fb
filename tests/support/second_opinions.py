"""A second, simpler extractor for each format, to hold the first one against: words only."""

import email.policy
import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from email.parser import BytesParser
from html.parser import HTMLParser
from xml.etree import ElementTree


def words(text: str) -> Counter[str]:
    """The words of a text and how often each occurs, without what only marks Markdown up."""
    return Counter(re.findall(r"[^\W_]+", text.lower()))


def recall(wanted: Counter[str], found: Counter[str]) -> float:
    """Share of the wanted words that were found."""
    return (wanted & found).total() / max(1, wanted.total())


def pdf(content: bytes) -> str:
    import pypdfium2

    return "\n".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(content))


def docx(content: bytes) -> str:
    import docx

    document = docx.Document(io.BytesIO(content))
    paragraphs = [paragraph.text for paragraph in document.paragraphs]
    cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
    return "\n".join(paragraphs + list(dict.fromkeys(cells)))


def pptx(content: bytes) -> str:
    from pptx import Presentation

    shapes = [shape for slide in Presentation(io.BytesIO(content)).slides for shape in slide.shapes]
    return "\n".join(shape.text_frame.text for shape in shapes if shape.has_text_frame)


def xlsx(content: bytes) -> str:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    cells = (cell for sheet in book.worksheets for row in sheet.iter_rows(values_only=True) for cell in row)
    return " ".join(cell for cell in cells if isinstance(cell, str))


def open_document(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as container:
        root = ElementTree.fromstring(container.read("content.xml"))
    ends = ("}p", "}h")
    return "\n".join("".join(one.itertext()) for one in root.iter() if one.tag.endswith(ends))


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.hidden += tag in ("script", "style", "head", "nav", "noscript", "template")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style", "head", "nav", "noscript", "template") and self.hidden > 0

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def html(content: bytes) -> str:
    parser = _Text()
    parser.feed(content.decode("utf-8", "replace"))
    return " ".join(parser.parts)


def epub(content: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(content)) as container:
        pages = [container.read(name) for name in container.namelist() if name.endswith((".xhtml", ".html"))]
    return " ".join(map(html, pages))


def rtf(content: bytes) -> str:
    from striprtf.striprtf import rtf_to_text

    return rtf_to_text(content.decode("latin-1"), errors="replace")


def mail(content: bytes) -> str:
    message = BytesParser(policy=email.policy.default).parsebytes(content)
    body = message.get_body(("html", "plain"))
    text = body.get_content() if body is not None else ""
    return html(text.encode()) if body is not None and body.get_content_subtype() == "html" else text


def plain(content: bytes) -> str:
    return content.decode("utf-8", "replace")


SECOND_OPINIONS: dict[str, Callable[[bytes], str]] = {
    "pdf": pdf,
    "docx": docx,
    "pptx": pptx,
    "xlsx": xlsx,
    "odt": open_document,
    "odp": open_document,
    "ods": open_document,
    "epub": epub,
    "html": html,
    "rtf": rtf,
    "eml": mail,
    "rst": plain,
    "md": plain,
    "csv": plain,
    "txt": plain,
}
"""Ending -> another way to its text."""
