"""Everything that can go wrong and has a name.

    AppError
    ├── Invalid              the request cannot be right as it stands
    │   ├── ConceptInvalid   a concept that cannot be erased as described
    │   ├── SizeNotDrawable  width or height the model cannot draw
    │   ├── SchedulerNotUsable  a scheduler that the model, or so many steps, cannot use
    │   ├── PromptRefused    the prompt names what the policy does not allow
    │   ├── PicturesBlocked  drawn, and withheld by the policy
    │   └── PictureUnreadable  bytes that are no picture
    ├── NotFound             no such thing
    │   ├── JobNotFound
    │   │   └── JobExpired   there was one
    │   ├── ModelNotFound
    │   ├── AliasNotFound    a model name that nobody may point elsewhere
    │   ├── ImageNotFound
    │   ├── ReportNotFound
    │   ├── ImageWithheld    there is no picture to see, since a policy or an error withholds it
    │   ├── ApiKeyNotFound
    │   ├── SigningKeyNotFound
    │   ├── PolicyNotFound
    │   └── AuditEntryNotFound
    ├── Conflict             right in itself, but not now
    │   ├── ModelNotServed   its status does not allow serving
    │   ├── ModelExists      the id is taken
    │   ├── ModelChanged     somebody else changed it meanwhile, on another host
    │   ├── DrawingCancelled  a generation that somebody waits for was cancelled
    │   ├── JobEnded         a cancel that came too late
    │   ├── JobNotFailed     a retry of a job that has not failed
    │   ├── JobUnreadable    its record is of a newer version of this program
    │   ├── ImageNotReady    its job has not ended yet
    │   ├── PromotionBlocked   a report is missing, or shows less than was demanded
    │   ├── ModelIsDefault   `default` means it, so it is not to be retired
    │   ├── NeverPointed     `default` means what the settings say: nothing to roll back to
    │   ├── DefaultMoved     somebody else pointed `default` elsewhere meanwhile
    │   ├── StatusUnreachable  promotion or retirement from a status that does not lead there
    │   ├── KeyReused        an idempotency key with another payload
    │   ├── SigningKeyInUse  the key that signs cannot be revoked
    │   └── ApiKeyRevoked    a revoked API key cannot be given a new secret
    ├── ApiKeyRefused        no API key where one is needed, or one that is not valid
    ├── ScopeMissing         the API key does not allow this
    ├── ModelNotAllowed      the policy does not allow this tenant the model
    ├── PolicyUnreadable     a policy from another version of this program
    ├── AddressForbidden     a place the service may not connect to for a client
    ├── Busy                 try later
    │   ├── QueueFull
    │   ├── TenantQueueFull
    │   ├── RateLimited      more requests a minute than the policy allows
    │   ├── TooManyStreams   of events, open at once
    │   └── QuotaSpent       more pictures a day than the policy allows
    ├── UntrustedModel       signature, digests or contents of a model folder do not check out
    ├── SingularEdit         the closed form has no stable solution
    ├── SteeringDiverged     the training of stage 2 blew up
    ├── NotEnoughRoom        too little memory or disk to begin an erasure
    ├── ModelUnsupported     not a kind of model this code can load or erase
    ├── ModelTooLarge        its weights do not fit the device
    ├── DetectorNotUsable    no such detector, or it cannot run here as asked
    ├── DetectorFailed       a detector did not judge; never to be taken for "safe"
    ├── DrawingFailed        a generation that somebody waits for came to no picture
    ├── StillDrawing         a generation that somebody waits for takes longer than they can
    ├── PictureNotFinite     the model computed numbers that are no picture
    ├── DetectorUnavailable  a picture that cannot be judged, and so is not shown
    ├── ContentCredentialsFailed  a picture that cannot be signed as the settings want it
    ├── LeaseLost            another worker has this job now
    ├── JobCancelled         the work stops because its job was cancelled
    ├── Misconfigured        the process cannot start like this
    └── RetryableError       the same work may succeed later
        ├── StoreUnavailable   Redis does not answer
        ├── PicturesUnavailable  the store of pictures does not answer, or refuses us
        ├── ModelsUnavailable  the same of the store of models
        ├── WeightsDiffer      the device holds other weights than were put there
        └── DeviceOutOfMemory

Core knows nothing of HTTP: `service/problems.py` gives each a status code. The message of an
AppError is written for the user who caused it: what was wrong, and what would be right.
"""

