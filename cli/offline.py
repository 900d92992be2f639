"""Erasure in this process, on an installation's data folder: no service, no broker."""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from cli.running import Running
from core.errors import Invalid
from core.installation import open_registry
from core.manifests import Manifest
from core.model_folder import MANIFEST
from core.registrar import Registrar
from core.settings import Settings
from core.signing import Signer
from core.specs import ErasureSpec
from core.terminating import cleaned_up
from core.user_cache import user_cache

MAX_NAME_CHARS = 60
SHIPPED = "emoji"
IN_ONE_PROCESS = Running()


def erase_here(
    spec: ErasureSpec,
    settings: Settings,
    *,
    model_id: str | None = None,
    running: Running = IN_ONE_PROCESS,
) -> Manifest:
    """Make the model, sign it and register it as a candidate.

    Raises:
        AppError: and the registry is as it was.
    """
    # Not before: it imports torch, which every other subcommand does without.
    from trainer.erase import erase  # noqa: PLC0415
    from trainer.full_disk import full_disk_named  # noqa: PLC0415
    from trainer.inputs import checked_model_id  # noqa: PLC0415
    from trainer.reporting import bars, quieten_libraries  # noqa: PLC0415

    signer = Signer.load(settings.keys_dir)
    registry = open_registry(settings)
    base = registry.get(registry.resolve(spec.base_model))
    if base.kind != "base":
        raise Invalid(f"{base.id} is an erased model; erase from its base instead")
    merge = [registry.path(registry.get(one).id) for one in spec.merge]
    model_id = _free_id(spec) if model_id is None else checked_model_id(model_id)
    if registry.path(model_id).exists():
        raise Invalid(f"there is a model {model_id} already; choose another id")
    scratch = registry.making.begin("offline")
    quieten_libraries()
    running.set_threads()
    try:
        with cleaned_up(), full_disk_named(scratch, running.work), bars() as report:
            made = erase(
                registry.path(base.id),
                base,
                spec.model_copy(update={"base_model": base.id}),
                scratch / "model",
                report,
                model_id=model_id,
                device=running.device,
                cache=settings.cache_dir,
                merge=merge,
                work=running.work,
                processes=running.processes,
            )
        return Registrar(registry).add(made, scratch / "model", signer)
    finally:
        registry.making.clear(scratch)


def erase_into(
    out: Path,
    spec: ErasureSpec,
    base: Path,
    *,
    like: Path | None,
    captions: Path | None,
    cache: Path | None,
    merge: Sequence[Path],
    running: Running,
) -> Manifest:
    """Make an unsigned model in the folder `out` from the base model in `base`.

    Args:
        cache: None: the user's own.
        merge: the folders of the models that `spec.merge` names, in that order.

    Raises:
        AppError: and `out` is not there.
    """
    from trainer.erase import erase  # noqa: PLC0415
    from trainer.full_disk import full_disk_named  # noqa: PLC0415
    from trainer.inputs import base_folder, model_id_of, with_captions  # noqa: PLC0415
    from trainer.reporting import bars, quieten_libraries  # noqa: PLC0415

    if captions is not None:
        spec = with_captions(spec, captions)
    if spec.merge and not merge:
        raise Invalid(
            "the spec names models to merge: give --merge FOLDER for each, or merge models of an "
            "installation with `trce models merge`"
        )
    cache = cache or user_cache()
    manifest = Manifest.read(base) if (base / MANIFEST).exists() else None
    quieten_libraries()
    running.set_threads()
    model_id = model_id_of(out)
    with (
        cleaned_up(),
        full_disk_named(out, running.work, cache),
        base_folder(base, like, out) as folder,
        bars() as report,
    ):
        return erase(
            *(folder, manifest, spec, out, report),
            model_id=model_id,
            device=running.device,
            cache=cache,
            merge=merge,
            work=running.work,
            processes=running.processes,
        )


def name_of_base(base: Path | None) -> str:
    """What a base is called that nothing names: as its folder or file is; None: the shipped one.

    Raises:
        ModelUnsupported
    """
    if base is None:
        return SHIPPED

    from trainer.inputs import model_id_of  # noqa: PLC0415

    return model_id_of(base.with_suffix("") if base.is_file() else base)


def base_of(manifest: Manifest) -> str:
    """Raises Invalid: nothing was erased from it."""
    if manifest.edit is None:
        raise Invalid(f"{manifest.id} is a base model; name a model erased from it")
    return manifest.edit.base_model


def _free_id(spec: ErasureSpec) -> str:
    what = "-".join(spec.asked_for)
    parts = [spec.base_model, *(["merged"] if spec.merge else []), what, *spec.remove]
    words = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    return f"{words[:MAX_NAME_CHARS].rstrip('-')}-{secrets.token_hex(4)}"
