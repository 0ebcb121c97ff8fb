"""How documents are extracted: what a user may set, as it reaches the workers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """Bounds of one document's extraction.

    Attributes:
        processes: child processes of a worker; 0 is one a core.
        seconds: a document that takes longer becomes a failure.
        memory_bytes: a document that needs more becomes a failure.
        text_bytes: a document with more text becomes a failure.
        ocr: language of scanned pages and images as Tesseract names it (``eng``, ``deu+eng``); None reads no images.
    """

    processes: int = 0
    seconds: float = 120.0
    memory_bytes: int = 2 << 30
    text_bytes: int = 100 << 20
    ocr: str | None = None
