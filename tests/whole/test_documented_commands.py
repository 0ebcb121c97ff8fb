"""Every command of README and docs runs in a fresh copy of the project, but for those that a page says are not run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.documented import commands, is_shown
from support.paths import ROOT

PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
NOT_RUN = {
    ("README.md", "sets up .venv"): 2,
    ("docs/elasticsearch.md", "needs a cluster"): 3,
    ("docs/elasticsearch.md", "needs servers"): 1,
    ("docs/endpoints.md", "needs a key of a service"): 1,
    ("docs/install.md", "changes the shell's configuration"): 1,
    ("docs/install.md", "sets up .venv"): 2,
    ("docs/nightly.md", "needs a collector"): 1,
    ("docs/performance.md", "takes minutes"): 1,
    ("docs/python.md", "opens a browser"): 1,
    ("docs/retrieval.md", "serves until it is stopped"): 1,
    ("docs/runners.md", "needs Google Cloud"): 2,
    ("docs/runners.md", "needs a GPU"): 1,
    ("docs/serve.md", "needs the server"): 1,
    ("docs/serve.md", "serves until it is stopped"): 2,
}


def test_only_these_commands_are_not_run() -> None:
    found: dict[tuple[str, str], int] = {}
    for page in PAGES:
        for command in commands(ROOT / page):
            if command.why is not None:
                found[page, command.why] = found.get((page, command.why), 0) + 1
    assert found == NOT_RUN


def test_make_run_runs_what_readme_shows() -> None:
    """A reader who has no make, or does not want a second environment, types these two."""
    planned = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old", ".venv/installed", "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    typed = [command.text for command in commands(ROOT / "README.md")]
    for line in planned.splitlines():
        words = line.removeprefix(".venv/bin/").split(" --")[0]
        assert any(words in text for text in typed), line


def test_readmes_links_lead_somewhere() -> None:
    """Those of docs/ are followed when the site is built."""
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert "docs/gallery.md" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


def run(folder: Path, home: Path, page: str) -> None:
    """Run a page's commands from top to bottom in one shell, and compare their output with what is shown."""
    shown = [command for command in commands(ROOT / page) if command.why is None]
    said = home / page.replace("/", "-")
    said.mkdir(parents=True)
    script = ["set -euo pipefail", "source .venv/bin/activate"]
    for place, command in enumerate(shown):
        code = f" || [ $? = {command.code} ]" if command.code else ""
        script.append(f"{{\n{command.text}\n}} >{said}/{place}.out 2>{said}/{place}.err{code}")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    (said / "script").write_text("\n".join(script))
    done = subprocess.run(
        ["bash", said / "script"], cwd=folder, env=environment | {"HOME": str(home)}, stdin=subprocess.DEVNULL
    )
    ran = [place for place in range(len(shown)) if (said / f"{place}.out").exists()]
    for place in ran:
        output, errors = ((said / f"{place}.{end}").read_text() for end in ("out", "err"))
        about = f"{page}, line {shown[place].line}: {shown[place].text}\n{output[-2000:]}\n{errors[-2000:]}"
        assert done.returncode == 0 or place < ran[-1], about
        assert is_shown(output, shown[place].shown), about


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of what git tracks, with the environment that `make` has set up, after README's commands; and a home."""
    folder, home = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("home")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    run(folder, home, "README.md")
    return folder, home


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if commands(ROOT / page)])
def test_the_commands_of_a_page(copy: tuple[Path, Path], page: str) -> None:
    run(*copy, page)
