"""Bars while gigabytes pass: they count what passes, and show where somebody looks."""

import pytest
from typer.testing import CliRunner

from cli.byte_bars import size_of
from cli.main import app
from core.byte_counting import counting
from core.importing import import_base
from core.installation import open_registry
from core.registrar import Registrar
from core.settings import Settings
from core.signing import Signer
from tests.tiny_model import make_model


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture
def settings(tmp_path):
    return Settings(_env_file=None, data_dir=tmp_path / "data")


def test_an_import_counts_each_byte_copied_and_digested(source, settings):
    signer = Signer.load_or_create(settings.keys_dir)
    passed = []
    with counting(passed.append):
        import_base(source, "tiny", open_registry(settings), signer)

    copied = sum(
        path.stat().st_size
        for path in (settings.models_dir / "tiny").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    )
    assert sum(passed) == 2 * copied
    assert size_of([source]) >= copied


def test_signing_again_counts_each_byte_that_is_checked(source, settings):
    signer = Signer.load_or_create(settings.keys_dir)
    registry = open_registry(settings)
    model = import_base(source, "tiny", registry, signer)
    passed = []
    with counting(passed.append):
        Registrar(registry).sign_again("tiny", signer, vouched=True)
    registry.get("tiny").check_files(registry.path("tiny"))  # nobody hears of it any more

    assert sum(passed) == sum(
        (registry.path("tiny") / name).stat().st_size for name in model.files
    )


@pytest.mark.parametrize(
    ("terminal", "flags", "shown"),
    [
        pytest.param("1", [], True, id="a person"),
        pytest.param("0", [], False, id="a log"),
        pytest.param("1", ["--json"], False, id="a program at a terminal"),
    ],
)
def test_a_bar_is_shown_to_who_looks(source, settings, monkeypatch, terminal, flags, shown):
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    command = ["models", "import", str(source), "--id", "tiny"]
    result = CliRunner().invoke(app, [*command, "--data-dir", str(settings.data_dir), *flags])

    assert result.exit_code == 0, result.output
    assert ("importing tiny" in result.stderr) is shown
    assert "importing tiny" not in result.stdout
