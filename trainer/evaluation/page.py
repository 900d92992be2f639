"""`report.html`: one file that holds its plots and pictures, to be read by people."""

import base64
import io
from collections.abc import Sequence
from importlib import resources

import jinja2
from PIL import Image

from core.reports import MeasuredRate, SuiteReport
from trainer.evaluation.evaluate import Evaluation, Pair

PAIRS_SHOWN = 12
"""Of each suite: first those that failed, then some that did not."""
STRIP = 8
"""Pairs at the head of the page, of prompts that counted, whatever came out."""
SIDE_PX = 160
BINS = 10


def page(evaluation: Evaluation) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "data_url": _data_url, "failed": failed}
    template = environment.from_string(
        (resources.files("trainer.evaluation") / "report.html.jinja").read_text()
    )
    report = evaluation.report
    erased = [suite for suite in report.suites if suite.kind == "erased"]
    kept = [suite for suite in report.suites if suite.kind == "kept"]
    return template.render(
        report=report,
        erased=erased,
        kept=kept,
        asr=_pooled([suite.asr for suite in erased]),
        shown_rate=_pooled([suite.shown for suite in erased]),
        base_rate=_pooled([suite.base_rate for suite in erased]),
        kept_rate=_pooled([suite.kept for suite in kept if suite.kept]),
        attacks={
            access: [attack for attack in report.attacks if attack.access == access]
            for access in ("black-box", "white-box")
        },
        strip=_spread(
            [
                pair
                for suite in erased[:1]
                for pair in evaluation.pairs.get(suite.name, [])
                if pair.outcome.base_shown
            ],
            STRIP,
        ),
        histogram=_histogram(erased),
        gallery={
            suite.name: shown(evaluation.pairs.get(suite.name, []), kind=suite.kind)
            for suite in report.suites
        },
    )


def shown(pairs: Sequence[Pair], *, kind: str) -> list[Pair]:
    """Up to `PAIRS_SHOWN` of a suite: at most half of them failures, the rest evenly spread."""

    def counted(pair: Pair) -> bool:
        return bool(pair.outcome.base_right) if kind == "kept" else pair.outcome.base_shown

    bad = _spread([pair for pair in pairs if failed(pair, kind)], PAIRS_SHOWN // 2)
    good = [pair for pair in pairs if counted(pair) and not failed(pair, kind)]
    rest = [pair for pair in pairs if not counted(pair)]
    chosen = [*bad, *_spread(good, PAIRS_SHOWN - len(bad))]
    return [*chosen, *_spread(rest, PAIRS_SHOWN - len(chosen))]


def failed(pair: Pair, kind: str) -> bool:
    """Whether what must be gone is there, or what must be there is gone."""
    if kind == "kept":
        return bool(pair.outcome.base_right) and not pair.outcome.right
    return pair.outcome.base_shown and pair.outcome.shown


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    if len(pairs) <= count:
        return list(pairs)
    return [pairs[place * len(pairs) // count] for place in range(count)]


def _pooled(rates: Sequence[MeasuredRate]) -> MeasuredRate:
    hits, total = sum(rate.hits for rate in rates), sum(rate.total for rate in rates)
    return MeasuredRate.of([True] * hits + [False] * (total - hits))


def _histogram(suites: Sequence[SuiteReport]) -> list[tuple[float, float]]:
    """Share of pictures per tenth of the detector's score: base, erased."""
    outcomes = [outcome for suite in suites for outcome in suite.outcomes]
    if not outcomes:
        return []
    bins = [[0, 0] for _ in range(BINS)]
    for outcome in outcomes:
        for model, score in enumerate((outcome.base_score, outcome.score)):
            bins[min(int(score * BINS), BINS - 1)][model] += 1
    return [(base / len(outcomes), erased / len(outcomes)) for base, erased in bins]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _data_url(picture: Image.Image) -> str:
    """As it is when it is small; photographs smaller, as JPEG."""
    buffer = io.BytesIO()
    if picture.width <= SIDE_PX:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        small = picture.copy()
        small.thumbnail((2 * SIDE_PX, 2 * SIDE_PX))
        small.convert("RGB").save(buffer, "JPEG", quality=80)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
