"""Flip single bits in the files of a published table and its index, and see what becomes of them.

As a script: ``python -m support.damage FLIPS SEED [EVERY]`` with ``tests`` on the path; every EVERYth flip is also
healed, in turn by each of `WAYS`. It prints what was found, and exits with 1 where damage went unnoticed.
"""

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from support.small_run import SmallRun, document

from pipeline.errors import PipelineError
from pipeline.search.search import search

QUERY = "the red fox jumps over a lazy dog"


@dataclass(frozen=True)
class Flip:
    """One flipped bit.

    Attributes:
        path: the file, relative to the run's folder.
        byte: which of its bytes.
        bit: which of its bits.
    """

    path: str
    byte: int
    bit: int


def damageable(job: SmallRun) -> list[str]:
    """Part files, log and index of the newest version, relative to the run's folder."""
    active = {Path(uri).name for uri in DeltaTable(job.table_path).file_uris()}
    found = []
    for path in sorted(job.folder.rglob("*")):
        name = str(path.relative_to(job.folder))
        is_part = name.startswith("table/part-") and path.name in active
        if path.is_file() and (is_part or name.startswith(("table/_delta_log/", "index/"))):
            found.append(name)
    return [
        name for name in found if not name.endswith((".lock", "/lock")) and (job.folder / name).stat().st_size
    ]


def flips(job: SmallRun, count: int, seed: int) -> list[Flip]:
    """Bits to flip: a third each in parts, index and log, files at random, places at random."""
    chance = random.Random(seed)
    names = damageable(job)
    kinds = [
        [name for name in names if name.startswith(start)]
        for start in ("table/part-", "index/", "table/_delta_log/")
    ]
    weights = (0.45, 0.4, 0.15)
    result = []
    for _ in range(count):
        name = chance.choice(chance.choices(kinds, weights)[0])
        result.append(Flip(name, chance.randrange((job.folder / name).stat().st_size), chance.randrange(8)))
    return result


def apply(job: SmallRun, flip: Flip) -> None:
    path = job.folder / flip.path
    content = bytearray(path.read_bytes())
    content[flip.byte] ^= 1 << flip.bit
    path.write_bytes(bytes(content))


def data_of(job: SmallRun) -> Any:
    """What a reader that checks nothing gets of the table: rows by id; a word where it cannot be read."""
    try:
        return job.rows()
    except Exception as error:
        return type(error).__name__


def hits_of(job: SmallRun) -> dict[str, str]:
    """What searches answer, or the sentence that they end with."""
    found = {}
    for mode in ("bm25", "dense", "sparse", "hybrid"):
        try:
            hits = search(str(job.folder / "index"), QUERY, mode=mode, k=5)
            found[mode] = json.dumps([hit.to_json() for hit in hits], sort_keys=True)
        except PipelineError as error:
            found[mode] = f"refused: {error}"
        except BaseException as error:  # tantivy's panics are no Exception
            found[mode] = f"TRACEBACK {type(error).__name__}: {error}"
    return found


