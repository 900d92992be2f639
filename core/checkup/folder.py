"""The data folder: may we write there, is there room, are the keys and the models in it good?"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from core.checkup.check import Check, ok, problem, warning
from core.errors import AppError, UntrustedModel
from core.installation import open_registry
from core.settings import Settings
from core.signing import Signer, Verifier

SHORT_BYTES = 2 << 30


def check_folder(folder: Path, below: Iterable[str] = ()) -> list[Check]:
    """
    Args:
        below: folders in it that must be writable, too, where they are there.
    """
    name = "data folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return [problem(name, f"{folder} cannot be written ({error.strerror})", _fix(folder))]
    closed = [part for part in map(folder.joinpath, below) if part.exists() and not _open(part)]
    if closed:
        found = f"{', '.join(map(str, closed))} cannot be written"
        return [problem(name, found, _fix(folder))]
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < SHORT_BYTES:
        return [warning(name, found, "make room; models and pictures go there")]
    return [ok(name, found)]


def _open(part: Path) -> bool:
    return os.access(part, os.R_OK | os.W_OK | os.X_OK)


def _fix(folder: Path) -> str:
    return f"`chown -R {os.getuid()}:{os.getgid()} {folder}` on its host, or set TRCE_DATA_DIR"


def check_keys(settings: Settings) -> Check:
    try:
        signs = Signer.load(settings.keys_dir).key_id
        trusted = Verifier.load(settings.keys_dir).trusts(signs)
    except AppError as error:
        return problem("signing key", str(error), "`trce setup` makes one on the first run")
    if not trusted:
        return problem("signing key", f"{signs} is not trusted here", "`trce signing rotate`")
    path = settings.keys_dir / "signing.pem"
    if path.stat().st_mode & 0o077:
        return warning("signing key", f"others can read {path}", f"`chmod 600 {path}`")
    return ok("signing key", "there, private and trusted")


def check_models(
    settings: Settings,
    *,
    one_suffices: bool = False,
    while_digesting: Callable[[list[Path]], AbstractContextManager[None]] = lambda _: (
        nullcontext()
    ),
) -> Check:
    """Reads and digests every file of the models that are served.

    Args:
        one_suffices: those that fail are a warning while another is whole: workers refuse them.
        while_digesting: is given their folders, and stands around the work, to show how far it is.
    """
    broken = []
    try:
        registry = open_registry(settings)
        served = [one for one in registry.all() if registry.serving.allows(one)]
        with while_digesting([registry.path(one.id) for one in served]):
            for manifest in served:
                try:
                    manifest.check_files(registry.path(manifest.id))
                except UntrustedModel as error:
                    broken.append(str(error))
    except AppError as error:
        return problem("models", str(error), "restore the model from a backup, or retire it")
    if broken:
        bearable = one_suffices and len(broken) < len(served)
        return (warning if bearable else problem)(
            "models",
            f"{'; '.join(broken)} ({len(served) - len(broken)} of {len(served)} are whole)",
            "restore it from a backup, retire it, or, where no service runs, move its folder out "
            f"of {settings.models_dir}",
        )
    if not served:
        return warning(
            "models",
            "none is served",
            "erase and promote one, or set TRCE_SERVE_UNERASED_BASE=true",
        )
    return ok("models", f"{len(served)} served, every file as its manifest says")
