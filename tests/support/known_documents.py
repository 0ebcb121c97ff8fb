"""Documents whose content is known, in every format that is extracted: what extraction must give back."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

WORDS = (
    *(
        "harbour",
        "lantern",
        "granite",
        "meadow",
        "copper",
        "violin",
        "orchard",
        "glacier",
        "pepper",
        "saddle",
    ),
    *("thunder", "marble", "canyon", "ribbon", "falcon", "timber", "velvet", "anchor", "cinder", "willow"),
    *("basket", "compass", "mirror", "pebble", "quarry", "rocket", "saffron", "tunnel", "umbrella", "walnut"),
)


@dataclass(frozen=True)
class Known:
    """What is in a document.

    Attributes:
        title: its title.
        blocks: (kind, value) in order; a kind is ``heading``, ``text``, ``list`` or ``table``.
    """

    title: str
    blocks: tuple[tuple[str, object], ...]

    def words(self) -> list[str]:
        """All words in order."""
        parts = [self.title]
        for kind, value in self.blocks:
            if kind in ("heading", "text"):
                parts.append(str(value))
            elif kind == "list":
                parts += value
            else:
                parts += [" ".join(row) for row in value]
        return " ".join(parts).split()

    def headings(self) -> list[str]:
        """Its headings."""
        return [str(value) for kind, value in self.blocks if kind == "heading"]


def known_document(seed: int, sections: int = 3) -> Known:
    """A document of sections with two paragraphs, a list and a table each."""
    draw = random.Random(seed)

    def some(count: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(count))

    blocks: list[tuple[str, object]] = []
    for number in range(sections):
        blocks += [
            ("heading", f"Section {number} {some(3)}"),
            ("text", f"{some(30).capitalize()}. {some(25).capitalize()}."),
            ("list", [some(4) for _ in range(3)]),
            ("text", f"{some(40).capitalize()}."),
            ("table", [["name", "place"], *([some(1), some(2)] for _ in range(3))]),
        ]
    return Known(f"Report {seed} of {some(3)}", tuple(blocks))


def to_html(known: Known, *, body_only: bool = False) -> str:
    """As an HTML page, or what stands in its body."""
    parts = [f"<h1>{escape(known.title)}</h1>"]
    for kind, value in known.blocks:
        if kind == "heading":
            parts.append(f"<h2>{value}</h2>")
        elif kind == "text":
            parts.append(f"<p>{value}</p>")
        elif kind == "list":
            parts.append("<ul>" + "".join(f"<li>{item}</li>" for item in value) + "</ul>")
        else:
            rows = ["".join(f"<td>{cell}</td>" for cell in row) for row in value]
            parts.append("<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>")
    body = "\n".join(parts)
    head = (
        f'<title>{escape(known.title)}</title><meta name="author" content="Ada Writer"><style>p {{}}</style>'
    )
    return (
        body if body_only else f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>'
    )


def html(known: Known) -> bytes:
    return to_html(known).encode()


def docx(known: Known) -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.title, document.core_properties.author = known.title, "Ada Writer"
    document.add_heading(known.title, 0)
    for kind, value in known.blocks:
        if kind == "heading":
            document.add_heading(value, 1)
        elif kind == "text":
            document.add_paragraph(value)
        elif kind == "list":
            for item in value:
                document.add_paragraph(item, style="List Bullet")
        else:
            table = document.add_table(len(value), len(value[0]))
            for row, cells in zip(table.rows, value, strict=True):
                for cell, text in zip(row.cells, cells, strict=True):
                    cell.text = text
    return _saved(document.save)


def pptx(known: Known) -> bytes:
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    deck.core_properties.title, deck.core_properties.author = known.title, "Ada Writer"
    slide = deck.slides.add_slide(deck.slide_layouts[0])
    slide.shapes.title.text = known.title
    for kind, value in known.blocks:
        if kind == "heading":
            slide = deck.slides.add_slide(deck.slide_layouts[1])
            slide.shapes.title.text = value
            frame = slide.placeholders[1].text_frame
        elif kind == "table":
            shape = slide.shapes.add_table(len(value), len(value[0]), *map(Inches, (1, 6, 6, 1)))
            for row, cells in zip(shape.table.rows, value, strict=True):
                for cell, text in zip(row.cells, cells, strict=True):
                    cell.text = text
        else:
            for text in value if kind == "list" else [value]:
                paragraph = frame.paragraphs[0] if not frame.text else frame.add_paragraph()
                paragraph.text = text
    return _saved(deck.save)


def xlsx(known: Known) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.properties.title, book.properties.creator = known.title, "Ada Writer"
    sheet = book.active
    sheet.title = "Sheet"
    for row in sheet_rows(known):
        sheet.append(row)
    return _saved(book.save)


def sheet_rows(known: Known) -> list[list[str]]:
    """A document as the rows of a sheet."""
    rows = [[known.title]]
    for kind, value in known.blocks:
        rows += (
            [[value]]
            if kind in ("heading", "text")
            else [[item] for item in value]
            if kind == "list"
            else value
        )
    return rows


def pdf(known: Known) -> bytes:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import ListFlowable, PageBreak, Paragraph, SimpleDocTemplate, Table

    styles = getSampleStyleSheet()
    flow = [Paragraph(known.title, styles["Title"])]
    for kind, value in known.blocks:
        if kind == "heading":
            if value.startswith("Section") and not value.startswith("Section 0"):
                flow.append(PageBreak())
            flow.append(Paragraph(value, styles["Heading1"]))
        elif kind == "text":
            flow.append(Paragraph(value, styles["BodyText"]))
        elif kind == "list":
            items = [Paragraph(item, styles["BodyText"]) for item in value]
            flow.append(ListFlowable(items, bulletType="bullet"))
        else:
            flow.append(Table(value))
    target = io.BytesIO()
    SimpleDocTemplate(target, title=known.title, author="Ada Writer", invariant=1).build(flow)
    return target.getvalue()


def rtf(known: Known) -> bytes:
    lines = [
        r"{\rtf1\ansi\deff0{\fonttbl{\f0 Times;}}{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}}"
    ]
    lines.append(rf"{{\info{{\title {known.title}}}{{\author Ada Writer}}}}")
    lines.append(rf"\pard\s1\outlinelevel0\b {known.title}\b0\par")
    for kind, value in known.blocks:
        if kind == "heading":
            lines.append(rf"\pard\s1\outlinelevel0\b {value}\b0\par")
        else:
            texts = (
                [value] if kind == "text" else value if kind == "list" else [" ".join(row) for row in value]
            )
            lines += [rf"\pard\s0 {text}\par" for text in texts]
    return ("\n".join(lines) + "}").encode("ascii")


_ODF = "application/vnd.oasis.opendocument"
_NAMES = " ".join(
    f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{long}:1.0"'
    for short, long in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
        ("meta", "meta"),
        ("presentation", "presentation"),
    )
)


def _open_document(kind: str, body: str, known: Known) -> bytes:
    meta = (
        f'<office:document-meta {_NAMES} xmlns:dc="http://purl.org/dc/elements/1.1/"><office:meta>'
        f"<dc:title>{known.title}</dc:title><dc:creator>Ada Writer</dc:creator></office:meta></office:document-meta>"
    )
    content = f"<office:document-content {_NAMES}><office:body>{body}</office:body></office:document-content>"
    manifest = '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
    return zipped(
        ("mimetype", f"{_ODF}.{kind}"),
        ("content.xml", f'<?xml version="1.0"?>{content}'),
        ("meta.xml", f'<?xml version="1.0"?>{meta}'),
        ("META-INF/manifest.xml", manifest),
    )


def _odf_table(rows: list[list[str]]) -> str:
    cells = [
        "".join(
            f"<table:table-cell office:value-type='string'><text:p>{cell}</text:p></table:table-cell>"
            for cell in row
        )
        for row in rows
    ]
    joined = "".join(f"<table:table-row>{row}</table:table-row>" for row in cells)
    return f'<table:table table:name="Sheet">{joined}</table:table>'


def odt(known: Known) -> bytes:
    parts = [f'<text:h text:outline-level="1">{known.title}</text:h>']
    for kind, value in known.blocks:
        if kind == "heading":
            parts.append(f'<text:h text:outline-level="2">{value}</text:h>')
        elif kind == "text":
            parts.append(f"<text:p>{value}</text:p>")
        elif kind == "list":
            items = "".join(f"<text:list-item><text:p>{item}</text:p></text:list-item>" for item in value)
            parts.append(f"<text:list>{items}</text:list>")
        else:
            parts.append(_odf_table(value))
    return _open_document("text", f"<office:text>{''.join(parts)}</office:text>", known)


def ods(known: Known) -> bytes:
    return _open_document(
        "spreadsheet", f"<office:spreadsheet>{_odf_table(sheet_rows(known))}</office:spreadsheet>", known
    )


def odp(known: Known) -> bytes:
    def frame(kind: str, *texts: str) -> str:
        paragraphs = "".join(f"<text:p>{text}</text:p>" for text in texts)
        return f'<draw:frame presentation:class="{kind}"><draw:text-box>{paragraphs}</draw:text-box></draw:frame>'

    slides = [[frame("title", known.title)]]
    for kind, value in known.blocks:
        if kind == "heading":
            slides.append([frame("title", value)])
        else:
            texts = (
                [value] if kind == "text" else value if kind == "list" else [" ".join(row) for row in value]
            )
            slides[-1].append(frame("outline", *texts))
    pages = "".join(
        f'<draw:page draw:name="page{n}">{"".join(s)}</draw:page>' for n, s in enumerate(slides, 1)
    )
    return _open_document("presentation", f"<office:presentation>{pages}</office:presentation>", known)


def epub(known: Known) -> bytes:
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="i">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="i">x</dc:identifier>'
        f"<dc:title>{known.title}</dc:title><dc:creator>Ada Writer</dc:creator><dc:language>en</dc:language></metadata>"
        '<manifest><item id="c" href="c.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="c"/></spine></package>'
    )
    container = (
        '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="c.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    page = f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{to_html(known, body_only=True)}</body></html>'
    return zipped(
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", container),
        ("c.opf", package),
        ("c.xhtml", page),
    )


def _marked(
    known: Known, title: str, heading: str, item: str, row: Callable[[list[list[str]]], str]
) -> bytes:
    parts = [title.format(known.title, line="=" * len(known.title))]
    for kind, value in known.blocks:
        if kind == "heading":
            parts.append(heading.format(value, line="-" * len(str(value))))
        elif kind == "text":
            parts.append(str(value))
        elif kind == "list":
            parts.append("\n".join(item.format(one) for one in value))
        else:
            parts.append(row(value))
    return "\n\n".join(parts).encode() + b"\n"


def markdown(known: Known) -> bytes:
    def table(rows: list[list[str]]) -> str:
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "| --- | --- |", *lines[1:]])

    return _marked(known, "# {}", "## {}", "- {}", table)


def rst(known: Known) -> bytes:
    def table(rows: list[list[str]]) -> str:
        rule = f"{'=' * 20}  {'=' * 30}"
        lines = [f"{row[0]:<20}  {row[1]}" for row in rows]
        return "\n".join([rule, lines[0], rule, *lines[1:], rule])

    return _marked(known, "{}\n{line}", "{}\n{line}", "- {}", table)


def asciidoc(known: Known) -> bytes:
    def table(rows: list[list[str]]) -> str:
        return "\n".join(["|===", *(" ".join(f"|{cell}" for cell in row) for row in rows), "|==="])

    return _marked(known, "= {}", "== {}", "* {}", table)


def text(known: Known) -> bytes:
    return _marked(known, "{}", "{}", "{}", lambda rows: "\n".join(" ".join(row) for row in rows))


def csv(known: Known) -> bytes:
    width = max(map(len, sheet_rows(known)))
    rows = [[*row, *[""] * (width - len(row))] for row in sheet_rows(known)]
    return "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows).encode()


def notebook(known: Known) -> bytes:
    source = markdown(known).decode()
    cells = [{"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def email(known: Known) -> bytes:
    from email.message import EmailMessage

    message = EmailMessage()
    message["Subject"], message["From"] = known.title, "Ada Writer <ada@example.org>"
    message["To"], message["Date"] = "bob@example.org", "Mon, 02 Mar 2020 10:00:00 +0000"
    message["Message-ID"] = "<one@example.org>"
    message.set_content(text(Known("", known.blocks)).decode())
    return bytes(message)


def zipped(*members: tuple[str, str | bytes]) -> bytes:
    """A zip file of these members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in members:
            container.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _saved(save: Callable[[io.BytesIO], None]) -> bytes:
    target = io.BytesIO()
    save(target)
    return target.getvalue()


WRITERS: dict[str, tuple[str, Callable[[Known], bytes]]] = {
    "pdf": ("pdf", pdf),
    "docx": ("docx", docx),
    "pptx": ("pptx", pptx),
    "xlsx": ("xlsx", xlsx),
    "odt": ("odt", odt),
    "odp": ("odp", odp),
    "ods": ("ods", ods),
    "epub": ("epub", epub),
    "rtf": ("rtf", rtf),
    "html": ("html", html),
    "md": ("markdown", markdown),
    "rst": ("rst", rst),
    "adoc": ("asciidoc", asciidoc),
    "txt": ("text", text),
    "csv": ("csv", csv),
    "ipynb": ("notebook", notebook),
    "eml": ("email", email),
}
"""Ending -> type, and what writes a known document in it."""

WITHOUT_HEADINGS = ("xlsx", "ods", "csv", "txt", "eml")
"""Endings of formats that know no headings."""
