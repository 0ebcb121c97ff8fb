"""How documents for Elasticsearch are to be written, as a command line says it."""

from collections.abc import Sequence
from typing import Literal

from pipeline.errors import PipelineError
from pipeline.exchange.elasticsearch.forms import DocumentForm, Form, Vectors
from pipeline.exchange.elasticsearch.index import BASE64_SINCE


def document_form(
    profile: Literal["semantic_text", "nested"],
    *,
    legacy: bool = False,
    no_overlap: bool = False,
    vectors: Vectors = "base64",
    version: tuple[int, int] = (9, 5),
    inference_ids: Sequence[str] = (),
) -> DocumentForm:
    """Choose the form of documents.

    Args:
        profile: vectors in `semantic_text` fields or in `nested` documents.
        legacy: the form of `semantic_text` before 8.18.
        no_overlap: the form that is proposed for own chunks.
        vectors: how nested documents write vectors; clusters before 9.3 only read arrays.
        version: the cluster's.
        inference_ids: ``FIELD=ID``, for targets whose mapping names other endpoints than the table.

    Raises:
        PipelineError: the options contradict each other.
    """
    if legacy and no_overlap:
        raise PipelineError("--legacy and --no-overlap are two different forms; choose one")
    if profile == "nested" and (legacy or no_overlap):
        raise PipelineError("--legacy and --no-overlap are forms of --profile semantic_text")
    if vectors == "bfloat16" and version < BASE64_SINCE:
        raise PipelineError(f"bfloat16 vectors need Elasticsearch 9.3, this is {version[0]}.{version[1]}")
    pairs = dict(_pair(one) for one in inference_ids)
    if profile == "nested":
        return DocumentForm("nested", vectors if version >= BASE64_SINCE else "array")
    form: Form = "legacy" if legacy else "own_chunks" if no_overlap else "semantic_text"
    return DocumentForm(form, "array", pairs)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise PipelineError(f"--inference-id [{text}] is not of the form FIELD=ID")
    return name, value


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of a version.

    Raises:
        PipelineError: it is none.
    """
    try:
        major, minor = text.split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        raise PipelineError(f"[{text}] is not a version of the form 9.5") from None
