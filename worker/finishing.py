"""From a picture to what becomes of it: judged, signed and stored; or withheld, with the reason.

A withheld picture is not stored at all. Nothing here takes part in drawing, so it runs beside it.
"""

import time

import structlog
from PIL.Image import Image

from core.errors import AppError, RetryableError
from core.findings import Finding
from core.jobs import ImageRecord, Lease
from core.picture_files import as_decoded, digest_of, encode
from core.provenance import Provenance, text_digest
from core.signing import Signer
from core.specs import GenerationSpec
from core.storage import PictureStore
from worker import metrics
from worker.content_credentials import ContentCredentials
from worker.infotext import infotext
from worker.judging import Panel
from worker.variant import Variant

log = structlog.get_logger()


class Finisher:
    def __init__(
        self,
        storage: PictureStore,
        signer: Signer,
        panel: Panel,
        credentials: ContentCredentials | None = None,
    ) -> None:
        """
        Args:
            signer: holds the key for pictures.
            credentials: where pictures carry Content Credentials, too.
        """
        self._storage = storage
        self._signer = signer
        self._panel = panel
        self._credentials = credentials

    def judges(self, tenant: str) -> bool:
        """Whether a tenant's pictures are judged before they may be seen, previews too.

        Raises:
            StoreUnavailable.
        """
        return self._panel.judges(tenant)

    def finish(
        self, lease: Lease, spec: GenerationSpec, index: int, picture: Image, variant: Variant
    ) -> ImageRecord:
        """What becomes of picture `index` of a job.

        Stored under the attempt's token: what a worker without a lease stores, nobody sees.

        Raises:
            RetryableError, OSError: it could be neither judged nor stored now.
        """
        seed = (spec.seed or 0) + index
        try:
            finding = self._panel.finding(picture, lease.tenant, variant.base.manifest)
            if finding is not None:
                return _filtered(lease, seed, finding)
            data = self._file(lease, spec, index, picture, variant)
        except RetryableError:
            raise
        except AppError as error:
            return withheld(lease, seed, error)
        key = f"generations/{lease.job_id}/{lease.token}/{index}.{spec.output_format}"
        self._storage.put(key, data)
        return ImageRecord(key=key, seed=seed)

    def _file(
        self, lease: Lease, spec: GenerationSpec, index: int, picture: Image, variant: Variant
    ) -> bytes:
        seed = (spec.seed or 0) + index
        parameters = infotext(spec, seed, variant)
        seen = as_decoded(picture, spec.output_format, spec.quality)
        edit = variant.manifest.edit
        provenance = Provenance(
            generation=lease.job_id,
            index=index,
            model=variant.model_id,
            model_digest=variant.digest,
            certificate=variant.manifest.certificate,
            base_model=edit.base_model if edit else None,
            base_digest=edit.base_digest if edit else None,
            seed=seed,
            made_at=int(time.time()),
            pixels=digest_of(seen),
            parameters=text_digest(parameters),
        )
        record = provenance.signed(self._signer).encoded()
        data = encode(
            picture, spec.output_format, spec.quality, parameters=parameters, record=record
        )
        if self._credentials is None:
            return data
        return self._credentials.sign(data, spec.output_format, provenance)


def withheld(lease: Lease, seed: int, error: AppError) -> ImageRecord:
    """A picture that something went wrong with: nobody gets to see it."""
    log.warning("withheld", job=lease.job_id, error=type(error).__name__)
    finding = getattr(error, "finding", None)
    return ImageRecord(seed=seed, finish_reason="error", finding=finding, reason=str(error))


def _filtered(lease: Lease, seed: int, finding: Finding) -> ImageRecord:
    metrics.BLOCKS.labels("picture", finding.category).inc()
    log.info(
        "content filtered",
        job=lease.job_id,
        detector=finding.detector,
        category=finding.category,
        policy=finding.policy,
    )
    return ImageRecord(seed=seed, finish_reason="content_filtered", finding=finding)
