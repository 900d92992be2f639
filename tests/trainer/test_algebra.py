"""Concepts are added, taken out and merged exactly, without reading a prompt again."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.digests import sha256
from core.errors import ConceptInvalid, ModelUnsupported, UntrustedModel
from core.manifests import Manifest
from core.specs import ErasureSpec
from diffusion.erasure import Erasure
from diffusion.prompts import PromptEncoder
from trainer.erase import erase
from trainer.solving import solve_again
from trainer.trce.archive import load_statistics

AXE = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}
PISTOL = {"name": "pistol", "replacement": "dog"}
# The everyday captions that ship speak of bread, so these are withheld while it is erased.
BREAD = {"name": "bread", "replacement": "dog"}
OPTIONS = {"preserve": 0.02, "ridge": 1e-3, "protect": ["saw"]}


@pytest.fixture(scope="session")
def shelf(tiny_folder, tmp_path_factory):
    """Makes each model once, in a folder of its own, and returns the folder."""
    place, cache = tmp_path_factory.mktemp("erased"), tmp_path_factory.mktemp("cache")

    def make(name, *, merge=(), **fields):
        fields = {"base_model": "tiny", "merge": merge, "textual": OPTIONS} | fields
        if merge and fields["textual"] is OPTIONS:
            del fields["textual"]
        out = place / name
        if not out.exists():
            erase(
                *(tiny_folder, None, ErasureSpec.model_validate(fields), out, lambda _: None),
                model_id=name,
                cache=cache,
                merge=[place / one for one in merge],
            )
        return out

    make("a", concepts=[AXE])
    heavy = {"protect": [{"name": "saw", "weight": 9}]}
    make("heavy", concepts=[AXE], textual=OPTIONS | heavy)
    make("alone", concepts=[AXE], textual=OPTIONS | {"protect": ["file", "saw"]})
    make("b", concepts=[BREAD, PISTOL], textual=OPTIONS | {"protect": ["file", "saw"]})
    make(
        "joint",
        concepts=[AXE, BREAD, PISTOL],
        textual=OPTIONS | {"protect": ["file", "saw"]},
    )
    return make


def solved(folder):
    """T of a model in float64, as the artefact rounds it."""
    edit = Manifest.read(folder).edit
    statistics, kept = load_statistics(folder / "statistics.safetensors")
    return solve_again(statistics, kept, edit.concepts, edit.textual).edit.text_map


def text_map(folder):
    return Erasure.load(folder / "erasure.safetensors").text_map


@pytest.fixture
def no_reading(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("a prompt was read")

    monkeypatch.setattr(PromptEncoder, "encode_all", refuse)
    monkeypatch.setattr("trainer.erase.load_prompt_encoder", refuse)


def test_a_merge_is_what_erasing_everything_at_once_gives(shelf, no_reading):
    merged = solved(shelf("merged", merge=["a", "b"]))
    joint = solved(shelf("joint"))
    assert (merged - joint).abs().max() < 1e-10
    assert (joint - torch.eye(len(joint))).abs().max() > 0.01
    for alone in ("a", "b"):
        assert (solved(shelf(alone)) - joint).abs().max() > 1e-3


def test_the_order_of_merging_makes_no_bit_of_a_difference(shelf):
    one, other = shelf("ab", merge=["a", "b"]), shelf("ba", merge=["b", "a"])
    assert torch.equal(text_map(one), text_map(other))


def test_adding_and_taking_out_again_changes_nothing(shelf):
    added = shelf("added", merge=["a"], concepts=[BREAD])
    assert (solved(added) - solved(shelf("a"))).abs().max() > 1e-3
    back = shelf("back", merge=["added"], remove=["bread"])
    assert torch.equal(solved(back), solved(shelf("a")))


def test_adding_reads_what_is_new_and_gives_what_erasing_both_gives(shelf):
    added = solved(shelf("added", merge=["a"], concepts=[BREAD]))
    anew = solved(shelf("anew", concepts=[BREAD, AXE]))
    assert (added - anew).abs().max() < 1e-10


def test_taking_out_gives_what_erasing_without_it_gives(shelf, no_reading):
    out = solved(shelf("without", merge=["joint"], remove=["bread", "pistol"]))
    assert (out - solved(shelf("alone"))).abs().max() < 1e-10


def test_merging_a_model_with_itself_or_its_parts_counts_nothing_twice(shelf):
    assert torch.equal(solved(shelf("part", merge=["a", "joint"])), solved(shelf("joint")))


def test_without_its_last_concept_a_model_is_its_base_bit_for_bit(shelf, tiny_folder, tiny):
    none = shelf("none", merge=["b"], remove=["bread", "pistol"])
    manifest = Manifest.read(none)
    assert manifest.kind == "erased"
    assert not manifest.erases
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (none / weights).read_bytes() == (tiny_folder / weights).read_bytes()
    erasure = Erasure.load(none / "erasure.safetensors")
    assert erasure.text_map is None
    assert not erasure.tensors
    again = solved(shelf("again", merge=["none", "a"]))
    assert (again - solved(shelf("ab2", merge=["a", "b"], remove=["bread", "pistol"]))).norm() == 0


def test_a_neighbour_of_more_weight_is_weighed_anew(shelf, no_reading):
    heavy = {"protect": [{"name": "saw", "weight": 9}]}
    merged = solved(shelf("heavier", merge=["a"], textual=heavy))
    assert (merged - solved(shelf("heavy"))).abs().max() < 1e-10
    assert (merged - solved(shelf("a"))).abs().max() > 1e-4


def test_another_strength_scales_the_change_and_keeps_the_solution(shelf, no_reading):
    half = text_map(shelf("half", merge=["a"], textual={"strength": 0.5}))
    full = text_map(shelf("a"))
    identity = torch.eye(len(full))
    torch.testing.assert_close(half - identity, (full - identity) / 2, atol=1e-7, rtol=0)


def test_the_manifest_names_the_models_it_was_merged_from(shelf):
    edit = Manifest.read(shelf("merged", merge=["a", "b"])).edit
    assert edit.merged == ("a", "b")
    assert [concept.name for concept in edit.concepts] == ["axe", "bread", "pistol"]


def copy_with(shelf, tmp_path, name, change):
    """A model of the shelf in another folder, changed and described again."""
    folder = shutil.copytree(shelf(name), tmp_path / name)
    change(folder)
    return folder


def described_again(folder, name):
    manifest = Manifest.read(folder)
    files = manifest.files | {name: sha256(folder / name)}
    manifest.model_copy(update={"files": files, "blake3": None}).write(folder)


def made_before_words_were_moved(folder):
    """Its statistics have the same tensors under the format's former name."""
    path = folder / "statistics.safetensors"
    with safe_open(str(path), framework="pt") as file:
        [contents] = file.metadata().values()
    save_file(load_file(path), path, metadata={"trce-statistics-2": contents})
    described_again(folder, path.name)


