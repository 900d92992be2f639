"""What pictures will look like, for one listener: each preview once."""

from core.job_news import JobNews
from core.progress import Preview


class Previews:
    """Only the latest of each picture is kept, so a listener that looks rarely sees fewer."""

    def __init__(self, news: JobNews, job_id: str) -> None:
        self._news = news
        self._job_id = job_id
        self._seen: dict[int, int] = {}

    def unseen(self) -> list[Preview]:
        """Raises StoreUnavailable."""
        found = [
            preview
            for preview in self._news.previews(self._job_id)
            if preview.step > self._seen.get(preview.index, 0)
        ]
        self._seen |= {preview.index: preview.step for preview in found}
        return found
