"""The guides for customers: every command runs as it stands there, every link leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINKS = re.compile(r"\]\(([^)\s]+)\)")
WITHIN_S = 600


@pytest.mark.stack
@pytest.mark.parametrize("guide", ["tutorial", "quickstart"])
def test_every_command_of_a_guide_runs_as_it_stands(own_stack, tmp_path, guide):
    """Blocks marked `console` start the service itself; those marked `sh` are all run here."""
    text = (ROOT / "docs" / f"{guide}.md").read_text()
    script = "\n".join(COMMANDS.findall(text))
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TRCE_URL": own_stack.url,
        "TRCE_DATA_DIR": str(own_stack.data_dir),
        "YOUR_MODEL": str(ROOT / "models" / "emoji"),
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    pictures = {path.parent.name for path in tmp_path.glob("*/*.png")}
    assert pictures == {"before", "after"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    dead = []
    for link in LINKS.findall(page.read_text()):
        address, _, heading = link.partition("#")
        if "://" in address:
            continue
        target = (page.parent / address) if address else page
        if not target.exists() or (heading and heading not in headings(target)):
            dead.append(link)
    assert dead == []


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()

    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


def headings(page: Path) -> set[str]:
    """As GitHub makes anchors of them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}
