"""Watching a long job of a running service."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cli.client import Client, Resource


def follow(client: Client, job_id: str, console: Console, *, jobs: str = "erasures") -> Resource:
    """Show the stages of a job as bars until it ends.

    Args:
        jobs: what kind of job, as its address says: `erasures`, `evaluations`.

    Raises:
        JobFailed.
        KeyboardInterrupt: which ends the watching, and says so: the job runs on.
    """
    try:
        return _watch(client, job_id, console, jobs)
    except KeyboardInterrupt:
        console.print(
            f"{job_id} runs on without being watched, and what was to follow it does not; "
            f"`trce jobs cancel {job_id}` ends it, `trce jobs list` shows it",
            soft_wrap=True,
            highlight=False,
        )
        raise


def _watch(client: Client, job_id: str, console: Console, jobs: str) -> Resource:
    columns = TextColumn("{task.description:<24}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=console) as bars:
        stages: dict[str, Any] = {}

        def show(job: Resource) -> None:
            progress = job.get("progress")
            if not progress:
                return
            stage = progress["stage"]
            for earlier, task in stages.items():
                if earlier != stage:
                    bars.update(task, completed=bars.tasks[task].total)
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=progress["total"])
            bars.update(stages[stage], completed=progress["done"], total=progress["total"])

        ended = client.wait(f"/v1/{jobs}/{job_id}", on_change=show)
        for task in stages.values():
            bars.update(task, completed=bars.tasks[task].total)
        return ended
