"""What the flags of an erasure in one's own process say, in `trce erase` and `python -m trainer`.

Here since both read it, and the image of the service has one of the two.
"""

from typing import Final

MERGE: Final = (
    "an erased model that SPEC names in `merge`, as a folder; repeat it in the same order"
)
WORK: Final = "keep checkpoints of stage 2 here; a run that was killed resumes from them"
CACHE: Final = (
    "keep the moments of captions here for other runs (default: trce in $XDG_CACHE_HOME, or in "
    "~/.cache)"
)
CAPTIONS: Final = "captions to preserve, one a line, in place of the everyday ones that ship"
LIKE: Final = (
    "for one file of other than the published sizes: a diffusers folder of the same "
    "architecture, for its configs"
)
DEVICE: Final = "cpu, cuda, cuda:1 ..."
PROCESSES: Final = "processes that stage 2 runs in: with --device cuda, GPUs"
THREADS: Final = "threads on the CPU (default: PyTorch's choice)"