from core.findings import Finding


class AppError(Exception):
    """Base of all errors with a name; its message may be shown to the client."""

    @property
    def detail(self) -> str:
        return str(self)


class Invalid(AppError):
    pass


class ConceptInvalid(Invalid):
    pass


class SizeNotDrawable(Invalid):
    pass


class SchedulerNotUsable(Invalid):
    pass


class PromptRefused(Invalid):
    def __init__(self, message: str, finding: Finding) -> None:
        super().__init__(message)
        self.finding = finding


class PicturesBlocked(Invalid):
    def __init__(self, message: str, finding: Finding) -> None:
        super().__init__(message)
        self.finding = finding


class PictureUnreadable(Invalid):
    pass


class NotFound(AppError):
    pass


class JobNotFound(NotFound):
    pass


class JobExpired(JobNotFound):
    pass


class ModelNotFound(NotFound):
    pass


class AliasNotFound(NotFound):
    pass


class ImageNotFound(NotFound):
    pass


class ReportNotFound(NotFound):
    pass


class ImageWithheld(NotFound):
    pass


class ApiKeyNotFound(NotFound):
    pass


class SigningKeyNotFound(NotFound):
    pass


class PolicyNotFound(NotFound):
    pass


class AuditEntryNotFound(NotFound):
    pass


class Conflict(AppError):
    pass


class ModelNotServed(Conflict):
    pass


class ModelExists(Conflict):
    pass


class ModelChanged(Conflict):
    pass


class DrawingCancelled(Conflict):
    pass


class JobEnded(Conflict):
    pass


class JobNotFailed(Conflict):
    pass


class JobUnreadable(Conflict):
    pass


class ImageNotReady(Conflict):
    pass


class PromotionBlocked(Conflict):
    pass


class ModelIsDefault(Conflict):
    pass


class NeverPointed(Conflict):
    pass


class DefaultMoved(Conflict):
    pass


class StatusUnreachable(Conflict):
    pass


class KeyReused(Conflict):
    pass


class SigningKeyInUse(Conflict):
    pass


class ApiKeyRevoked(Conflict):
    pass


class ApiKeyRefused(AppError):
    pass


class ScopeMissing(AppError):
    pass


class ModelNotAllowed(AppError):
    pass


class PolicyUnreadable(AppError):
    pass


class AddressForbidden(AppError):
    pass


class Busy(AppError):
    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Busy):
    pass


class TenantQueueFull(Busy):
    pass


class RateLimited(Busy):
    pass


class QuotaSpent(Busy):
    pass


class TooManyStreams(Busy):
    pass


class UntrustedModel(AppError):
    pass


class SingularEdit(AppError):
    pass


class SteeringDiverged(AppError):
    pass


class NotEnoughRoom(AppError):
    pass


class ModelUnsupported(AppError):
    pass


class ModelTooLarge(AppError):
    pass


class DetectorNotUsable(AppError):
    pass


class DetectorFailed(AppError):
    pass


class DrawingFailed(AppError):
    pass


class StillDrawing(AppError):
    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class PictureNotFinite(AppError):
    pass


class DetectorUnavailable(AppError):
    def __init__(self, message: str, finding: Finding) -> None:
        super().__init__(message)
        self.finding = finding


class ContentCredentialsFailed(AppError):
    pass


class LeaseLost(AppError):
    pass


class JobCancelled(AppError):
    pass


class Misconfigured(AppError):
    pass


class RetryableError(AppError):
    pass


class StoreUnavailable(RetryableError):
    pass


class PicturesUnavailable(RetryableError):
    """`refused` where the store answered that it is not for us: waiting alone mends nothing."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class ModelsUnavailable(RetryableError):
    pass


class WeightsDiffer(RetryableError):
    pass


class DeviceOutOfMemory(RetryableError):
    pass
