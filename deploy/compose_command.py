"""Docker Compose as this host has it: `docker compose`, or the old `docker-compose`.

The old one knows neither `name` nor `!reset`, demands every `env_file`, and mounts volumes whole;
for it the files are merged here into one, and folders of volumes mounted from where the engine
keeps them.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
RESET = object()


def compose(project: str, files: list[str], scratch: Path) -> list[str]:
    """The command, up to its verb.

    Raises:
        SystemExit: there is no Docker Compose.
    """
    if _works(["docker", "compose", "version"]):
        chosen = [word for file in files for word in ("-f", str(ROOT / file))]
        return ["docker", "compose", "-p", project, *chosen]
    if shutil.which("docker-compose") is None:
        raise SystemExit("Docker Compose is needed: https://docs.docker.com/compose/install/")
    plain = {key: value for key, value in merged(files).items() if key in _KEPT}
    kept = _engine_folder()
    for service in plain["services"].values():
        service["env_file"] = _present(service.get("env_file", []))
        service["volumes"] = [
            _folder(one, f"{kept}/volumes/{project}_") for one in service.get("volumes", [])
        ]
    path = scratch / "docker-compose.json"
    path.write_text(json.dumps(plain, indent=1))
    return ["docker-compose", "-p", project, "--project-directory", str(ROOT), "-f", str(path)]


def merged(files: list[str]) -> dict[str, Any]:
    """What Docker Compose makes of the files, each above the one before it."""
    whole: dict[str, Any] = {}
    for file in files:
        whole = _merge(whole, yaml.load((ROOT / file).read_text(), Loader=_Loader))  # noqa: S506
    return whole


_KEPT = {"services", "networks", "volumes", "secrets"}
_REPLACED = {"command", "entrypoint", "test"}
"""Lists of words that make one command: those of two files make none."""


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!reset", lambda *_: RESET)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        if value is RESET:
            both.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            both[key] = _merge(below[key], value)
        elif isinstance(value, list) and isinstance(below.get(key), list) and key not in _REPLACED:
            both[key] = [*below[key], *(one for one in value if one not in below[key])]
        else:
            both[key] = value
    return both


def _present(env_files: list[dict[str, Any]]) -> list[str]:
    paths = [ROOT / one["path"] for one in env_files]
    return [str(path) for path in paths if path.is_file()]


def _folder(volume: str | dict[str, Any], kept: str) -> str | dict[str, Any]:
    """A volume as the old one mounts it.

    Args:
        kept: where the engine keeps the volumes of the project.
    """
    if isinstance(volume, str) or "volume" not in volume:
        return volume
    source = f"{kept}{volume['source']}/_data/{volume['volume']['subpath']}"
    access = "ro" if volume.get("read_only") else "rw"
    return f"{source}:{volume['target']}:{access}"


def _engine_folder() -> str:
    """The usual one where no engine runs, and the files are only read."""
    asked = ["docker", "info", "--format", "{{.DockerRootDir}}"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "/var/lib/docker"


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
