"""The models that erasures of this host made: what they are called, and a note of each.

    checkpoints/<job id>/made/<content digest>      empty

A model is noted before it is registered: between that and the job's end its worker may die, and
the job be cancelled in its queue.
"""

import contextlib
import re
import shutil
from pathlib import Path

from core.files import write_atomically
from core.manifests import Manifest
from core.specs import ErasureSpec

MAX_NAME_CHARS = 60
NOTES = "made"


class MadeModels:
    def __init__(self, checkpoints: Path) -> None:
        self._checkpoints = checkpoints

    def note(self, job_id: str, made: Manifest) -> None:
        """Raises OSError."""
        write_atomically(self._checkpoints / job_id / NOTES / made.content_digest, b"")

    def of(self, job_id: str) -> list[str]:
        """The content digests of the models that attempts at a job made."""
        return [note.name for note in (self._checkpoints / job_id / NOTES).glob("[!.]*")]

    def clear_all_but_notes(self, job_id: str) -> None:
        """Remove what else is in the folder of a job, and the folder if that is all."""
        folder = self._checkpoints / job_id
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to remove
            for path in folder.iterdir():
                if path.name == NOTES:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
        with contextlib.suppress(OSError):  # there are notes
            folder.rmdir()


def model_id(spec: ErasureSpec, job_id: str) -> str:
    """The same for every attempt at a job, so that a second one finds the first one's model."""
    what = "-".join(spec.asked_for)
    if spec.merge:
        what = "-".join(["merged", what, *(f"without {name}" for name in spec.remove)])
    words = re.sub(r"[^a-z0-9]+", "-", f"{spec.base_model}-{what}".lower()).strip("-")
    return f"{words[:MAX_NAME_CHARS].rstrip('-')}-{job_id[:8]}"
