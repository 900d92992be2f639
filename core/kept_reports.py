"""The reports about models, each kept in the folder of its model."""

from pathlib import Path

from core.errors import ReportNotFound
from core.manifests import REPORTS, Manifest
from core.reports import FILENAME, Report
from core.signed_files import signed_file


class KeptReports:
    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: that of the models.
        """
        self._folder = folder

    def of(self, manifest: Manifest) -> list[Report]:
        """Every report about a model, checked against its manifest; oldest first.

        Raises:
            UntrustedModel.
        """
        found = [Report.parse(self.file(manifest, name, FILENAME)) for name in manifest.reports]
        return sorted(found, key=lambda report: report.created_at)

    def file(self, manifest: Manifest, report_id: str, name: str) -> bytes:
        """A file of a report, as it was signed.

        Raises:
            ReportNotFound.
            UntrustedModel: it is missing, or not as the manifest says.
        """
        entry = manifest.reports.get(report_id)
        if entry is None or name not in entry.files:
            raise ReportNotFound(f"model {manifest.id} has no report {report_id}")
        path = f"{REPORTS}/{report_id}/{name}"
        return signed_file(self._folder / manifest.id, manifest, path, manifest.report_files)
