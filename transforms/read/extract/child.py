"""A child process that extracts documents: requests on standard input, answers on standard output, nothing else.

A request is one line of JSON (``type``, ``size``) and then the document's bytes; an answer is one line of JSON.
"""

import importlib
import json
import os
import pkgutil
import resource
import sys
import time
from contextlib import suppress
from typing import Any

from transforms.read.extract import library, sandbox


def main(memory: int, text_bytes: int, ocr: str) -> None:
    """Answer requests until standard input ends.

    Args:
        memory: bytes that this process may take beside what it needs to start.
        text_bytes: longest text, in UTF-8.
        ocr: language of scanned pages and images, empty for none.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    _warm_up(ocr)
    sandbox.limit(_data_bytes() + memory)
    sandbox.confine(files=not ocr)
    answers.write(b"ready\n")
    answers.flush()
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        answer = _answer(sys.stdin.buffer.read(request["size"]), request["type"], text_bytes, ocr or None)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _answer(content: bytes, type_name: str, text_bytes: int, ocr: str | None) -> dict[str, Any]:
    started = time.process_time()
    try:
        answer = library.extract(content, type_name, ocr)
        size = len(answer["text"].encode("utf-8", "replace"))
        if size > text_bytes:
            answer = {"error": f"the document has {size} bytes of text, more than source.max_document_bytes"}
    except library.UnreadableError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "the document needs more memory than source.extract.memory_bytes"}
    except Exception as error:
        answer = {"error": f"the document cannot be read: {type(error).__name__}: {error}"[:500]}
    answer["seconds"] = time.process_time() - started
    answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return answer


def _warm_up(ocr: str) -> None:
    """Load everything that is loaded on first use, since later no file can be opened."""
    import encodings

    import charset_normalizer

    charset_normalizer.from_bytes("Das wäre schön.".encode("latin-1")).best()
    for module in pkgutil.iter_modules(encodings.__path__):
        with suppress(ImportError):  # those of another operating system
            importlib.import_module(f"encodings.{module.name}")
    library.extract(b"<html lang=en><title>a</title><p>b", "html")
    library.extract(b"Subject: =?utf-8?q?a?=\nDate: Thu, 1 Jan 1970 00:00:00 +0000\n\nb", "email")


def _data_bytes() -> int:
    """Bytes of data that this process has now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as handle:
            return int(handle.read().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