def refused(tiny_folder, tmp_path, error, why, *folders, names=None):
    names = names or [folder.name for folder in folders]
    spec = ErasureSpec.model_validate({"base_model": "tiny", "merge": names})
    out = tmp_path / "out"
    with pytest.raises(error, match=why):
        erase(tiny_folder, None, spec, out, lambda _: None, model_id="out", merge=folders)
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_weights_trained_by_stage_2_are_not_merged(shelf, tiny_folder, tmp_path):
    def steer(folder):
        erasure = Erasure.load(folder / "erasure.safetensors")
        changed = Erasure(erasure.text_map, {"conv_in.bias": torch.zeros(8)})
        changed.save(folder / "erasure.safetensors")
        described_again(folder, "erasure.safetensors")

    folder = copy_with(shelf, tmp_path, "a", steer)
    refused(tiny_folder, tmp_path, ModelUnsupported, "stage 2 changed 1 tensors of a", folder)


def test_the_last_concept_of_a_trained_model_gives_back_the_base(tiny_folder, tmp_path, shelf):
    """Bit for bit: neither T nor a trained tensor is left."""
    few = {"steps": 2, "batch": 1, "anchors": 1, "trajectories": 2, "trajectory_steps": 2}
    few |= {"anchor_trajectories": 1, "kept_trajectories": 1, "learning_rate": 1e-3}
    steered = shelf("steered", concepts=[AXE], steering=few)
    assert Erasure.load(steered / "erasure.safetensors").tensors
    with pytest.raises(ConceptInvalid, match="give `steering`"):
        shelf("more", merge=["steered"], remove=["axe"], concepts=[BREAD])

    bare = shelf("bare", merge=["steered"], remove=["axe"])
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (bare / weights).read_bytes() == (tiny_folder / weights).read_bytes()
    erasure = Erasure.load(bare / "erasure.safetensors")
    assert erasure.text_map is None
    assert not erasure.tensors
    assert not Manifest.read(bare).erases


