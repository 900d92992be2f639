"""What is kept under a key is made anew when the code that made it has changed."""

import shutil

import pytest

from trainer import sources


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the folders that are read."""
    for folder in sources.READ:
        shutil.copytree(
            sources.ROOT / folder,
            tmp_path / folder,
            ignore=shutil.ignore_patterns("__pycache__", "*.gz"),
        )
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    return tmp_path


def digests() -> tuple[str, str]:
    """Read anew; a process reads them once."""
    return sources.erasing_digest.__wrapped__(), sources.measuring_digest.__wrapped__()


@pytest.mark.parametrize(
    ("changed", "erasing"),
    [
        ("trainer/trce/step.py", True),
        ("trainer/templates.yaml", True),
        ("diffusion/erasure.py", True),
        ("trainer/evaluation/suites.py", False),
        ("trainer/pretraining/unet.py", False),
    ],
)
def test_a_changed_source_changes_the_digest_of_what_it_decides(copied, changed, erasing):
    before = digests()
    path = copied / changed
    path.write_text(path.read_text() + "\n# changed\n")
    after = digests()

    assert (after[0] != before[0]) is erasing
    assert after[1] != before[1]


def test_a_compiled_file_beside_its_source_changes_nothing(copied):
    before = digests()
    (copied / "trainer/__pycache__").mkdir()
    (copied / "trainer/__pycache__/steered.cpython-312.pyc").write_bytes(b"compiled")

    assert digests() == before
