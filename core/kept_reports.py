"""The reports about models, each kept in the folder of its model."""

import secrets
import shutil
from pathlib import Path

from core.digests import sha256
from core.errors import ReportNotFound, UntrustedModel
from core.file_marks import FileMark, mark_of
from core.files import sync_folder, sync_tree
from core.manifests import Manifest, ReportEntry
from core.model_folder import INCOMING, REPORTS
from core.reports import FILENAME, PAGE, Report
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

    def marks(self, manifest: Manifest) -> tuple[FileMark | None, ...]:
        """Differ from what they were when a file that `of` reads came, went or changed."""
        folder = self._folder / manifest.id / REPORTS
        return tuple(mark_of(folder / name / FILENAME) for name in manifest.reports)

    def has(self, manifest: Manifest, report_id: str) -> bool:
        """Whether a report is there, each file as it was signed."""
        entry = manifest.reports.get(report_id)
        try:
            return entry is not None and all(
                self.file(manifest, report_id, name) for name in entry.files
            )
        except UntrustedModel:
            return False

    def keep(self, model_id: str, report_id: str, folder: Path, report: Report) -> ReportEntry:
        """Copy a report to where it is kept, whole; what is said of it in the manifest.

        What was there under that id gives way: it is no report as it was signed.

        Args:
            folder: where its files are now, and nobody else writes.
            report: what is in them.

        Raises:
            UntrustedModel: the copy was changed meanwhile.
        """
        # Of the files that were looked at: where they are kept, others may write, too.
        files = {name: sha256(folder / name) for name in (FILENAME, PAGE)}
        target = self._folder / model_id / REPORTS / report_id
        target.parent.mkdir(exist_ok=True)
        copy = self._folder / INCOMING / secrets.token_hex(8)
        try:
            shutil.copytree(folder, copy)
            sync_tree(copy)
            shutil.rmtree(target, ignore_errors=True)
            copy.rename(target)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        sync_folder(target.parent)
        if any(sha256(target / name) != digest for name, digest in files.items()):
            raise UntrustedModel(f"a report about {model_id} was changed while it was kept")
        return ReportEntry(created_at=report.created_at, files=files)

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
