import shutil

import pytest
import torch
import yaml
from diffusers import UNet2DConditionModel

from core.errors import ConceptInvalid, ModelExists, SingularEdit, UntrustedModel
from core.making import describe
from core.manifests import Drawing, Manifest, ModelStatus
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.signing import Signer, Verifier
from core.specs import ErasureSpec
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from trainer.erase import erase
from trainer.solving import solve_again
from trainer.trce.archive import load_statistics

SPEC = ErasureSpec.model_validate(
    {
        "base_model": "tiny",
        "concepts": [
            {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"},
            {"name": "pistol", "replacement": "dog"},
        ],
        "textual": {"preserve": 0.002, "ridge": 1e-4, "eot_tokens": "first", "protect": ["saw"]},
    }
)


@pytest.fixture
def run(tiny_folder, tmp_path, cache):
    """Erase into tmp_path/<out>, and return what was reported."""

    def erase_it(spec=SPEC, *, out="out", base=tiny_folder, manifest=None):
        reports = []
        erase(
            *(base, manifest, spec, tmp_path / out, reports.append),
            model_id=f"tiny-{out}",
            cache=cache,
        )
        return reports

    return erase_it


def test_the_map_moves_the_concept_and_preserving_more_moves_the_rest_less(run, tmp_path, encoder):
    run(out="weak")
    strong = SPEC.textual.model_copy(update={"preserve": 20.0})
    run(SPEC.model_copy(update={"textual": strong}), out="strong")
    weak, strong = (
        Erasure.load(tmp_path / out / "erasure.safetensors") for out in ("weak", "strong")
    )

    def end(prompt):
        encoded = encoder.encode(prompt)
        return encoded.embedding[encoded.eot]

    for erased, replacement in (("an axe", "a flower"), ("a pistol", "a dog")):
        unsafe, safe = end(f"a photo of {erased}"), end(f"a photo of {replacement}")
        assert (weak.map_prompts(unsafe) - safe).norm() < 0.6 * (unsafe - safe).norm()
    kept = end("a bowl of soup in the snow")
    damage, slight = ((e.map_prompts(kept) - kept).norm() for e in (weak, strong))
    assert slight < 0.2 * damage


def test_the_folder_holds_what_the_manifest_says_and_nothing_is_left_beside_it(run, tmp_path):
    run()
    manifest = Manifest.read(tmp_path / "out")
    manifest.check_files(tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert manifest.status is ModelStatus.CANDIDATE
    assert manifest.kind == "erased"
    assert manifest.signature is None
    assert set(manifest.files) == {
        "README.md",
        "erasure.safetensors",
        "statistics.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }


def test_the_manifest_says_how_the_model_was_made(run, tmp_path, tiny_folder):
    run()
    edit = Manifest.read(tmp_path / "out").edit
    base = describe(
        tiny_folder,
        model_id="tiny",
        family="sd1",
        drawing=Drawing(native_px=16, multiple_px=4, max_px=32),
        code_version="",
    )

    assert (edit.base_model, edit.base_digest) == ("tiny", base.content_digest)
    assert edit.concepts == SPEC.concepts
    assert edit.textual == SPEC.textual
    assert edit.figures["words"] == pytest.approx(3)
    assert 0 < edit.figures["map_prompt_seconds"] < edit.seconds
    assert "erased_step_seconds" not in edit.figures
    assert 1 < edit.figures["condition_number"] < 1e6
    assert edit.figures["relative_change"] > 0.01
    assert edit.figures["artifact_bytes"] == (tmp_path / "out/erasure.safetensors").stat().st_size
    assert edit.seconds > 0


def test_the_baked_unet_draws_what_the_mapped_prompt_draws(run, tmp_path, tiny, encoder):
    run()
    baked = UNet2DConditionModel.from_pretrained(str(tmp_path / "out/unet"))
    erasure = Erasure.load(tmp_path / "out/erasure.safetensors")
    embedding = encoder.encode_all(["a photo of an axe"]).embeddings
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        mapped = tiny.unet(latents, 500, erasure.map_prompts(embedding)).sample
        torch.testing.assert_close(
            baked(latents, 500, embedding).sample, mapped, atol=5e-3, rtol=0
        )


def test_the_saved_statistics_solve_to_the_saved_map(run, tmp_path):
    run()
    concepts, kept = load_statistics(tmp_path / "out/statistics.safetensors")
    solved = solve_again(concepts, kept, SPEC.concepts, SPEC.textual).erasure

    assert list(concepts) == ["axe", "pistol"]
    assert torch.equal(
        Erasure.load(tmp_path / "out/erasure.safetensors").text_map, solved.text_map
    )


def test_the_same_job_makes_the_same_folder_byte_for_byte(run, tmp_path):
    """A worker that dies after its last line is followed by one that does it all again."""
    run(out="first")
    shutil.move(tmp_path / "first", tmp_path / "kept")
    run(out="first")
    first, second = Manifest.read(tmp_path / "kept"), Manifest.read(tmp_path / "first")
    assert first.files == second.files


def test_another_seed_preserves_other_captions(run, tmp_path):
    run(out="a")
    run(SPEC.model_copy(update={"seed": 1}), out="b")
    one, other = (Erasure.load(tmp_path / out / "erasure.safetensors").text_map for out in "ab")
    assert not torch.equal(one, other)
    assert (one - other).norm() < 0.1 * (one - torch.eye(len(one))).norm()


def test_progress_counts_every_stage_to_its_end(run):
    reports = run()
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == ["loading", "reading captions", "reading concepts", "solving", "writing"]
    for stage in stages:
        done = [report.done for report in reports if report.stage == stage]
        assert done == sorted(done)
        assert done[0] == 0
        assert done[-1] == next(report.total for report in reports if report.stage == stage)


def test_the_model_card_has_front_matter_that_a_hub_reads(run, tmp_path):
    run()
    _, front, body = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == "tiny"
    assert "axe" in body


def test_a_registry_takes_the_folder_as_it_is(run, tmp_path):
    keys = tmp_path / "keys"
    signer = Signer.load_or_create(keys)
    registry = ModelRegistry(
        tmp_path / "models", Verifier.load(keys), serve_unerased_base=False, default_model="tiny"
    )
    (tmp_path / "models").mkdir()
    run()
    added = Registrar(registry).add(Manifest.read(tmp_path / "out"), tmp_path / "out", signer)
    assert registry.get("tiny-out") == added


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        pytest.param({"textual": {"preserve": 1e-9, "ridge": 0}}, SingularEdit, id="singular"),
        pytest.param({"preset": "nope", "concepts": []}, ConceptInvalid, id="no such preset"),
    ],
)
def test_a_job_that_fails_leaves_nothing(run, tmp_path, spec, error):
    broken = ErasureSpec.model_validate(SPEC.model_dump() | spec)
    with pytest.raises(error):
        run(broken)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr("trainer.erase.write_unet", full)
    with pytest.raises(OSError, match="no space"):
        run()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_overwritten(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("x")
    with pytest.raises(ModelExists):
        run()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_a_base_that_is_not_as_its_manifest_says_is_refused(run, tiny_folder, tmp_path):
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    drawing = Drawing(native_px=16, multiple_px=4, max_px=32)
    manifest = describe(base, model_id="b", family="sd1", drawing=drawing, code_version="")
    with (base / "vae/config.json").open("a") as file:
        file.write(" ")

    with pytest.raises(UntrustedModel, match=r"vae/config\.json"):
        run(base=base, manifest=manifest)


def test_the_base_folder_is_not_changed(run, tiny_folder):
    before = {path: path.read_bytes() for path in tiny_folder.rglob("*") if path.is_file()}
    run()
    assert before == {path: path.read_bytes() for path in tiny_folder.rglob("*") if path.is_file()}


def test_half_precision_bases_are_read_in_full_precision(run, tiny_folder, tmp_path):
    """Their statistics are those of the rounded weights, not of rounded arithmetic."""
    half = shutil.copytree(tiny_folder, tmp_path / "half")
    parts = load_base(half, None, dtype=torch.float16)
    for name in ("unet", "vae", "text_encoder"):
        getattr(parts, name).save_pretrained(str(half / name))
    run(base=half, out="from-half")
    run(out="from-full")

    one, other = (
        Erasure.load(tmp_path / out / "erasure.safetensors").text_map
        for out in ("from-half", "from-full")
    )
    assert (one - other).norm() < 0.05 * (other - torch.eye(len(other))).norm()


def test_a_base_that_consists_of_links_is_the_base_that_they_lead_to(run, tiny_folder, tmp_path):
    """As a snapshot in a hub's cache does."""
    linked = tmp_path / "snapshot"
    for path in tiny_folder.rglob("*"):
        if path.is_file():
            link = linked / path.relative_to(tiny_folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    run(out="plain")
    run(out="linked", base=linked)

    plain, same = (Manifest.read(tmp_path / out) for out in ("plain", "linked"))
    assert same.files["erasure.safetensors"] == plain.files["erasure.safetensors"]
    assert (
        same.files["unet/diffusion_pytorch_model.safetensors"]
        == (plain.files["unet/diffusion_pytorch_model.safetensors"])
    )
    assert same.edit.base_digest == plain.edit.base_digest
    # What is registered holds nothing but files.
    registered = describe(
        tiny_folder, model_id="tiny", family="sd1", drawing=plain.drawing, code_version=""
    )
    with pytest.raises(UntrustedModel, match="not a plain file"):
        run(out="registered", base=linked, manifest=registered)


def test_a_base_with_a_folder_that_is_a_link_is_refused(run, tiny_folder, tmp_path):
    """Whatever is in it would be read, and missing from the base's digest."""
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    (base / "unet").rename(tmp_path / "unet")
    (base / "unet").symlink_to(tmp_path / "unet")
    with pytest.raises(UntrustedModel, match="unet is not a plain file"):
        run(base=base)
