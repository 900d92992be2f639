"""A worker that the store of pictures refuses does not come up: it would draw in vain for ever."""

from core.checkup.check import Check
from core.checkup.pictures import check_answered
from core.errors import PicturesUnavailable
from core.installation import open_pictures
from core.settings import Settings


def look_at_pictures(settings: Settings) -> list[Check]:
    """One check; none while the bucket does not answer, as that is waited out.

    Raises:
        Misconfigured: a bucket is set, and what it needs is not installed.
    """
    if not settings.s3_bucket:
        return []  # a folder that may not be written was found before
    try:
        return [check_answered(open_pictures(settings))]
    except PicturesUnavailable:
        return []
