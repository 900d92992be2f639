"""A wake costs the broker one message, and nothing that is kept."""

from types import SimpleNamespace

import pytest

from core.queue import TASK_OF_KIND, Wakes, celery_app
from worker.taking import TakenForGood


@pytest.fixture
def consumer(settings):
    """As Celery's worker has one, on wakes for generations."""
    app = celery_app(settings.redis_url)
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.basic_qos(0, 1, False)
        queue = app.amqp.queues["generation"]
        consumer = app.amqp.TaskConsumer(channel, queues=[queue])
        consumer.app, consumer.drain_events = app, connection.drain_events
        yield consumer


def test_wakes_are_taken_without_a_trace(consumer, redis_client):
    taken, kept = [], []

    def take(message):
        taken.append(message.headers["task"])
        kept.append(redis_client.exists("unacked", "unacked_index"))
        message.ack()

    consumer.on_message = take
    TakenForGood(SimpleNamespace()).start(SimpleNamespace(task_consumer=consumer))
    wakes = Wakes(consumer.app)
    assert wakes.send("generation")
    assert wakes.send("generation")
    with consumer:
        for _ in range(2):
            consumer.drain_events(timeout=5)

    assert taken == [TASK_OF_KIND["generation"]] * 2
    assert kept == [0, 0]
    assert wakes.waiting("generation") == 0
    assert not consumer.channel.qos._dirty  # which would grow for ever
