"""Readers of JSON: lines that hold an object each, and arrays of objects that spread over any number of lines."""

import re
from collections.abc import Iterator
from typing import IO, Any

import orjson

from transforms import exact_json
from transforms.read.rows.readers import BadDocumentError, Row, SourceFormat
from transforms.read.rows.unpack import open_unpacked
from transforms.records import Piece

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


def jsonl_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """JSON lines: the lines that start in the piece's range of bytes."""
    limit = source.max_document_bytes
    with open_unpacked(piece.path) as handle:
        position = piece.start
        if position > 0:
            # The line that the range starts in belongs to the range before it.
            handle.seek(position - 1)
            position += _skip_line(handle) - 1
        for number, (line, too_long) in enumerate(_lines(handle, piece.end, position, limit)):
            if piece.start == 0 and number == 0:
                line = line.removeprefix(_BOM)
            if too_long:
                yield number, BadDocumentError(f"the line is longer than source.max_document_bytes [{limit}]")
            else:
                yield number, None if line.isspace() else _line_object(line)


def _lines(handle: IO[bytes], end: int, position: int, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Yield (line, whether it was too long and cut) for the lines that start before `end`."""
    while end < 0 or position < end:
        line = handle.readline(limit + 1)
        if not line:
            return
        position += len(line)
        too_long = len(line) > limit and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = handle.readline(_BLOCK)
            position += len(rest)
        yield line, too_long


def _skip_line(handle: IO[bytes]) -> int:
    """Read on to the end of the line; returns how many bytes were passed."""
    passed = 0
    while piece := handle.readline(_BLOCK):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed


def _line_object(line: bytes) -> dict[str, Any] | BadDocumentError:
    found = json_object(line, "the line")
    if isinstance(found, BadDocumentError) and line.strip() in (b"[", b"{"):
        return BadDocumentError(
            f"{found}; a document that spreads over several lines needs source.format: json"
        )
    return found


def json_object(text: bytes, what: str) -> dict[str, Any] | BadDocumentError:
    """The object that some JSON is, or what is wrong with it."""
    try:
        fields = exact_json.loads(text)
    except orjson.JSONDecodeError as error:
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as wrong:
            place = f"byte {text[wrong.start]:#04x} at column {wrong.start + 1}"
            return BadDocumentError(f"{what} is not valid UTF-8: {place}; convert the file to UTF-8")
        problem = str(error).split(": line ")[0]
        return BadDocumentError(f"{what} is not valid JSON: {problem} at {_place(text, error)}")
    except (ValueError, RecursionError) as error:
        return BadDocumentError(f"{what} cannot be stored: {error}")
    if not isinstance(fields, dict):
        hint = "; an array of documents needs source.format: json" if isinstance(fields, list) else ""
        return BadDocumentError(f"{what} holds a JSON {type(fields).__name__}, not an object{hint}")
    return fields


def _place(text: bytes, error: orjson.JSONDecodeError) -> str:
    column = f"column {error.colno}"
    return f"line {error.lineno}, {column} of it" if b"\n" in text.strip() else column


_TOKEN = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)


def json_rows(piece: Piece, source: SourceFormat) -> Iterator[Row]:
    """JSON over any number of lines: an array of objects, or objects one after the other. It is never held whole.

    Documents are numbered one by one, since several may stand on a line.
    """
    with open_unpacked(piece.path) as handle:
        for number, (line, found) in enumerate(_documents(handle, source.max_document_bytes)):
            place = f"the document that begins on line {line + 1}"
            if isinstance(found, BadDocumentError):
                yield number, BadDocumentError(f"line {line + 1}: {found}", found.stands_for)
            else:
                document = json_object(found, place)
                if isinstance(document, BadDocumentError) and _may_be_several(found, source.id):
                    document.stands_for = "unknown"
                yield number, document


def _may_be_several(text: bytes, id_field: str | None) -> bool:
    """Whether what is no JSON may be several documents, between which brackets or quotes were lost."""
    return id_field is None or text.count(b'"%b"' % id_field.encode()) > 1


def _documents(handle: IO[bytes], limit: int) -> Iterator[tuple[int, bytes | BadDocumentError]]:
    """Find where documents begin and end by the brackets around them; yields (line breaks before it, its text).

    An error inside a document costs only that one, since brackets are counted whatever stands between them.
    """
    text, line, scanned = b"", 0, 0
    depth, in_array, in_string, too_long = 0, False, False, False
    while block := handle.read(_BLOCK):
        text, start, end = text + (block if line or text else block.removeprefix(_BOM)), 0, scanned
        for token in _TOKEN.finditer(text, scanned):
            mark, begin, end = token[0], token.start(), token.end()
            if mark == b'"':
                in_string = not in_string
            elif in_string or len(mark) == 2:
                continue
            elif mark in b"[{" and depth:
                depth += 1
            elif mark in b"[{" or not depth:
                yield from _no_document(line, text[start:begin])
                line += text.count(b"\n", start, begin)
                # The outermost array is not a document: it begins and ends where no document is open.
                is_array = mark == b"]" or (mark == b"[" and not in_array)
                start, in_array = (end, mark == b"[") if is_array else (begin, in_array)
                depth = 0 if is_array or mark == b"}" else 1
            else:
                depth -= 1
                if depth == 0:
                    long = BadDocumentError(
                        f"the document is longer than source.max_document_bytes [{limit}]"
                    )
                    yield line, long if too_long or end - start > limit else text[start:end]
                    line, start, too_long = line + text.count(b"\n", start, end), end, False
        # A backslash at the very end takes the next block's first byte with it.
        half = text.endswith(b"\\") and end < len(text)
        text = text[start:]
        if len(text) > limit + _BLOCK and not half:
            line, text, too_long = line + text.count(b"\n"), b"", True
        scanned = len(text) - half
    yield from _end_of_file(line, text, is_open=depth > 0 or in_array or in_string)


def _end_of_file(line: int, text: bytes, *, is_open: bool) -> Iterator[tuple[int, BadDocumentError]]:
    if is_open:
        yield line, BadDocumentError("the file ends inside a document or its array", "rest of the file")
    else:
        yield from _no_document(line, text)


def _no_document(line: int, between: bytes) -> Iterator[tuple[int, BadDocumentError]]:
    """A failure where something other than a comma stands between documents."""
    if between.strip(b" \t\r\n,"):
        yield line, BadDocumentError("something that is no JSON object stands between documents", "unknown")
