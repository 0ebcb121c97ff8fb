"""tantivy's side of the index: schema, analyzers, how tokens are escaped."""

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transforms.index.state import IndexState, UnitState

DEFAULT_ANALYZER = "english"
STEMMERS = frozenset(
    {
        "arabic",
        "danish",
        "dutch",
        "english",
        "finnish",
        "french",
        "german",
        "greek",
        "hungarian",
        "italian",
        "norwegian",
        "portuguese",
        "romanian",
        "russian",
        "spanish",
        "swedish",
        "tamil",
        "turkish",
    }
)


_SPACE = re.compile(r"\s")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)


def sparse_field(number: int) -> str:
    """Name of the tantivy field that holds the bit slices of the sparse field with this number."""
    return f"sparse{number}"


def escape_token(token: str) -> str:
    """A token as it is used in terms, which are separated by white space and so hold none."""
    if _SPACE.search(token) is None:
        return token
    return "".join(f"%{ord(char):x};" if char.isspace() else char for char in token)


def unit_schema(unit: UnitState, state: IndexState) -> Any:
    """The tantivy schema of a unit."""
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("chunk", fast=True)
    builder.add_unsigned_field("document", indexed=True)
    for number in range(len(unit.sources)):
        builder.add_text_field(f"text{number}", tokenizer_name=unit.analyzer, index_option="freq")
    for name in unit.fields:
        if state.fields[name].task_type == "sparse_embedding":
            number = state.field_number(name)
            builder.add_text_field(sparse_field(number), tokenizer_name="whitespace", index_option="basic")
    return builder.build()


def text_analyzer(name: str) -> Any:
    """The tantivy analyzer of that name: ``standard``, or a language, which stems as well.

    Raises:
        ValueError: there is no such analyzer.
    """
    import tantivy

    if name != "standard" and name not in STEMMERS:
        raise ValueError(
            f"unknown analyzer [{name}]; known analyzers: standard, {', '.join(sorted(STEMMERS))}"
        )
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    builder = builder.filter(tantivy.Filter.remove_long(255)).filter(tantivy.Filter.lowercase())
    if name != "standard":
        builder = builder.filter(tantivy.Filter.stemmer(name))
    return builder.build()


def open_tantivy(path: str | Path, analyzer: str) -> Any:
    """Open a unit's tantivy folder with its analyzer."""
    import tantivy

    # Opening takes a lock, which is a file; where none can be made, it lies beside links to the index's files.
    index = tantivy.Index.open(str(path) if os.access(path, os.W_OK) else _linked(Path(path)))
    index.register_tokenizer(analyzer, text_analyzer(analyzer))
    index.config_reader(reload_policy="manual")
    return index


def _linked(folder: Path) -> str:
    """A folder of this process with links to the files of a folder that cannot be written."""
    aside = tempfile.mkdtemp(prefix="semantic-ingest-")
    atexit.register(shutil.rmtree, aside, ignore_errors=True)
    for path in folder.iterdir():
        os.symlink(path.resolve(), os.path.join(aside, path.name))
    return aside


def spaced(text: str) -> str:
    """Put blanks between the character pairs of scripts that write without blanks, so that BM25 has terms.

    A run of n characters becomes its n - 1 overlapping pairs. Other text is left as it is.
    """
    return text if text.isascii() else _UNSPACED.sub(_pairs, text)


def _pairs(match: re.Match[str]) -> str:
    run = match[0]
    pairs = [run[at : at + 2] for at in range(len(run) - 1)]
    return f" {' '.join(pairs or [run])} "
