"""Archives: members by their paths, and everything that can be wrong with them."""

import bz2
import gzip
import io
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.known_documents import zipped
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from transforms.read import archives
from transforms.read.archives import members
from transforms.read.documents import read_documents
from transforms.read.rows.readers import SourceFormat
from transforms.read.splits import list_source
from transforms.records import Document, Failure

ENTRIES = (("a/one.txt", b"first"), ("b.txt", b"second"))


def tarred(*entries: tuple[str, bytes], links: bool = False) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as container:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            container.addfile(info, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE) if links else ():
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, "/etc/passwd"
            container.addfile(info)
    return target.getvalue()


def read(content: bytes, type_name: str, name: str = "x", limit: int = 1000):
    found = members(io.BytesIO(content), type_name, name, len(content), limit)
    return [(one.name, one.content if one.problem is None else one.problem) for one in found]


PACKED = {
    "zip": ("zip", zipped(*ENTRIES)),
    "tar": ("tar", tarred(*ENTRIES)),
    "tar.gz": ("gzip", gzip.compress(tarred(*ENTRIES))),
    "tar.bz2": ("bzip2", bz2.compress(tarred(*ENTRIES))),
    "tar.zst": ("zstd", pa.compress(tarred(*ENTRIES), codec="zstd", asbytes=True)),
}


@pytest.mark.parametrize("kind", PACKED)
def test_members_in_order(kind):
    type_name, content = PACKED[kind]
    assert read(content, type_name) == list(ENTRIES)


@pytest.mark.parametrize("type_name", ["gzip", "bzip2", "zstd"])
def test_a_compressed_file_is_one_member(type_name):
    pack = {"gzip": gzip.compress, "bzip2": bz2.compress}.get(
        type_name, lambda content: pa.compress(content, codec="zstd", asbytes=True)
    )
    assert read(pack(b"text"), type_name, "docs/a.txt.xyz") == [("a.txt", b"text")]
    assert read(pack(b"t" * 1001), type_name)[0][1].endswith("source.max_document_bytes [1000]")


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/root", "C:\\x", "\\\\host\\x", "a\nb"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_path_that_leads_out_costs_itself(pack, name):
    content = pack((name, b"bad"), ("good", b"good"))
    (_, problem), good = read(content, "zip" if pack is zipped else "tar")
    assert "the member's path" in problem
    assert good == ("good", b"good")


def test_links_and_devices_are_not_followed():
    assert read(tarred(*ENTRIES, links=True), "tar") == list(ENTRIES)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as container:
        container.writestr(link, "/etc/passwd")
    assert read(target.getvalue(), "zip") == []


@pytest.mark.parametrize("kind", PACKED)
def test_a_member_that_is_too_large_costs_itself(kind):
    pack = {"zip": zipped, "tar": tarred}.get(kind)
    if pack is not None:
        large, small = read(pack(("large", b"x" * 2000), ("small", b"y")), kind)
        assert large[1].endswith("larger than source.max_document_bytes [1000]")
        assert small == ("small", b"y")


