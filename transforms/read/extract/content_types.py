"""What a file is, by its content; its name only tells apart what is plain text (Markdown from CSV, for example).

Nothing is parsed here beyond what tells types apart: the first bytes, and the member names of a zip or OLE2 container.
"""

import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Literal

Treatment = Literal["extract", "archive", "skip"]
"""What becomes of a file: its text is extracted, its members are read, or it is counted and left out."""


@dataclass(frozen=True, slots=True)
class ContentType:
    """A type of file.

    Attributes:
        name: what people call it: ``pdf``, ``docx``, ``html``.
        mime: its media type.
        treatment: what becomes of such a file.
        paged: whether its pages (slides) can be told apart.
    """

    name: str
    mime: str
    treatment: Treatment = "extract"
    paged: bool = False


_OOXML = "application/vnd.openxmlformats-officedocument"
_ODF = "application/vnd.oasis.opendocument"

TYPES = {
    type_.name: type_
    for type_ in (
        ContentType("pdf", "application/pdf", paged=True),
        ContentType("docx", f"{_OOXML}.wordprocessingml.document"),
        ContentType("pptx", f"{_OOXML}.presentationml.presentation", paged=True),
        ContentType("xlsx", f"{_OOXML}.spreadsheetml.sheet"),
        ContentType("xlsb", "application/vnd.ms-excel.sheet.binary.macroEnabled.12"),
        ContentType("doc", "application/msword"),
        ContentType("ppt", "application/vnd.ms-powerpoint", paged=True),
        ContentType("xls", "application/vnd.ms-excel"),
        ContentType("msg", "application/vnd.ms-outlook"),
        ContentType("odt", f"{_ODF}.text"),
        ContentType("odp", f"{_ODF}.presentation", paged=True),
        ContentType("ods", f"{_ODF}.spreadsheet"),
        ContentType("epub", "application/epub+zip"),
        ContentType("rtf", "application/rtf"),
        ContentType("html", "text/html"),
        ContentType("email", "message/rfc822"),
        ContentType("notebook", "application/x-ipynb+json"),
        ContentType("markdown", "text/markdown"),
        ContentType("rst", "text/x-rst"),
        ContentType("asciidoc", "text/asciidoc"),
        ContentType("csv", "text/csv"),
        ContentType("tsv", "text/tab-separated-values"),
        ContentType("text", "text/plain"),
        ContentType("image", "image/*"),
        ContentType("mbox", "application/mbox", "archive"),
        ContentType("zip", "application/zip", "archive"),
        ContentType("tar", "application/x-tar", "archive"),
        ContentType("gzip", "application/gzip", "archive"),
        ContentType("bzip2", "application/x-bzip2", "archive"),
        ContentType("zstd", "application/zstd", "archive"),
        ContentType("warc", "application/warc", "archive"),
        ContentType("encrypted office document", "application/encrypted"),
        ContentType("json", "application/json", "skip"),
        ContentType("xml", "application/xml", "skip"),
        ContentType("binary", "application/octet-stream", "skip"),
    )
}
"""Name -> type."""

_MAGIC = (
    (b"{\\rtf", "rtf"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"WARC/", "warc"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
    (b"BM", "image"),
)

_ENDINGS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".adoc": "asciidoc",
    ".asciidoc": "asciidoc",
    ".csv": "csv",
    ".tsv": "tsv",
    ".eml": "email",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}

_OPEN_DOCUMENTS = (("text", "odt"), ("presentation", "odp"), ("spreadsheet", "ods"))

_PACKAGES = (("word/", "docx"), ("ppt/", "pptx"), ("xl/workbook.bin", "xlsb"), ("xl/", "xlsx"))

_DAMAGED_PACKAGES = {f".{name}": name for name in ("docx", "pptx", "xlsx", "odt", "odp", "ods", "epub")}
"""What a zip file is meant to be whose content does not tell any more; extraction will say what is wrong."""

_DOCUMENT_ENDINGS = {
    *_DAMAGED_PACKAGES,
    ".pdf",
    ".doc",
    ".ppt",
    ".xls",
    ".rtf",
    ".msg",
    ".ipynb",
    ".txt",
    ".text",
}

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What reading a damaged zip file raises."""

_OLE_STREAMS = (
    ("EncryptedPackage", "encrypted office document"),
    ("WordDocument", "doc"),
    ("PowerPoint Document", "ppt"),
    ("Workbook", "xls"),
    ("Book", "xls"),
    ("__properties_version1.0", "msg"),
)

_HTML = re.compile(rb"<(!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_MAIL_HEADER = re.compile(
    rb"^(received|from|to|subject|date|message-id|return-path|delivered-to|mime-version|x-[\w-]+):",
    re.IGNORECASE,
)
_HEADER = re.compile(rb"^[!-9;-~]+:|^[ \t]")

HEAD = 8192
"""Bytes that are enough to tell every type but those of containers."""


def is_called_document(name: str) -> bool:
    """Whether a file's name says that it is of a type that is extracted."""
    ending = os.path.splitext(name.lower())[1]
    return (
        ending in _DOCUMENT_ENDINGS
        or TYPES.get(_ENDINGS.get(ending, ""), TYPES["binary"]).treatment == "extract"
    )


