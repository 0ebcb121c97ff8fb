"""Files that other programs made go through the front door: the test files of Apache Tika, and pages of packages."""

import collections
import statistics
import zipfile
from pathlib import Path

import orjson
import pytest
import sklearn
from support.second_opinions import SECOND_OPINIONS, recall, words
from support.small_run import SmallRun

TIKA = Path("build/tika")
OFFICE = (
    "pdf",
    "docx",
    "pptx",
    "xlsx",
    "doc",
    "ppt",
    "xls",
    "odt",
    "odp",
    "ods",
    "epub",
    "rtf",
    "html",
    "eml",
    "msg",
)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A run over every test file of Tika's in a format that is extracted, and over texts of installed packages."""
    root = tmp_path_factory.mktemp("real")
    docs = root / "docs"
    docs.mkdir()
    for jar in sorted(TIKA.glob("*.jar")):
        with zipfile.ZipFile(jar) as container:
            for name in container.namelist():
                ending = name.rpartition(".")[2].lower()
                if name.startswith("test-documents/") and ending in OFFICE:
                    (docs / name.rpartition("/")[2]).write_bytes(container.read(name))
    packages = Path(sklearn.__file__).parents[1]
    for pattern in (
        "sklearn/datasets/descr/*.rst",
        "sklearn/datasets/data/*.csv",
        "*/licenses/*.txt",
        "*/licenses/*.md",
    ):
        for path in sorted(packages.glob(pattern))[:15]:
            (docs / path.relative_to(packages).as_posix().replace("/", "-")).write_bytes(path.read_bytes())
    mapping = {
        "properties": {
            "text": {"type": "text", "copy_to": ["dense"]},
            "dense": {"type": "semantic_text", "inference_id": ".hashing-dense"},
        }
    }
    run = SmallRun(root, source={"format": "files", "path": str(docs)}, mappings=mapping)
    run.config["table"] = {"path": str(root / "table")}
    assert run.run() == 0
    return run


def failures_of(run: SmallRun) -> list[dict[str, str]]:
    path = next((run.folder / "failures").iterdir(), None)
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path else []


@pytest.mark.slow
@pytest.mark.tika
def test_hundreds_of_real_files_become_rows_or_failures_with_a_reason(real):
    files = list((real.folder / "docs").iterdir())
    rows, failures, skipped = real.rows(), failures_of(real), real.summary["extraction"]["skipped"]
    assert len(files) >= 300
    assert len({path.suffix for path in files}) >= 15
    single = {name for name in rows if "/" not in name} | {
        Path(one["path"].partition("!/")[0]).name for one in failures
    }
    inside = {name.partition("/")[0] for name in rows if "/" in name}
    assert len({path.name for path in files} - single - inside) == sum(skipped.values())
    reasons = collections.Counter(one["message"].partition(":")[0].partition(";")[0] for one in failures)
    known = ("the document has no text", "the document is encrypted", "the document cannot be read")
    assert sum(reasons[reason] for reason in known) >= len(failures) - 3
    assert len(failures) < 0.2 * len(files)


@pytest.mark.slow
@pytest.mark.tika
def test_a_second_extractor_finds_no_more_words(real):
    texts = {name: words(orjson.loads(row["_source"])["text"]) for name, row in real.rows().items()}
    shares: dict[str, list[float]] = collections.defaultdict(list)
    for path in sorted((real.folder / "docs").iterdir()):
        ending = path.suffix.lstrip(".").lower()
        if path.name not in texts or ending not in SECOND_OPINIONS:
            continue
        try:
            wanted = words(SECOND_OPINIONS[ending](path.read_bytes()))
        except Exception:
            continue
        if wanted.total() >= 5:
            shares[ending].append(recall(wanted, texts[path.name]))
    assert sum(map(len, shares.values())) >= 150
    assert len(shares) >= 12
    medians = {ending: statistics.median(values) for ending, values in shares.items()}
    assert {ending: median for ending, median in medians.items() if median < 0.98} == {}
    assert statistics.mean(value for values in shares.values() for value in values) >= 0.95
