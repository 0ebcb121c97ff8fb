"""The extraction library, xberg: a document's bytes in, Markdown and metadata out. Runs in child processes only.

What it does not do well is done here: bytes that are not UTF-8, the head of an HTML page, mails and slides. Text
and Markdown pass through unchanged.
"""

import asyncio
import re
import uuid
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from transforms.read.extract.content_types import TYPES, ContentType
from transforms.read.extract.mail import mail_fields
from transforms.read.extract.slides import slides

LIBRARY = "xberg"

MAX_DEPTH = 3
"""Mails attached to mails attached to mails, and no deeper."""

_TEXTUAL = ("html", "markdown", "rst", "asciidoc", "csv", "tsv", "text", "notebook")
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?)?)?$")
_NO_VALUE = ("", "(anonymous)", "(unspecified)", "untitled")
_BULLET = re.compile("\\s*[\x7f\u2022\u25aa\u25e6\u2023\uf0b7]\\s+")
_INLINE = re.compile(r"!\[([^\]\n]*)\]\(<?data:[^)\s]*>?\)")
"""An image that is written out in the text itself."""

_UNBOUNDED = 10**8


class UnreadableError(ValueError):
    """A document that has no text to be had, with the reason."""


def library_version() -> str:
    """Name and version of the extraction library; only the name where it is not installed."""
    try:
        return f"{LIBRARY} {version(LIBRARY)}"
    except PackageNotFoundError:
        return LIBRARY


def extract(content: bytes, type_name: str, ocr: str | None = None, *, depth: int = 0) -> dict[str, Any]:
    """Extract one document.

    Args:
        content: its bytes.
        type_name: its type, a key of ``content_types.TYPES``.
        ocr: language of scanned pages and images; None reads no images.
        depth: mails that it is attached to.

    Returns:
        ``text``, and as far as it is known ``title``, ``author``, ``created``, ``modified``, ``language``, ``pages``
        and ``page_offsets``, where each page starts in the text, in code points.

    Raises:
        UnreadableError: it is empty, encrypted, damaged, or without any text.
    """
    if not content:
        raise UnreadableError("the file is empty")
    type_ = TYPES[type_name]
    if type_name == "encrypted office document":
        raise UnreadableError("the document is encrypted: it opens with a password only")
    if type_name in _TEXTUAL:
        content = decode(content, type_name).encode("utf-8", "replace")
    if type_name in ("text", "markdown"):
        found: dict[str, Any] = {"text": content.decode("utf-8")}
    elif type_name == "email":
        found = _mail(content, ocr, depth)
    else:
        found = _by_library(content, type_, ocr)
    if type_name == "html":
        found |= _head_of_page(content.decode("utf-8"))
    found["text"] = _INLINE.sub(r"\1", found["text"])
    if not found["text"].strip():
        scanned = "; its pages are images: set source.extract.ocr" if type_name == "pdf" and not ocr else ""
        raise UnreadableError(f"the document has no text{scanned}")
    return found


def _mail(content: bytes, ocr: str | None, depth: int) -> dict[str, Any]:
    """A mail and what is attached to it, mails that are attached to it included, three deep."""

    def attached(inner: bytes, type_name: str) -> dict[str, Any]:
        if depth >= MAX_DEPTH:
            raise UnreadableError(f"mails are attached to each other more than {MAX_DEPTH} deep")
        return extract(inner, type_name, ocr, depth=depth + 1)

    return mail_fields(content, attached, UnreadableError)