def content_type(content: bytes, name: str) -> ContentType:
    """Tell what a file is.

    Args:
        content: the whole file; the end of a zip file tells what it holds.
        name: its name; its ending is looked at only for plain text.
    """
    return TYPES[_type_name(content, name)]


def _type_name(content: bytes, name: str) -> str:
    head = content[:HEAD]
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        found = _zip_type(content)
        return _DAMAGED_PACKAGES.get(os.path.splitext(name.lower())[1], found) if found == "zip" else found
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _ole_type(content)
    for magic, meant in _MAGIC:
        if head.startswith(magic):
            return meant
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    return _text_type(head, name)


def _zip_type(content: bytes) -> str:
    """A zip file is an Office or OpenDocument file, an EPUB, or an archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as container:
            names = set(container.namelist())
            if "mimetype" in names:
                kind = _start(container, "mimetype").decode("ascii", "replace").strip()
                if kind == "application/epub+zip":
                    return "epub"
                for part, found in _OPEN_DOCUMENTS:
                    if kind.startswith(f"{_ODF}.{part}"):
                        return found
                if kind.startswith(_ODF):
                    return "binary"
            if "[Content_Types].xml" in names:
                parts = {part.lower() for part in names}
                return next(
                    (found for start, found in _PACKAGES if any(part.startswith(start) for part in parts)),
                    "binary",
                )
            if "META-INF/container.xml" in names:
                return "epub"
    except DAMAGE:
        pass
    return "zip"


def _start(container: zipfile.ZipFile, name: str) -> bytes:
    with container.open(name) as member:
        return member.read(1 << 18)


def _ole_type(content: bytes) -> str:
    """The type of an OLE2 container (Office 97, Outlook) by the streams in its root folder, not in embedded ones."""
    names = {name.lower() for name in _root_streams(content)}
    return next((found for stream, found in _OLE_STREAMS if stream.lower() in names), "binary")


def _root_streams(content: bytes) -> set[str]:
    """Names in the root folder of an OLE2 container: a tree of directory entries of 128 bytes ([MS-CFB] 2.6)."""
    directory = _directory(content)
    names: set[str] = set()
    waiting, seen = [_number(directory, 76)], set[int]()
    while waiting:
        number = waiting.pop()
        entry = directory[number * 128 : (number + 1) * 128]
        if number in seen or len(entry) < 128:
            continue
        seen.add(number)
        size = min(int.from_bytes(entry[64:66], "little"), 64)
        names.add(entry[: max(0, size - 2)].decode("utf-16-le", "replace"))
        waiting += [_number(entry, 68), _number(entry, 72)]
    return names


def _directory(content: bytes) -> bytes:
    """The sectors of an OLE2 directory, joined; the table of sectors says which one follows which."""
    size = 1 << min(int.from_bytes(content[30:32], "little"), 16)
    sectors: dict[int, bytes] = {}
    sector = _number(content, 48)
    while sector not in sectors and (sector + 1) * size < len(content) and len(sectors) < 4096:
        sectors[sector] = content[(sector + 1) * size : (sector + 2) * size]
        table, place = divmod(sector * 4, size)
        if table >= 109:
            break  # the table of this sector is itself listed elsewhere: a file of 7 MB and more
        sector = _number(content, (_number(content, 76 + table * 4) + 1) * size + place)
    return b"".join(sectors.values())


def _number(content: bytes, start: int) -> int:
    return int.from_bytes(content[start : start + 4], "little")


def _text_type(head: bytes, name: str) -> str:
    ending = os.path.splitext(name.lower())[1]
    plain = _without_nuls(head)
    if plain is None:
        return "binary"
    start = plain.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"From ") and (ending == ".mbox" or _is_mail(start.partition(b"\n")[2])):
        return "mbox"
    if _ENDINGS.get(ending) in (None, "email", "html"):
        if _is_mail(start):
            return "email"
        if _HTML.search(start[:2048]) and start.startswith(b"<"):
            return "html"
        if start.startswith(b"<?xml"):
            return "html" if b"<html" in start[:2048] else "xml"
    if start[:1] in (b"{", b"["):
        if (b'"cells"' in plain and b'"cell_type"' in plain) or ending == ".ipynb":
            return "notebook"
        if ending in ("", ".json", ".jsonl", ".ndjson"):
            return "json"
    return _ENDINGS.get(ending, "text")


def _without_nuls(head: bytes) -> bytes | None:
    """The text's bytes, UTF-16 made ASCII where it is that; None where it is no text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[: len(head) & ~1].decode("utf-16", "replace").encode("utf-8", "replace")
    if b"\x00" in head:
        return None
    controls = sum(byte < 32 and byte not in (9, 10, 12, 13, 27) for byte in head)
    return head if controls * 50 <= len(head) else None


def _is_mail(start: bytes) -> bool:
    """Whether a text begins with at least two headers of a mail, of which one is well known."""
    lines = start.splitlines()[:40]
    headers = []
    for line in lines:
        if not line.strip():
            break
        if not _HEADER.match(line):
            return False
        headers.append(line)
    return len(headers) >= 2 and sum(bool(_MAIL_HEADER.match(line)) for line in headers) >= 2
