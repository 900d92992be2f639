"""What is put to the test: the stack of `trce up`, a worker on a second host, a small disk."""

import socket
import tempfile
from pathlib import Path

import psutil

from cli.stack.broker import socket_path
from core.importing import import_base
from core.installation import open_registry
from core.job_store import JobStore
from core.redis_connection import connect
from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Signer
from core.terms import terms
from tests.chaos.disk import Disk
from tests.chaos.hosts import FarHost
from tests.chaos.variants import MODEL, add_variants
from tests.live_stack import Stack
from tests.tiny_model import make_model

LEASE_S = 5.0
ENVIRONMENT = {
    "TRCE_LEASE_S": str(LEASE_S),
    "TRCE_TRAINER_WORKERS": "1",
    # Here no death of a worker is the doing of its job, and some jobs see many.
    "TRCE_GENERATION_ATTEMPTS": "50",
    "TRCE_ERASURE_ATTEMPTS": "50",
    "TRCE_SERVE_UNERASED_BASE": "true",
    "TRCE_MAX_OPEN_JOBS_PER_TENANT": "2000",
    "OMP_NUM_THREADS": "1",
}


class Installation:
    """All processes are children of the thread that makes this, and of nobody else."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.disk = Disk(self.data_dir)
        self.registry, self.digests = self._make_models()
        self.stack = Stack(self.data_dir, "--inference-workers", "2", **ENVIRONMENT)
        self.stack.start()
        self.far = FarHost(self.data_dir, socket_path(self.data_dir / "broker"), ENVIRONMENT)
        self.far.worker.start()
        self.broker_socket = socket_path(self.data_dir / "broker")
        self.redis = connect(f"unix://{self.broker_socket}?db=0", retry_s=60)
        self.jobs = JobStore(self.redis, terms(Settings(_env_file=None)))

    def far_worker(self) -> psutil.Process | None:
        process = self.far.worker.process
        return psutil.Process(process.pid) if process and process.poll() is None else None

    def workers(self) -> list[psutil.Process]:
        """Celery's parents, on both hosts."""
        far = self.far_worker()
        return [*self.stack.members("worker inference"), *([far] if far else [])]

    def owner(self, worker: psutil.Process) -> str:
        """The name under which it holds jobs."""
        words = worker.cmdline()
        return f"inference-{words[words.index('--name') + 1]}@{socket.gethostname()}"

    def logs(self) -> list[Path]:
        return sorted(self.data_dir.glob("logs/*.log"))

    def tend(self) -> None:
        """Start the far worker again when it has died; `trce up` does so for its own."""
        if not self.far.worker.running:
            self.far.worker.start()

    def close(self) -> None:
        self.redis.close()
        if self.far.worker.process is not None:
            self.far.worker.process.kill()
            self.far.worker.process.wait()
        self.stack.interrupt()
        self.stack.http.close()
        self.far.close()
        self.disk.close()

    def _make_models(self) -> tuple[ModelRegistry, dict[str, str]]:
        """With the digest of each model's files, by its id."""
        settings = Settings(_env_file=None, data_dir=self.data_dir)
        signer = Signer.load_or_create(settings.keys_dir)
        settings.models_dir.mkdir(parents=True)
        registry = open_registry(settings)
        with tempfile.TemporaryDirectory() as made:
            base = import_base(make_model(Path(made)), MODEL, registry, signer)
        models = [base, *add_variants(base, registry, signer)]
        return registry, {one.id: one.content_digest for one in models}
