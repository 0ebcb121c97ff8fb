"""Queries and relevance judgements, in BEIR's and in TREC's formats."""

import re
from collections.abc import Iterator
from pathlib import Path

from models.json_text import parse_json
from pipeline.errors import PipelineError

_TOPIC = re.compile(r"<top>(.*?)</top>", re.DOTALL | re.IGNORECASE)
_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
_TITLE = re.compile(r"<title>\s*(?:Topic:)?\s*([^<]+)", re.IGNORECASE)


def load_queries(path: str | Path) -> dict[str, str]:
    """Read queries: BEIR's JSON lines (``_id``, ``text``), TREC topics, or ``id<tab>text`` lines.

    Raises:
        PipelineError: the file is missing, holds no query, or a line is none.
    """
    text = _read(path)
    if text.lstrip().startswith("{"):
        queries = dict(_json_queries(path, text))
    elif "<top>" in text.lower():
        queries = dict(_topics(path, text))
    else:
        queries = dict(_tab_queries(path, text))
    if not queries:
        raise PipelineError(f"{path} holds no queries")
    return queries


def load_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements: query -> document -> relevance.

    BEIR: ``query-id<tab>corpus-id<tab>score`` below a header. TREC: ``query 0 document relevance``.

    Raises:
        PipelineError: the file is missing, holds no judgement, or a line is none.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_read(path).split("\n"), 1):
        columns = line.split("\t") if line.count("\t") >= 2 else line.split()
        if not columns or (number == 1 and not _is_number(columns[-1])):
            continue
        if len(columns) not in (3, 4) or not _is_number(columns[-1]):
            raise PipelineError(
                f"{path}, line {number}: not a judgement: {line[:80]!r}; see docs/retrieval.md"
            )
        qrels.setdefault(columns[0], {})[columns[-2]] = int(float(columns[-1]))
    if not qrels:
        raise PipelineError(f"{path} holds no judgements")
    return qrels


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 text: {error}") from None


def _is_number(value: str) -> bool:
    try:
        int(float(value))
    except (ValueError, OverflowError):
        return False
    return True


def _json_queries(path: str | Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            query = parse_json(line)
            yield str(query["_id"]), str(query["text"])
        except (ValueError, KeyError, TypeError):
            raise PipelineError(
                f'{path}, line {number}: not a query of the form {{"_id": …, "text": …}}'
            ) from None


def _topics(path: str | Path, text: str) -> Iterator[tuple[str, str]]:
    for topic in _TOPIC.findall(text):
        number, title = _NUMBER.search(topic), _TITLE.search(topic)
        if number is None or title is None:
            raise PipelineError(f"{path}: a <top> without <num> or <title>: {topic.strip()[:80]!r}")
        yield number[1], " ".join(title[1].split())


def _tab_queries(path: str | Path, text: str) -> Iterator[tuple[str, str]]:
    # Nothing is quoted in these files, so a line is split at its tabs and no more.
    for number, line in enumerate(text.split("\n"), 1):
        row = line.removesuffix("\r").split("\t")
        if row == [""]:
            continue
        if len(row) != 2:
            raise PipelineError(f"{path}, line {number}: not a query of the form id<tab>text")
        yield row[0], row[1]
