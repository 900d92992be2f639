"""How a worker takes wakes: for good, and at once.

Celery's Redis transport writes each message down before the task may run, and strikes it out
after. Both are writes that wait for the broker's disk, one of them before every claim, and they
keep nothing that matters: a wake that dies with its worker is sent again by whoever sweeps.
"""

from typing import Any

from celery import bootsteps


class TakenForGood(bootsteps.StartStopStep):
    """Messages are noted nowhere, and so there is nothing to acknowledge."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """For each connection: it has a channel of its own. Nothing has been consumed yet."""
        qos = consumer.task_consumer.channel.qos
        qos.append = _note
        qos.ack = _strike_out


def _note(_message: object, _delivery_tag: str) -> None: ...


def _strike_out(_delivery_tag: str) -> None: ...
