"""The gate: what is missing before a model may be served. Nothing passes it unmeasured."""

from collections.abc import Iterable, Sequence

from core.detection import DetectorSpec
from core.manifests import Manifest
from core.reports import MeasuredRate, Report, SuiteReport
from core.thresholds import PromoteIf


def missing(
    manifest: Manifest, reports: Sequence[Report], *, required: Iterable[str] = ()
) -> list[str]:
    """In words, what a promotion lacks; empty when nothing does.

    Args:
        reports: of this model, signed; the newest that measures a thing decides on it.
        required: suites and attacks that the installation wants measured, at whatever rate.
    """
    terms = manifest.promote_if
    demanded = set(required)
    if terms is None and not demanded:
        return []
    aimed = [
        report
        for report in reports
        if report.model.digest == manifest.content_digest
        and _looks_for_what_was_erased(report, manifest)
    ]
    counting = [report for report in aimed if _was_judged_as_wanted(report, terms)]
    if not counting:
        return [_why_none_counts(manifest, reports, aimed)]
    newest = sorted(counting, key=lambda report: report.created_at, reverse=True)
    found = [] if terms is None else _failed(terms, newest)
    return found + [
        f"this installation demands {name}, which no report of these weights measures"
        for name in sorted(demanded)
        if not any(report.suite(name) or report.attack(name) for report in newest)
    ]


def _why_none_counts(
    manifest: Manifest, reports: Sequence[Report], aimed: Sequence[Report]
) -> str:
    if not reports:
        return "it has no report; POST /v1/evaluations, or `trce evaluate`, makes one"
    if all(report.model.digest != manifest.content_digest for report in reports):
        return "its reports are about other weights; evaluate these"
    if not aimed:
        return "its reports look for a `target` of their own; evaluate these weights without one"
    if manifest.promote_if is None or manifest.promote_if.detector is None:
        return "its reports have a `detector` of their own; evaluate these weights without one"
    wanted = manifest.promote_if.detector.model_dump_json(exclude_unset=True)
    return f"no report of these weights was made with the `detector` {wanted}"


def _looks_for_what_was_erased(report: Report, manifest: Manifest) -> bool:
    """Whoever may evaluate may look for less, or for something else: that opens nothing, and
    closes nothing either."""
    erased = {concept.name for concept in manifest.edit.concepts} if manifest.edit else set()
    return not report.request.target or set(report.request.target) == erased


def _was_judged_as_wanted(report: Report, terms: PromoteIf | None) -> bool:
    """The same of how it is looked for: classes that leave some out, or a threshold that nothing
    reaches."""
    asked = report.request.detector or DetectorSpec()
    if terms is not None and terms.detector is not None:
        return asked == terms.detector
    if report.judge is not None:
        return asked == DetectorSpec()
    return not asked.classes and asked.threshold is None


def _failed(terms: PromoteIf, newest: Sequence[Report]) -> list[str]:
    found = []
    of_split = [report for report in newest if report.request.split == terms.split]
    for name, limit in terms.max_asr.items():
        suite = _newest_suite(newest, name, terms)
        found += _over(f"suite {name}", suite.asr if suite else None, limit, terms)
    for name, limit in terms.min_kept.items():
        suite = _newest_suite(newest, name, terms)
        found += _under(f"suite {name}", suite.kept if suite else None, limit, terms)
    for attack_name, limit in terms.max_attack_asr.items():
        attack = next((one for report in of_split if (one := report.attack(attack_name))), None)
        found += _over(f"attack {attack_name}", attack.asr if attack else None, limit, terms)
    return found


def _newest_suite(newest: Sequence[Report], name: str, terms: PromoteIf) -> SuiteReport | None:
    """Prompt files have no split."""
    suites = (report.suite(name) for report in newest)
    return next((one for one in suites if one and one.split in {None, terms.split}), None)


def _over(what: str, rate: MeasuredRate | None, limit: float, terms: PromoteIf) -> list[str]:
    if unmeasured := _unmeasured(what, rate, terms):
        return unmeasured
    assert rate is not None
    value = rate.high if terms.upper_bound else rate.value
    if value <= limit:
        return []
    return [f"{what}: {_name(terms)} {value:.1%} is over {limit:.1%} ({rate})"]


def _under(what: str, rate: MeasuredRate | None, limit: float, terms: PromoteIf) -> list[str]:
    if unmeasured := _unmeasured(what, rate, terms):
        return unmeasured
    assert rate is not None
    value = rate.low if terms.upper_bound else rate.value
    if value >= limit:
        return []
    return [f"{what}: {value:.1%} kept is under {limit:.1%} ({rate})"]


def _unmeasured(what: str, rate: MeasuredRate | None, terms: PromoteIf) -> list[str]:
    if rate is None:
        return [f"{what}: no report of these weights measures it with the {terms.split} prompts"]
    if rate.total < terms.min_counted:
        return [f"{what}: {rate.total} prompts counted, {terms.min_counted} are needed"]
    return []


def _name(terms: PromoteIf) -> str:
    return "the upper bound of" if terms.upper_bound else "an attack success rate of"
