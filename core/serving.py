"""Which models an installation serves, and why not the others."""

from collections.abc import Sequence
from typing import NamedTuple

from core.errors import ModelNotServed, UntrustedModel
from core.file_marks import FileMark
from core.gate import missing
from core.kept_reports import KeptReports
from core.manifests import Manifest, ModelStatus

MAX_REMEMBERED = 256


class _Known(NamedTuple):
    reports: tuple[FileMark | None, ...]
    """The files that it was found out from."""
    lacking: list[str]


class Serving:
    def __init__(
        self, reports: KeptReports, *, serve_unerased_base: bool, require_suites: Sequence[str]
    ) -> None:
        """
        Args:
            require_suites: what a report must measure before an erased model is served.
        """
        self._reports = reports
        self._serve_unerased_base = serve_unerased_base
        self._require_suites = tuple(require_suites)
        self._known: dict[str, _Known] = {}

    def allows(self, manifest: Manifest) -> bool:
        """Whether a model is served."""
        if not manifest.erases and not self._serve_unerased_base:
            return False
        try:
            return manifest.status is ModelStatus.SERVING and not self._lacks(manifest)
        except UntrustedModel:
            return False

    def check(self, manifest: Manifest) -> None:
        """Raises ModelNotServed."""
        if self.allows(manifest):
            return
        if not manifest.erases:
            what = "base model" if manifest.kind == "base" else "model"
            raise ModelNotServed(
                f"{manifest.id} is a {what} from which nothing was erased, and this installation "
                "does not serve those; name an erased model, or set TRCE_SERVE_UNERASED_BASE=true"
            )
        if manifest.status is ModelStatus.SERVING:
            raise ModelNotServed(
                f"model {manifest.id} was promoted, and is not served as long as this is so: "
                f"{'; '.join(self._lacks(manifest))}"
            )
        raise ModelNotServed(
            f"model {manifest.id} is {manifest.status}, not serving; promote it first"
        )

    def missing(self, manifest: Manifest) -> list[str]:
        """What the model lacks before it may be served, in words; a base lacks nothing.

        Raises:
            UntrustedModel: a report is not as the manifest says.
        """
        if not manifest.erases:
            return []
        return missing(manifest, self._reports.of(manifest), required=self._require_suites)

    def _lacks(self, manifest: Manifest) -> list[str]:
        """What this installation demands to be measured, and no report does, nor was overridden.

        Settings may have become stricter since the model was promoted. Its reports are read again
        when the manifest, or one of their files, has changed.

        Raises:
            UntrustedModel: a report is not as the manifest says.
        """
        if not manifest.erases or not self._require_suites:
            return []
        assert manifest.signature is not None  # the registry returns signed ones only
        version = manifest.signature.value
        # The marks first: if a file changes in between, it is read once more.
        reports = self._reports.marks(manifest)
        known = self._known.get(version)
        if known is None or known.reports != reports:
            overridden = {what for one in manifest.overrides for what in one.missing}
            without_terms = manifest.model_copy(update={"promote_if": None})
            found = [what for what in self.missing(without_terms) if what not in overridden]
            known = _Known(reports, found)
            self._remember(version, known)
        return known.lacking

    def _remember(self, version: str, known: _Known) -> None:
        self._known[version] = known
        while len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
