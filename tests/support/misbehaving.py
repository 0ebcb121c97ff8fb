"""A service that answers over raw sockets in every wrong way that HTTP has room for: `MODES` by name."""

import gzip
import itertools
import socket
import struct
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from functools import cache

DRIP_SECONDS = 0.02
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = b'{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}'
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def head(body=b"", *lines, status="200 OK"):
    text = "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(body)}"))
    return f"HTTP/1.1 {status}\r\n{text}\r\n".encode() + body


def drip(data):
    for byte in data:
        yield bytes([byte])
        time.sleep(DRIP_SECONDS)


def forever(piece):
    return itertools.repeat(piece)


def slowly(pieces):
    for piece in pieces:
        yield piece
        time.sleep(DRIP_SECONDS)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


@cache
def bomb(megabytes):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    blank = b" " * (1 << 20)
    return b"".join([*(squeeze.compress(blank) for _ in range(megabytes)), squeeze.flush()])


def gzip_of_empty_blocks():
    yield OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield chunk(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    yield from forever(chunk(b"\0\0\0\xff\xff" * 4000))


def sends(*pieces):
    """Send the pieces, which may be endless, then stay silent."""
    return lambda: itertools.chain(*([piece] if isinstance(piece, bytes) else piece for piece in pieces))


def closes(*pieces):
    """Send the pieces, then close."""
    return lambda: itertools.chain(sends(*pieces)(), [None])


def repeats(piece, first=b""):
    return lambda: itertools.chain([first], forever(piece))


def dripped(first, rest):
    return lambda: itertools.chain([first], drip(rest))


def json_answer(body, *lines, status="200 OK"):
    return closes(head(body, *lines, status=status))


MODES = {
    "closes at once": closes(),
    "never answers": sends(),
    "drips the status line": dripped(b"", OK * 99),
    "drips a header": dripped(OK, b"X-Slow: " + b"a" * 9000),
    "drips headers": lambda: itertools.chain([OK], slowly(forever(b"X: y\r\n"))),
    "endless headers": repeats(b"X-More: y\r\n", OK),
    "a header line without end": repeats(b"a" * 4096, OK + b"X: "),
    "endless 100 Continue": repeats(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow 100 Continue": lambda: slowly(forever(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "endless 102 Processing": repeats(b"HTTP/1.1 102 Processing\r\n\r\n"),
    "endless 103 Early Hints": repeats(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "drips the body": dripped(OK + b"Content-Length: 100000\r\n\r\n", b" " * 100000),
    "less body than promised, then silence": sends(OK + b"Content-Length: 1000000000\r\n\r\n[1"),
    "less body than promised, then the end": closes(OK + b"Content-Length: 1000000000\r\n\r\n[1"),
    "more body than bounds, as promised": repeats(b" " * 65536, OK + b"Content-Length: 99999999999\r\n\r\n"),
    "a negative length": closes(OK + b"Content-Length: -5\r\n\r\n{}"),
    "a length that is no number": closes(OK + b"Content-Length: five\r\n\r\n{}"),
    "two lengths": closes(OK + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}"),
    "drips a chunk's size": dripped(CHUNKED, b"0" * 9000),
    "a chunk's size without end": repeats(b"0" * 4096, CHUNKED),
    "a chunk of 2^64 bytes": repeats(b" " * 65536, CHUNKED + b"ffffffffffffffff\r\n"),
    "chunk extensions without end": repeats(b";a=b" * 1024, CHUNKED + b"1"),
    "a chunk's size that is no number": closes(CHUNKED + b"zz\r\n[]\r\n"),
    "chunks without end": repeats(chunk(b" " * 65536), CHUNKED),
    "chunks of one byte without end": repeats(chunk(b" ") * 4096, CHUNKED),
    "chunks that come slowly": lambda: itertools.chain([CHUNKED], slowly(forever(chunk(b" ")))),
    "trailers without end": repeats(b"X: y\r\n" * 512, CHUNKED + chunk(GOOD) + b"0\r\n"),
    "drips trailers": dripped(CHUNKED + chunk(GOOD) + b"0\r\n", b"X: yyyyyyyyyyyyyy\r\n" * 500),
    "chunks without the last one": closes(CHUNKED + chunk(GOOD)),
    "gzip of empty blocks": gzip_of_empty_blocks,
    "gzip that unpacks to 256 megabytes": lambda: [head(bomb(256), "Content-Encoding: gzip"), None],
    "gzip of gzip": lambda: [head(gzip.compress(bomb(256)), "Content-Encoding: gzip, gzip"), None],
    "gzip in two headers": lambda: [
        head(gzip.compress(bomb(256)), "Content-Encoding: gzip", "Content-Encoding: gzip"),
        None,
    ],
    "deflate": json_answer(zlib.compress(GOOD), "Content-Encoding: deflate"),
    "brotli": json_answer(GOOD, "Content-Encoding: br"),
    "zstd": json_answer(GOOD, "Content-Encoding: zstd"),
    "gzip that is none": json_answer(GOOD, "Content-Encoding: gzip"),
    "gzip that is cut off": json_answer(gzip.compress(GOOD)[:-12], "Content-Encoding: gzip"),
    "a gzip name without end": repeats(
        chunk(b"n" * 65536),
        OK
        + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunk(b"\x1f\x8b\x08\x08" + bytes(6)),
    ),
    "a body without length or end": repeats(b" " * 65536, OK + b"\r\n"),
    "no status line": closes(GOOD),
    "HTTP/2": closes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "noise": closes(bytes(range(256)) * 64),
    "a TLS alert": closes(b"\x15\x03\x01\x00\x02\x02\x28"),
    "redirects in circles": json_answer(b"", "Location: ?again", status="307 Temporary Redirect"),
    "a redirect elsewhere": json_answer(
        b"", "Location: http://127.0.0.2:1/", status="308 Permanent Redirect"
    ),
    "a redirect to a file": json_answer(b"", "Location: file:///etc/passwd", status="307 Temporary Redirect"),
    "a redirect to nowhere": json_answer(b"", status="302 Found"),
    "no content": closes(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "another protocol": closes(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    ),
    "deep JSON": json_answer(b"[" * 100_000),
    "a million lists": json_answer(b"[" + b"[]," * 700_000 + b"[]]"),
    "a million strings": json_answer(b"[" + b'"abc",' * 330_000 + b'""]'),
    "JSON with NaN": json_answer(b'{"data": [{"index": 0, "embedding": [NaN]}]}'),
    "UTF-16": json_answer(GOOD.decode().encode("utf-16")),
    "broken UTF-8": json_answer(b'{"data": "\xff\xfe"}'),
    "an error without end": repeats(b" " * 65536, b"HTTP/1.1 500 Oops\r\n\r\n"),
    "comes back in a thousand years": json_answer(b"{}", "Retry-After: 31536000000", status="429 Slow"),
    "comes back at no number": json_answer(b"{}", "Retry-After: nan", status="429 Slow"),
    "a deep error": json_answer(b'{"error":' * 50_000, status="400 Bad"),
    "a million errors": json_answer(b"[" + b"{}," * 300_000 + b"{}]", status="400 Bad"),
    "status 999": json_answer(GOOD, status="999 What"),
    "a status that is no number": closes(b"HTTP/1.1 abc OK\r\n\r\n"),
    "control characters": json_answer(b'{"error": "\\u001b[31m\\u0007 no"}', status="400 \x1b[31m"),
    "resets": None,
}
"""Name -> function that gives what the service sends after a request; None at the end closes the connection."""


@contextmanager
def misbehaving_service():
    """Listen on loopback; the path of a request names its mode by number, as in `/MODE/v1/embeddings`."""
    bomb(256)  # takes a second, which is not the service's to take
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(connection, stop), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.close()


def _answer(connection, stop):
    with connection, suppress(OSError):
        connection.settimeout(60)
        request = connection.recv(1 << 16)
        if not request:
            return
        number = request.split(b"/")[1]
        if not number.isdigit():  # somebody takes this for a proxy
            return
        name = list(MODES)[int(number)]
        if name == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        for piece in MODES[name]():
            if piece is None or stop.is_set():
                return
            connection.sendall(piece)
        stop.wait(60)


def url_of(base, name):
    return f"{base}/{list(MODES).index(name)}/v1/embeddings"