@pytest.mark.parametrize("kind", PACKED)
def test_damage_costs_what_is_behind_it(kind):
    type_name, content = PACKED[kind]
    found = read(content[: 700 if kind == "tar" else len(content) * 2 // 3], type_name)
    assert "is damaged from here on" in found[-1][1]


def test_an_encrypted_member_says_so():
    content = bytearray(zipped(("secret", b"x")))
    for place in (6, content.rindex(b"PK\x01\x02") + 8):
        content[place] |= 1
    assert read(bytes(content), "zip") == [("secret", "the member is encrypted")]


def test_a_bomb_is_stopped_by_its_ratio(monkeypatch):
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    content = zipped(*((f"{number}", b"0" * (1 << 18)) for number in range(64)))
    found = read(content, "zip", limit=1 << 20)
    assert found[-1] == (
        "",
        "the archive is refused from here on: it unpacks to more than 200 times its size",
    )
    assert sum(len(one) for _, one in found[:-1]) <= max(1 << 20, 200 * len(content))


def test_an_archive_of_too_many_members_is_stopped(monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    found = read(zipped(*((f"{number}", b"") for number in range(9))), "zip")
    assert len(found) == 4
    assert "more than 3 members" in found[-1][1]


MBOX = (
    b"From a Mon Jun 01 10:00:00 2009\nMessage-ID: <one@x>\nSubject: 1\n\nHello\n>From me\n\n"
    b"From b Mon Jun 01 11:00:00 2009\nSubject: 2\n\nA line\nFrom here on\n"
)


def test_a_mailbox_is_its_messages():
    (first, one), (second, two) = read(MBOX, "mbox")
    assert first == "one@x"
    assert one.endswith(b"Hello\nFrom me\n\n")
    assert two.endswith(b"A line\nFrom here on\n")
    assert len(second) == 16


def test_a_message_keeps_its_name_when_others_come_and_go():
    (_, (name, _)) = read(MBOX, "mbox")
    assert read(MBOX[MBOX.index(b"From b") :], "mbox")[0][0] == name


def warc(pages, *, packed: bool) -> bytes:
    target = io.BytesIO()
    writer = WARCWriter(target, gzip=packed)
    for address, status, body in pages:
        headers = StatusAndHeaders(status, [("Content-Type", "text/html")], protocol="HTTP/1.0")
        writer.write_record(
            writer.create_warc_record(address, "response", payload=io.BytesIO(body), http_headers=headers)
        )
    return target.getvalue()


@pytest.mark.parametrize(("packed", "type_name"), [(False, "warc"), (True, "gzip")])
def test_a_web_archive_is_the_pages_that_were_served(packed, type_name):
    pages = [
        ("http://a/1", "200 OK", b"<html>1"),
        ("http://a/2", "404 Not Found", b"no"),
        ("http://a/3", "200 OK", b"3"),
    ]
    assert read(warc(pages, packed=packed), type_name) == [("http://a/1", b"<html>1"), ("http://a/3", b"3")]


@given(st.sampled_from(sorted(PACKED)), st.integers(0, 10_000), st.binary(max_size=20))
def test_no_damage_is_more_than_a_problem(kind, place, junk):
    type_name, content = PACKED[kind]
    place %= len(content)
    for _, found in read(content[:place] + junk + content[place + len(junk) :], type_name):
        assert isinstance(found, bytes | str)


def archive(kind: str, *entries: tuple[str, bytes]) -> bytes:
    pack = {
        "zip": lambda: zipped(*entries),
        "tar": lambda: tarred(*entries),
        "tgz": lambda: gzip.compress(tarred(*entries)),
        "tar.bz2": lambda: bz2.compress(tarred(*entries)),
        "tar.zst": lambda: pa.compress(tarred(*entries), codec="zstd", asbytes=True),
    }
    return pack[kind]()


def documents_of(path, source_format: str) -> list[Document | Failure]:
    source = SourceFormat(source_format, "_id", 1 << 20)
    splits = list_source([str(path)], source_format, 1 << 20).splits
    return [
        one for split in splits for piece in split.pieces for _, one in read_documents(piece, source) if one
    ]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tar.bz2", "tar.zst"])
def test_rows_of_files_in_archives(tmp_path, kind):
    table = io.BytesIO()
    pq.write_table(pa.table({"_id": ["p"], "text": ["three"]}), table)
    entries = {
        "jsonl": ("a/b.jsonl", b'{"_id": "j", "text": "one"}\nnot JSON\n'),
        "csv": ("c.csv", b"_id,text\nc,two\n"),
        "parquet": ("d.parquet", table.getvalue()),
        "markdown": ("e/f.md", b"# Four"),
    }
    (tmp_path / f"all.{kind}").write_bytes(archive(kind, *entries.values()))
    found = {source_format: documents_of(tmp_path, source_format) for source_format in entries}
    assert [one[0].id for one in found.values()] == ["j", "c", "p", f"all.{kind}/e/f.md"]
    failure = found["jsonl"][1]
    assert (failure.path, failure.line) == (f"{tmp_path}/all.{kind}!/a/b.jsonl", 2)


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_a_damaged_archive_of_rows_is_a_failure_of_it(tmp_path, kind):
    (tmp_path / f"bad.{kind}").write_bytes(b"no archive at all")
    (tmp_path / "good.jsonl").write_bytes(b'{"_id": "1"}\n')
    failure, document = documents_of(tmp_path, "jsonl")
    assert failure.path == f"{tmp_path}/bad.{kind}"
    assert document.id == "1"