def test_a_merge_may_train_anew_what_stage_2_had_trained(tmp_path):
    """Told apart at the door already, by the manifests."""
    from core.merging import completed
    from core.specs import SteeringOptions

    edit = {
        "base_model": "tiny",
        "base_digest": "d",
        "method": "trce",
        "concepts": [AXE],
        "textual": {},
        "steering": SteeringOptions().model_dump(),
        "seed": 0,
        "seconds": 1,
    }
    steered = Manifest.model_validate(
        {
            "id": "steered",
            "kind": "erased",
            "family": "sd1",
            "status": "candidate",
            "created_at": 0,
            "code_version": "",
            "drawing": {"native_px": 16, "multiple_px": 4, "max_px": 32},
            "edit": edit,
            "files": {"a": "b"},
        }
    )
    spec = {"base_model": "tiny", "merge": ["steered"]}
    with pytest.raises(ConceptInvalid, match="stage 2 trained the weights of steered"):
        completed(ErasureSpec.model_validate(spec), [steered])
    anew = ErasureSpec.model_validate(spec | {"steering": {}})
    assert completed(anew, [steered]).steering == SteeringOptions()


def test_statistics_from_before_words_were_moved_are_those_of_things(
    shelf, tiny_folder, tmp_path, no_reading
):
    folder = copy_with(shelf, tmp_path, "a", made_before_words_were_moved)
    out = tmp_path / "out"
    spec = ErasureSpec.model_validate({"base_model": "tiny", "merge": ["a"]})
    erase(tiny_folder, None, spec, out, lambda _: None, model_id="out", merge=[folder])

    assert torch.equal(text_map(out), text_map(shelf("a")))


def test_statistics_from_before_words_were_moved_are_not_those_of_styles(
    shelf, tiny_folder, tmp_path
):
    shelf("style", concepts=[AXE, BREAD | {"kind": "style"}])
    folder = copy_with(shelf, tmp_path, "style", made_before_words_were_moved)
    refused(tiny_folder, tmp_path, ConceptInvalid, "of bread hold none; add that", folder)

    out = tmp_path / "out"
    again = {"remove": ["bread"], "concepts": [BREAD | {"kind": "style"}]}
    spec = ErasureSpec.model_validate({"base_model": "tiny", "merge": ["style"]} | again)
    erase(tiny_folder, None, spec, out, lambda _: None, model_id="out", merge=[folder])
    torch.testing.assert_close(solved(out), solved(shelf("style")), rtol=0, atol=1e-10)


def test_a_changed_file_is_refused(shelf, tiny_folder, tmp_path):
    def damage(folder):
        data = bytearray((folder / "statistics.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "statistics.safetensors").write_bytes(data)

    folder = copy_with(shelf, tmp_path, "a", damage)
    refused(tiny_folder, tmp_path, UntrustedModel, "statistics", folder)


def test_a_model_of_another_base_of_that_name_is_refused(shelf, tmp_path):
    from tests.tiny_model import make_model

    other = make_model(tmp_path / "tiny", seed=9)
    refused(other, tmp_path, ConceptInvalid, "made from another tiny", shelf("a"))


def test_folders_and_names_must_agree(shelf, tiny_folder, tmp_path):
    refused(tiny_folder, tmp_path, ConceptInvalid, "names b", shelf("a"), names=["b"])
    refused(tiny_folder, tmp_path, ConceptInvalid, "not there", tmp_path / "gone")


def test_a_round_trip_loses_no_bit(shelf, tmp_path):
    one, other = (
        load_file(shelf(name) / "statistics.safetensors")
        for name in ("a", "back")
        if shelf("added", merge=["a"], concepts=[BREAD])
        and shelf("back", merge=["added"], remove=["bread"])
    )
    for name in ("0.displacement", "0.moment", "0.weight"):
        assert torch.equal(one[name], other[name])
