"""Whether Redis keeps what it is told: jobs that were accepted must survive its restart."""

from typing import Any

import redis

from core.checkup.check import Check, ok, problem, warning
from core.checkup.clock import check_clock
from core.redis_memory import memory_in

FULL = 0.8
"""Of maxmemory: from here on a day's growth may fill it."""
OLDEST = (7, 0)
"""Major and minor: ZADD with GT (6.2), and how many entries a stream was given (7.0)."""


def check_broker(client: redis.Redis) -> list[Check]:
    """Looks at one server; one check when it does not answer."""
    try:
        clock = check_clock(client)
        info: dict[str, Any] = _plain(client.info())
        config = _config(client)
    except redis.AuthenticationError as error:
        return [problem("redis", f"it refuses us: {error}", "put the password into REDIS_URL")]
    except (redis.RedisError, OSError) as error:
        return [
            problem(
                "redis",
                f"it does not answer ({error})",
                "start it, or correct REDIS_URL; `trce up` brings one of its own",
            )
        ]
    return [
        _version(info),
        _durability(info, config),
        _eviction(info, config),
        _memory(info),
        clock,
    ]


def _version(info: dict[str, Any]) -> Check:
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    if info.get("role") not in {"master", None}:
        return problem(
            "redis", "it is a replica, which takes no writes", "point REDIS_URL at the primary"
        )
    if info.get("cluster_enabled"):
        return problem("redis", "it is a cluster", "use one node, or Sentinel: scripts span keys")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return problem("redis", f"version {version}", f"use version {oldest} or newer")
    return ok("redis", f"version {version} answers")


def _durability(info: dict[str, Any], config: dict[str, str]) -> Check:
    name = "redis persistence"
    if not info.get("aof_enabled"):
        return problem(
            name,
            "accepted jobs would be lost with its next restart",
            "start Redis with `--appendonly yes --appendfsync always`",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        return problem(name, "its last write to disk failed", "make room on the disk of Redis")
    fsync = config.get("appendfsync", "unknown")
    if fsync == "unknown":
        return warning(
            name, "append-only; it does not tell its appendfsync", "see that it is always"
        )
    if fsync != "always":
        return problem(
            name,
            f"appendfsync is {fsync}: a crash loses what was accepted since the last write",
            "start Redis with `--appendfsync always`",
        )
    return ok(name, "append-only, written before it answers")


def _eviction(info: dict[str, Any], config: dict[str, str]) -> Check:
    policy = str(config.get("maxmemory-policy") or info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return ok("redis eviction", "noeviction")
    return problem(
        "redis eviction",
        f"maxmemory-policy is {policy}: it would drop jobs when memory runs short",
        "start Redis with `--maxmemory-policy noeviction`",
    )


def _memory(info: dict[str, Any]) -> Check:
    used, bound = memory_in(info)
    if not bound:
        return ok("redis memory", f"{used >> 20} MB used, no bound")
    found = f"{used >> 20} of {bound >> 20} MB used"
    if used >= bound:
        return problem("redis memory", found, "raise maxmemory: it takes no jobs now")
    if used > FULL * bound:
        return warning("redis memory", found, "raise maxmemory, or lower TRCE_KEEP_GENERATIONS_S")
    return ok("redis memory", found)


def _config(client: redis.Redis) -> dict[str, str]:
    """Empty where a hosted Redis does not allow the question."""
    try:
        return dict(_plain(client.config_get("appendfsync", "maxmemory-policy")))
    except redis.ResponseError:
        return {}


def _plain(answer: Any) -> Any:
    return answer
