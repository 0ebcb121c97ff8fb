"""Types are told by content; names decide only between kinds of plain text."""

import gzip
import io
import tarfile

import pytest
from support.known_documents import WRITERS, known_document, zipped

from transforms.read.extract.content_types import content_type

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def ole(*streams: str) -> bytes:
    """An OLE2 container whose root folder has these streams, as far as its directory goes."""
    header = bytearray(512)
    header[:8] = OLE
    header[30:32] = (9).to_bytes(2, "little")
    header[48:52] = (1).to_bytes(4, "little")  # the directory begins in sector 1
    header[76:80] = (0).to_bytes(4, "little")  # sector 0 says which sector follows which
    entries = [("Root Entry", 0xFFFFFFFF, 1 if streams else 0xFFFFFFFF)]
    entries += [
        (name, place + 2 if place + 1 < len(streams) else 0xFFFFFFFF, 0xFFFFFFFF)
        for place, name in enumerate(streams)
    ]
    directory = b""
    for name, right, child in entries:
        encoded = name.encode("utf-16-le")
        entry = bytearray(128)
        entry[: len(encoded)] = encoded
        entry[64:66] = (len(encoded) + 2).to_bytes(2, "little")
        entry[68:72] = (0xFFFFFFFF).to_bytes(4, "little")
        entry[72:76] = right.to_bytes(4, "little")
        entry[76:80] = child.to_bytes(4, "little")
        directory += bytes(entry)
    table = b"\xfe\xff\xff\xff" * 128
    return bytes(header) + table + directory.ljust(512, b"\0")


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_that_is_extracted_is_recognised(ending):
    type_name, write = WRITERS[ending]
    assert content_type(write(known_document(1)), f"x.{ending}").name == type_name


@pytest.mark.parametrize(
    "ending", ["pdf", "docx", "pptx", "xlsx", "odt", "odp", "ods", "epub", "rtf", "html", "ipynb", "eml"]
)
def test_a_wrong_name_deceives_nobody(ending):
    type_name, write = WRITERS[ending]
    for name in ("x", "x.txt", "x.bin", "report.final"):
        assert content_type(write(known_document(1)), name).name == type_name


@pytest.mark.parametrize(
    ("streams", "name"),
    [
        (["WordDocument", "1Table"], "doc"),
        (["Workbook"], "xls"),
        (["WORKBOOK"], "xls"),
        (["PowerPoint Document"], "ppt"),
        (["__nameid_version1.0", "__properties_version1.0"], "msg"),
        (["EncryptionInfo", "EncryptedPackage"], "encrypted office document"),
        (["something else"], "binary"),
        ([], "binary"),
    ],
)
def test_old_office_files_are_told_by_their_streams(streams, name):
    assert content_type(ole(*streams), "x.doc").name == name


def tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as container:
        container.addfile(tarfile.TarInfo("a"))
    return target.getvalue()


@pytest.mark.parametrize(
    ("content", "file_name", "name"),
    [
        (zipped(("a.txt", "a")), "x.zip", "zip"),
        (zipped(("[Content_Types].xml", ""), ("visio/document.xml", "")), "x.vsdx", "binary"),
        (b"PK\x03\x04 cut off", "x.docx", "docx"),
        (b"PK\x03\x04 cut off", "x.zip", "zip"),
        (tar(), "x", "tar"),
        (gzip.compress(b"a", mtime=0), "x", "gzip"),
        (b"BZh91AY", "x", "bzip2"),
        (b"WARC/1.0\r\n", "x", "warc"),
        (b"From a@b Mon Jun 01 10:00:00 2009\nFrom: a\nSubject: b\n\ntext", "x", "mbox"),
        (b"From a@b Mon Jun 01 10:00:00 2009\n\ntext", "x.mbox", "mbox"),
        (b"From here it is a long way.\n", "x.txt", "text"),
        (b"Subject: not a mail\n\nbut a note", "x.txt", "text"),
        (b"Dear all,\nFrom: me\nTo: you\n", "x.txt", "text"),
        (b"\x89PNG\r\n\x1a\n", "x.pdf", "image"),
        (b"RIFF\x00\x00\x00\x00WEBP", "x", "image"),
        (b"\x00\x01\x02\x03", "x.txt", "binary"),
        ("\ufeffHello".encode("utf-16"), "x.txt", "text"),
        (b'{"a": 1}', "x.json", "json"),
        (b'{"a": 1}', "x", "json"),
        (b"<?xml version='1.0'?><feed/>", "x.xml", "xml"),
        (b"<?xml version='1.0'?><html><p>a", "x.xml", "html"),
        (b"<p>no head", "x.html", "html"),
        (b"# Not HTML\n\n<html>", "x.md", "markdown"),
        (b"a,b\n1,2\n", "x.CSV", "csv"),
        (b"", "x.pdf", "text"),
    ],
)
def test_content_before_name(content, file_name, name):
    assert content_type(content, file_name).name == name
