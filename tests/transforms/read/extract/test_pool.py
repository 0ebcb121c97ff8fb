"""A document that crashes, hangs or swells costs itself."""

import os
import socket
import subprocess
import sys

import pytest
from support.known_documents import known_document, pdf, zipped

from transforms.read.extract import pool
from transforms.read.extract.options import ExtractOptions
from transforms.read.extract.pool import Child, ExtractionError, Extractor, LibraryMissingError

HOSTILE = """
import ctypes, os, socket, sys, time
sys.path.insert(0, {root!r})
from transforms.read.extract import child, library
real = library.extract

def extract(content, type_name, ocr=None):
    if content == b"crash": ctypes.string_at(0)
    if content == b"exit": os._exit(7)
    if content == b"hang": time.sleep(600)
    if content == b"memory": bytearray(1 << 30)
    if content == b"output": return {{"text": "x" * 3_000_000}}
    if content == b"noise": print("not an answer"); print("nor this", file=sys.stderr)
    if content == b"connect": socket.create_connection(("127.0.0.1", 9))
    if content == b"read": open("/etc/passwd")
    if content == b"write": open("written", "w")
    if content == b"program": os.execv("/bin/true", ["true"])
    return real(content, type_name, ocr)

library.extract = extract
child.main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
"""


@pytest.fixture
def hostile(monkeypatch):
    """A child process in which some documents misbehave."""
    real = subprocess.Popen
    program = HOSTILE.format(root=os.getcwd())

    def start(arguments, **keywords):
        at = arguments.index("-m")
        return real([arguments[0], "-P", "-c", program, *arguments[at + 2 :]], **keywords)

    monkeypatch.setattr(pool.subprocess, "Popen", start)
    child = Child(ExtractOptions(seconds=2, memory_bytes=256 << 20, text_bytes=1_000_000))
    yield child
    child.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"crash", "crashed the extraction: SIGSEGV"),
        (b"exit", "crashed the extraction: exit code 7"),
        (b"hang", r"took longer than source\.extract\.seconds \[2\]"),
        (b"memory", "more memory than source.extract.memory_bytes"),
        (b"output", "bytes of text, more than source.max_document_bytes"),
    ],
)
def test_a_document_that_misbehaves_costs_itself(hostile, content, reason):
    with pytest.raises(ExtractionError, match=reason):
        hostile.extract(content, "text")
    assert hostile.extract(b"the next one", "text").fields["text"] == "the next one"


def test_what_a_library_prints_is_no_answer(hostile):
    assert hostile.extract(b"noise", "text").fields["text"] == "noise"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines a process")
@pytest.mark.parametrize("content", [b"connect", b"read", b"write", b"program"])
def test_a_document_reaches_no_network_file_or_program(hostile, content):
    with pytest.raises(ExtractionError, match="PermissionError"):
        hostile.extract(content, "text")


def test_nothing_is_fetched_while_a_page_is_read():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        page = f'<html><head><link rel=stylesheet href="{address}"></head><body><img src="{address}">'
        page += f'<iframe src="{address}"></iframe><script src="{address}"></script><p>Text</p></body></html>'
        extractor = Extractor(ExtractOptions(processes=1))
        assert "Text" in extractor.extract(page.encode(), "html").fields["text"]
        extractor.close()
        with pytest.raises(TimeoutError):
            server.accept()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "odt",
            zipped(
                ("mimetype", "application/vnd.oasis.opendocument.text"),
                (
                    "content.xml",
                    f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><office:document-content><office:body>'
                    "<office:text><text:p>&l9;</text:p></office:text></office:body></office:document-content>",
                ),
            ),
        ),
        (
            "odt",
            zipped(
                ("mimetype", "application/vnd.oasis.opendocument.text"),
                (
                    "content.xml",
                    '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><office:document-content>'
                    "<office:body><office:text><text:p>&f;</text:p></office:text></office:body>"
                    "</office:document-content>",
                ),
            ),
        ),
        (
            "docx",
            zipped(
                ("[Content_Types].xml", "<Types/>"),
                (
                    "word/document.xml",
                    b"<w:document><w:body>" + b"<w:p><w:r><w:t>a</w:t></w:r></w:p>" * 9_000_000,
                ),
            ),
        ),
    ],
    ids=["billion laughs", "external entity", "zip bomb"],
)
def test_bombs_are_defused(name, content):
    extractor = Extractor(ExtractOptions(processes=1, seconds=20, memory_bytes=256 << 20, text_bytes=1 << 20))
    try:
        text = extractor.extract(content, name).fields["text"]
        assert len(text) < 1 << 20
        assert "root:" not in text
    except ExtractionError:
        pass
    assert extractor.extract(b"still there", "text").fields["text"] == "still there"
    extractor.close()


def test_results_come_in_order_whatever_takes_long():
    extractor = Extractor(ExtractOptions(processes=2))
    contents = [pdf(known_document(1, sections=30)), *(b"%d" % number for number in range(20))]
    types = ["pdf", *["text"] * 20]
    found = extractor.ahead(
        zip(contents, types, strict=True), lambda one: extractor.extract(*one).fields["text"]
    )
    assert list(found)[1:] == [str(number) for number in range(20)]
    extractor.close()


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(pool, "_KEPT", ())
    monkeypatch.setattr(pool.sys, "path", [])
    monkeypatch.setattr(pool.sys, "executable", sys._base_executable)
    with pytest.raises(LibraryMissingError, match=r"pip install 'semantic-ingest\[documents\]'"):
        Child(ExtractOptions()).extract(b"a", "text")


def test_no_secret_reaches_a_child(monkeypatch):
    seen = {}
    real = subprocess.Popen

    def start(arguments, **keywords):
        seen.update(keywords["env"])
        return real(arguments, **keywords)

    monkeypatch.setenv("SOME_API_KEY", "secret")
    monkeypatch.setattr(pool.subprocess, "Popen", start)
    child = Child(ExtractOptions())
    child.extract(b"a", "text")
    child.close()
    assert "SOME_API_KEY" not in seen
