"""Every picture set is named in NOTICE, under a licence that lets a derived model be shared."""

from pathlib import Path

from trainer.pretraining.set_table import SetTable

FREE = {"Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-3.0"}


def test_notice_names_every_set_with_its_version_and_licence():
    notice = Path("NOTICE").read_text()
    for source in SetTable.load().sets.values():
        line = next(line for line in notice.splitlines() if source["package"] + " " in line)
        assert source["version"] in line
        assert source["licence"] in line


def test_no_licence_asks_for_share_alike():
    assert {source["licence"] for source in SetTable.load().sets.values()} <= FREE


def test_the_judges_sets_are_kept_from_training():
    table = SetTable.load()
    assert not set(table.judges) & {*table.styles.values(), *table.extras}