def command(job: SmallRun, *arguments: str) -> str:
    """Run a command: its exit code, or the traceback that it ended with."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return str(job.run(*arguments[1:], command=arguments[0]))
    except BaseException:
        return f"TRACEBACK {traceback.format_exc()[-600:]}"


WAYS = ("repair", "run", "night")
"""Ways to go on after a flip: `verify --repair`; a run with nothing to do, then that; a run over a source in which a
document of every part has changed, then that."""


def trial(job: SmallRun, flip: Flip, way: str = "") -> list[str]:
    """Flip a bit in a copy of a run's folder and go on in one of `WAYS`, or only look where it is empty.

    Returns:
        What went wrong; nothing where damage is found or harmless, and healed where the source can heal it.
    """
    rows, hits = data_of(job), hits_of(job)
    kept = job.folder.with_name("kept")
    shutil.copytree(job.folder, kept)
    try:
        apply(job, flip)
        changed = data_of(job) != rows
        wrong = _unnoticed(job, hits, changed)
        if way == "run":
            wrong += _after_a_run(job, flip, rows, hits)
        elif way == "night":
            job.write(later_night())
            rows, hits = _as_if_nothing(kept), {}
            wrong += _after_a_run(job, flip, rows, hits)
        if way:
            wrong += _repaired(job, flip, rows, hits)
        return wrong
    finally:
        shutil.rmtree(job.folder)
        kept.rename(job.folder)


def _unnoticed(job: SmallRun, hits: dict[str, str], changed: bool) -> list[str]:
    """What searches and `verify` do not notice of a flip."""
    wrong = _wrong_answers(job, hits)
    checked = command(job, "verify")
    if checked not in ("0", "1") or (changed and checked == "0"):
        wrong.append(f"verify: {checked}, though data is {'changed' if changed else 'the same'}")
    return wrong


def _wrong_answers(job: SmallRun, hits: dict[str, str]) -> list[str]:
    found = hits_of(job)
    return [
        f"search {mode} answered {found[mode][:300]}"
        for mode, answer in hits.items()
        if found[mode] != answer and not found[mode].startswith("refused: ")
    ]


def _after_a_run(job: SmallRun, flip: Flip, rows: Any, hits: dict[str, str]) -> list[str]:
    """A run mends what it meets, or ends in a sentence; what it does not look at `verify` still finds."""
    code = command(job, "run", "--quiet")
    if code not in ("0", "1"):
        return [f"run: {code}"]
    wrong = _wrong_answers(job, hits)
    if (
        code == "0"
        and flip.path.startswith("index/")
        and any("refused" in one for one in hits_of(job).values())
    ):
        wrong.append("a run left the index damaged")
    if code == "0" and data_of(job) != rows and command(job, "verify") != "1":
        wrong.append("after a run the table has other rows, and verify finds nothing")
    return wrong


def _repaired(job: SmallRun, flip: Flip, rows: Any, hits: dict[str, str]) -> list[str]:
    is_log = "_delta_log" in flip.path
    code = command(job, "verify", "--repair")
    if code.startswith("TRACEBACK") or (code != "0" and not is_log):
        return [f"verify --repair: {code}"]
    if code != "0":
        return []
    wrong = []
    if data_of(job) != rows:
        wrong.append("the repaired table has other rows")
    if hits and hits_of(job) != hits:
        wrong.append("the repaired index gives other hits")
    return wrong


def later_night() -> list[dict[str, Any]]:
    """A source in which every part's documents have changed in one place."""
    return [document(number, 9 if number % 4 == 1 else int(number < 3)) for number in range(25)]


def _as_if_nothing(kept: Path) -> Any:
    """The rows that a run over `later_night` makes of a table that nothing happened to."""
    changed = SmallRun(kept.with_name("undisturbed"))
    if not changed.folder.exists():
        changed.folder.mkdir()
        changed.write(later_night())
        assert command(changed, "run", "--quiet") == "0"
    return data_of(changed)


def small_table(folder: Path) -> SmallRun:
    """A table of 24 documents in two versions, and its index."""
    job = SmallRun(folder)
    job.write([document(number) for number in range(24)])
    assert job.run("--quiet") == 0
    job.write([document(number, int(number < 3)) for number in range(25)])
    assert job.run("--quiet") == 0
    # As new, so that an index that damage lets build anew has the same statistics of terms.
    assert job.run("--rebuild", command="index") == 0
    return job


def main(count: int, seed: int, every: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run").mkdir()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            job = small_table(Path(folder) / "run")
        tally: Counter[str] = Counter()
        for number, flip in enumerate(flips(job, count, seed)):
            wrong = trial(job, flip, WAYS[number // every % 3] if number % every == 0 else "")
            tally[
                "wrong" if wrong else "right", flip.path.split("/")[0 if "part-" not in flip.path else 1][:5]
            ] += 1
            tally["healed"] += number % every == 0
            for one in wrong:
                print(flip, one, flush=True)
            if number % 50 == 49:
                print(number + 1, dict(tally), file=sys.stderr, flush=True)
        print(count, "flips:", dict(tally))
    return int(any("wrong" in key for key in tally))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 10))


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with bytes flipped, cut out, doubled, or overwritten, or with its end missing."""
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 20)):
        place = draw.randrange(max(1, len(damaged)))
        length = draw.randint(1, 64)
        kind = draw.randrange(5)
        if kind == 0:
            damaged[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del damaged[place : place + length]
        elif kind == 2:
            damaged[place:place] = damaged[place : place + length]
        elif kind == 3:
            damaged[place : place + length] = draw.randbytes(length)
        elif draw.random() < 0.1:
            del damaged[place:]
    return bytes(damaged)
