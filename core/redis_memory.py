"""How much of its memory Redis has used: nine tenths of it, and nothing new is accepted."""

from typing import Any, NamedTuple

import redis

from core.redis_connection import answering


class RedisMemory(NamedTuple):
    used_bytes: int
    bound_bytes: int
    """Its `maxmemory`; 0: none."""


def redis_memory(client: redis.Redis) -> RedisMemory:
    """Raises StoreUnavailable."""
    with answering():
        info: Any = client.info("memory")
    return memory_in(info)


def memory_in(info: dict[str, Any]) -> RedisMemory:
    """Of what INFO answers."""
    return RedisMemory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))
