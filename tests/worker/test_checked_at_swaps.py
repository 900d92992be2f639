"""A model is held against its manifest again whenever its weights are swapped in."""

import shutil
from typing import NamedTuple

import pytest

from core import status_serials
from core.jobs import Job, JobState
from core.key_folder import KeyFolder
from core.manifests import ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer, Verifier
from core.status_serials import StatusSerials
from diffusion.denoiser import Denoiser
from tests.made_reports import report, suite, write
from worker import metrics
from worker.refusing import RefusalBoard

MODEL, OTHER, GOOD = "changed", "other", "good"
STEPS = 16


@pytest.fixture
def signer(settings) -> Signer:
    return Signer.load(settings.keys_dir)


@pytest.fixture
def served(settings, redis_client, registry, add_variant, signer, tmp_path, monkeypatch):
    """Three erased models of one base, each with the report that the installation demands."""
    monkeypatch.setattr(status_serials, "LOOK_EVERY_S", 0.0)
    for seed, model in enumerate((MODEL, OTHER, GOOD)):
        add_variant(model, seed=seed)
        folder = tmp_path / f"report-{model}"
        write(report(registry.get(model), suite()), folder)
        Registrar(registry).add_report(model, "one", folder, signer)
    return ModelRegistry(
        settings.models_dir,
        Verifier.load(settings.keys_dir),
        serve_unerased_base=True,
        default_model=GOOD,
        require_suites=("explicit",),
        serials=StatusSerials(redis_client),
    )


def resigned(registry, signer, **changes) -> None:
    """The manifest with these changes, signed anew: no signature gives them away."""
    manifest = registry.get(MODEL).model_copy(update=changes)
    manifest.signed(signer).write(registry.path(MODEL))


def signing_key_revoked(registry, signer, settings):
    keys, old = KeyFolder(settings.keys_dir), signer.key_id
    keys.rotate()
    for model in ("emoji", GOOD):
        Registrar(registry).sign_again(model, Signer.load(settings.keys_dir))
    keys.revoke(old)


def signed_by_a_foreign_key(registry, signer, settings):
    foreign = Signer.load_or_create(settings.data_dir / "foreign")
    resigned(registry, foreign)


def edited(registry, signer, settings):
    path = registry.path(MODEL) / "manifest.json"
    path.write_text(path.read_text().replace("pistol", "rifle"))


def files_of_another_model(registry, signer, settings):
    resigned(registry, signer, files=registry.get(OTHER).files)


def manifest_of_another_model(registry, signer, settings):
    data = (registry.path(OTHER) / "manifest.json").read_bytes()
    (registry.path(MODEL) / "manifest.json").write_bytes(data)


def made_from_another_base(registry, signer, settings):
    edit = registry.get(MODEL).edit.model_copy(update={"base_digest": "0" * 64})
    resigned(registry, signer, edit=edit)


def rolled_back(registry, signer, settings):
    path = registry.path(MODEL) / "manifest.json"
    serving = path.read_bytes()
    Registrar(registry).set_status(MODEL, ModelStatus.RETIRED, signer)
    registry.get(MODEL)
    path.write_bytes(serving)


def report_changed(registry, signer, settings):
    (registry.path(MODEL) / "reports" / "one" / "report.json").write_text("{}")


def report_changed_and_manifest_signed_again(registry, signer, settings):
    report_changed(registry, signer, settings)
    resigned(registry, signer, created_at=1.0)


def report_deleted(registry, signer, settings):
    (registry.path(MODEL) / "reports" / "one" / "report.json").unlink()


def retired(registry, signer, settings):
    Registrar(registry).set_status(MODEL, ModelStatus.RETIRED, signer)


def report_withdrawn(registry, signer, settings):
    resigned(registry, signer, reports={})


def removed(registry, signer, settings):
    shutil.rmtree(registry.path(MODEL))


UNTRUSTED = [
    signing_key_revoked,
    signed_by_a_foreign_key,
    edited,
    files_of_another_model,
    manifest_of_another_model,
    made_from_another_base,
    rolled_back,
    report_changed,
    report_changed_and_manifest_signed_again,
    report_deleted,
]
NOT_SERVED = [retired, report_withdrawn, removed]


class Drawn(NamedTuple):
    bad: Job
    good: Job
    went_on: bool
    """The first model made a step after it was tampered with."""


@pytest.fixture
def draw(
    served,
    signer,
    settings,
    submit,
    jobs,
    heartbeat,
    make_batcher,
    make_shelf,
    refusals,
    monkeypatch,
):
    """Draw with two models in turns; between two turns of the first, it is tampered with."""

    def run(tamper) -> Drawn:
        board = RefusalBoard(refusals, "inference-0@test")
        shelf = make_shelf(registry=served, refusals=board)
        bad, good = (submit(model=model, num_inference_steps=STEPS) for model in (MODEL, GOOD))
        stepped: list[str] = []
        before: list[str] = []
        step = Denoiser.step

        def noted(denoiser):
            (model,) = (v.model_id for v in shelf._variants.values() if v.denoiser is denoiser)
            stepped.append(model)
            return step(denoiser)

        def between(_: int) -> None:
            # The next step of the first one takes a swap.
            if not before and stepped and stepped[-1] == GOOD and MODEL in stepped:
                before.extend(stepped)
                tamper(served, signer, settings)

        heartbeat.on_step = between
        monkeypatch.setattr(Denoiser, "step", noted)
        make_batcher(shelf=shelf).drain()
        assert 0 < before.count(MODEL) < STEPS, "the models took no turns"
        return Drawn(jobs.get(bad), jobs.get(good), MODEL in stepped[len(before) :])

    return run


@pytest.mark.parametrize("tamper", UNTRUSTED, ids=lambda one: one.__name__.replace("_", " "))
def test_what_is_no_longer_to_be_trusted_is_refused_at_the_next_swap_and_told_of(
    draw, refusals, settings, tamper
):
    counted = metrics.REFUSED.labels(MODEL)._value.get()

    bad, good, went_on = draw(tamper)

    assert not went_on
    assert bad.state is JobState.FAILED
    assert not any(image.key for image in bad.images)
    assert MODEL in bad.reason
    assert not list((settings.images_dir / "generations" / bad.id).rglob("*.png"))
    assert list(refusals.all()) == [MODEL]
    assert metrics.REFUSED.labels(MODEL)._value.get() == counted + 1
    assert good.state is JobState.SUCCEEDED, "others are served on"


@pytest.mark.parametrize("tamper", NOT_SERVED, ids=lambda one: one.__name__.replace("_", " "))
def test_what_is_no_longer_served_stops_at_the_next_swap(draw, refusals, tamper):
    """By order of an operator: no reason to alarm anybody."""
    bad, good, went_on = draw(tamper)

    assert not went_on
    assert bad.state is JobState.FAILED
    assert not any(image.key for image in bad.images)
    assert good.state is JobState.SUCCEEDED
    assert refusals.all() == {}


def test_what_was_signed_again_by_a_trusted_key_is_drawn_to_its_end(draw, refusals):
    def sign_again(registry, signer, settings):
        KeyFolder(settings.keys_dir).rotate()
        Registrar(registry).sign_again(MODEL, Signer.load(settings.keys_dir))

    bad, good, went_on = draw(sign_again)

    assert went_on
    assert bad.state is good.state is JobState.SUCCEEDED
    assert refusals.all() == {}