def decode(content: bytes, type_name: str) -> str:
    """The text of a file: UTF-8, what a byte order mark or an HTML page says, else the most likely encoding.

    Raises:
        UnreadableError: no encoding fits.
    """
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    declared = re.search(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)", content[:4096], re.IGNORECASE)
    if type_name == "html" and declared:
        try:
            return content.decode(declared.group(1).decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass
    from charset_normalizer import from_bytes

    # Every second kilobyte of a large file would do, but a wrong guess costs more than a slow one.
    best = from_bytes(content[: 1 << 20]).best()
    if best is None:
        raise UnreadableError("the file's encoding cannot be told; convert it to UTF-8")
    return content.decode(best.encoding, "replace")


@cache
def _library() -> Any:
    import xberg

    return xberg


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _by_library(content: bytes, type_: ContentType, ocr: str | None) -> dict[str, Any]:
    marker = f"page-{uuid.uuid4().hex}-"
    library = _library()
    source = library.ExtractInput(kind="bytes", bytes=content, mime_type=_mime(content, type_))
    try:
        result = _loop().run_until_complete(library.extract(source, _config(type_, marker, ocr)))
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableError(_reason(str(error))) from None
    if not result.results:
        raise UnreadableError(_reason("; ".join(error.message for error in result.errors) or "nothing in it"))
    document = result.results[0]
    found = _metadata(document)
    if not type_.paged:
        return found | {"text": document.content}
    text, offsets = split_pages(_marked(document, content, type_.name, marker), marker)
    return found | {"text": text} | ({"pages": len(offsets), "page_offsets": offsets} if offsets else {})


def _marked(document: Any, content: bytes, type_name: str, marker: str) -> str:
    """The text with a marker before each page; only for PDF does the library set them all."""
    if type_name == "pdf":
        # Bullets are characters of symbol fonts; here they begin the items of a list again.
        return _BULLET.sub("\n- ", document.content)
    pages = slides(content) if type_name == "odp" else [page.content for page in document.pages or []]
    if not pages:
        return str(document.content)
    return "".join(f"\n\n{marker}{number}\n\n{page}" for number, page in enumerate(pages, 1))


def _mime(content: bytes, type_: ContentType) -> str:
    if type_.name != "image":
        return type_.mime
    for magic, mime in ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif")):
        if content.startswith(magic):
            return mime
    return "image/webp" if content[:4] == b"RIFF" else "image/bmp" if content[:2] == b"BM" else "image/tiff"


def _config(type_: ContentType, marker: str, ocr: str | None) -> Any:
    library = _library()
    pages = library.PageConfig(
        extract_pages=type_.paged,
        insert_page_markers=type_.paged,
        marker_format=f"\n\n{marker}{{page_num}}\n\n",
    )
    preprocessing = library.PreprocessingOptions(remove_navigation=False, remove_forms=False)
    return library.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        disable_ocr=ocr is None,
        ocr=library.OcrConfig(backend="tesseract", language=ocr.split("+")) if ocr else None,
        output_format="markdown",
        escape_markdown=False,
        pages=pages,
        content_filter=library.ContentFilterConfig(include_footnotes=True, strip_repeating_text=False),
        html_options=library.ConversionOptions(
            extract_metadata=False,
            preprocessing=preprocessing,
            exclude_selectors=["nav", "noscript", "template"],
        ),
        language_detection=library.LanguageDetectionConfig(enabled=True),
        # One thread: the processes keep the cores busy. Bounds on memory, time and output are ours.
        concurrency=library.ConcurrencyConfig(max_threads=1),
        security_limits=library.SecurityLimits(
            max_compression_ratio=_UNBOUNDED, max_table_cells=_UNBOUNDED, max_files_in_archive=_UNBOUNDED
        ),
    )


def split_pages(text: str, marker: str) -> tuple[str, list[int]]:
    """Take the page markers out of a text.

    Returns:
        The text, and where each page starts in it; a page without text starts where the next one does.
    """
    pieces = re.split(rf"\s*{marker}(\d+)\s*", text)
    if len(pieces) == 1:
        return text, []
    starts: dict[int, int] = {}
    parts = [pieces[0]] if pieces[0].strip() else []
    length = len(pieces[0]) if parts else 0
    for number, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        gap = 2 if length and piece else 0
        starts.setdefault(int(number), length + gap)
        if piece:
            parts.append(piece)
            length += gap + len(piece)
    offsets, at = [0] * max(starts), length
    for page in range(len(offsets), 0, -1):
        at = offsets[page - 1] = min(at, starts.get(page, at))
    if parts and offsets[0] != 0:
        offsets[0] = 0
    return "\n\n".join(parts), offsets


def _metadata(document: Any) -> dict[str, Any]:
    metadata = document.metadata
    authors = [one for one in map(_known, metadata.authors or [metadata.created_by]) if one]
    detected = document.detected_languages or []
    found = {
        "title": _known(metadata.title)
        or _known(metadata.subject if "message_id" in metadata.additional else None),
        "author": authors[0] if len(authors) == 1 else authors or None,
        "created": _date(metadata.created_at),
        "modified": _date(metadata.modified_at),
        "language": metadata.language or (detected[0] if detected else None),
    }
    return {name: value for name, value in found.items() if value is not None}


def _known(value: str | None) -> str | None:
    """A value of a document's metadata, without the ones that only say that there is none."""
    text = " ".join((value or "").split())
    return None if text.lower() in _NO_VALUE else text


def _date(value: str | None) -> str | None:
    return value if value and _DATE.match(value) else None


def _reason(message: str) -> str:
    """The library's reason, in one sentence."""
    message = re.sub(r"^(Parsing error|Security violation|Validation error): ", "", " ".join(message.split()))
    if re.search(r"encrypt|password", message, re.IGNORECASE):
        return f"the document is encrypted: {message.partition(';')[0]}"
    return f"the document cannot be read: {message}"[:500]


_META = {
    "author": "author",
    "date": "created",
    "dcterms.created": "created",
    "article:published_time": "created",
    "dcterms.modified": "modified",
    "article:modified_time": "modified",
}


class _Head(HTMLParser):
    """Reads title, author, dates and language of an HTML page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, str] = {}
        self._in_title = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        values = {name: value or "" for name, value in attributes}
        if tag == "html" and values.get("lang"):
            self.found["language"] = values["lang"]
        elif tag == "title":
            self._in_title = "title" not in self.found
        elif tag == "meta":
            name = _META.get((values.get("name") or values.get("property") or "").lower())
            value = _known(values.get("content"))
            if name and value and (name == "author" or _date(value)):
                self.found.setdefault(name, value)

    def handle_endtag(self, tag: str) -> None:
        """Leave the title."""
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        """Collect the title."""
        if self._in_title:
            self.found["title"] = self.found.get("title", "") + data


def _head_of_page(page: str) -> dict[str, Any]:
    head = _Head()
    head.feed(page[: 1 << 18])
    if "title" in head.found:
        title = _known(head.found.pop("title"))
        if title:
            head.found["title"] = title
    return dict(head.found)
