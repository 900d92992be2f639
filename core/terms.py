"""The terms on which an installation accepts jobs, from its settings."""

from core.job_specs import Kind
from core.job_store import Terms
from core.settings import Settings


def terms(settings: Settings) -> dict[Kind, Terms]:
    return {
        "generation": Terms(
            max_queued=settings.max_queued_generations,
            max_open_per_tenant=settings.max_open_jobs_per_tenant,
            max_attempts=settings.generation_attempts,
            keep_s=settings.keep_generations_s,
        ),
        "erasure": Terms(
            max_queued=settings.max_queued_erasures,
            max_open_per_tenant=settings.max_open_jobs_per_tenant,
            max_attempts=settings.erasure_attempts,
            keep_s=settings.keep_erasures_s,
        ),
        "evaluation": Terms(
            max_queued=settings.max_queued_evaluations,
            max_open_per_tenant=settings.max_open_jobs_per_tenant,
            max_attempts=settings.evaluation_attempts,
            keep_s=settings.keep_evaluations_s,
        ),
    }
