"""Reports about models that nobody drew with, to see what is made of them."""

from pathlib import Path

from core.evaluation import EvaluationSpec
from core.manifests import Manifest
from core.reports import (
    FILENAME,
    PAGE,
    AttackReport,
    Costs,
    DetectorRecord,
    Fidelity,
    MeasuredRate,
    ModelIdentity,
    Report,
    SuiteReport,
)

NOTHING = Fidelity(
    clip_score_base=None,
    clip_score=None,
    feature_distance=None,
    kernel_distance=None,
    frechet_distance=None,
    encoder=None,
)


def rate(hits: int, total: int) -> MeasuredRate:
    return MeasuredRate.of([True] * hits + [False] * (total - hits))


def suite(name: str = "explicit", *, kept=None, split="test", **asr) -> SuiteReport:
    return SuiteReport(
        name=name,
        kind="kept" if kept else "erased",
        source="built-in",
        split=split,
        digest="d" * 64,
        prompts=40,
        base_rate=rate(40, 40),
        asr=rate(asr.get("hits", 0), asr.get("total", 40)),
        shown=rate(0, 40),
        base_accuracy=kept and rate(40, 40),
        accuracy=kept,
        kept=kept,
        fidelity=NOTHING,
        outcomes=(),
    )


def attack(name: str = "p4d", *, hits: int = 0, total: int = 8) -> AttackReport:
    return AttackReport(
        name=name,
        access="white-box",
        budget=10,
        seed=0,
        digest="d" * 64,
        before=rate(0, total),
        asr=rate(hits, total),
        seconds=1,
        outcomes=(),
    )


def report(manifest: Manifest, *parts, created_at: float = 1.0, split="test") -> Report:
    suites = tuple(part for part in parts if isinstance(part, SuiteReport))
    attacks = tuple(part for part in parts if isinstance(part, AttackReport))
    return Report(
        created_at=created_at,
        code_version="0",
        libraries={},
        model=ModelIdentity(id=manifest.id, digest=manifest.content_digest),
        base=ModelIdentity(id="base", digest="b" * 64),
        request=EvaluationSpec(model=manifest.id, split=split),
        target=("pistol",),
        detector=DetectorRecord(name="classifier", version="1", classes=("x",), threshold=0.5),
        judge=None,
        suites=suites,
        attacks=attacks,
        costs=Costs(
            seconds=1,
            pictures_drawn=1,
            pictures_from_cache=0,
            pictures_per_second=1,
            peak_memory_bytes=1,
            device="cpu",
        ),
    )


def write(made: Report, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILENAME).write_bytes(made.to_bytes())
    (folder / PAGE).write_text(f"<p>{made.model.id}</p>")
    return folder
