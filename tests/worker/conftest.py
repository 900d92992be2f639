"""An installation on disk with the shipped model, and a heartbeat that a test can steer."""

import contextlib
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from core.importing import import_base
from core.installation import open_registry
from core.job_store import JobStore
from core.jobs import Lease
from core.leasing import Verdict
from core.making import describe
from core.manifests import ModelStatus
from core.policies import PolicyStore
from core.redis_connection import connect
from core.refusals import Refusals
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.settings import SHIPPED_MODELS, Settings
from core.signing import Signer
from core.specs import GenerationSpec
from core.storage import Storage
from diffusion.erasure import FILENAME, Erasure
from diffusion.loading import load_base
from tests.edits import pistol_edit
from worker.batcher import Batcher
from worker.finishing import Finisher
from worker.judging import Panel
from worker.refusing import RefusalBoard
from worker.shelf import Shelf

CHANGED = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"


class SteerableHeartbeat:
    """Keeps no lease alive; gives the verdicts that the test has put in."""

    def __init__(self) -> None:
        self.held: list[list[str]] = []
        self.gone: list[str] = []
        self.steps = 0
        self.stands_in = False
        self.verdicts: dict[str, Verdict] = {}
        self.on_step = lambda steps: None

    def hold(self, leases: Iterable[Lease]) -> None:
        self.held.append([lease.job_id for lease in leases])

    def let_go(self, leases: Iterable[Lease]) -> None:
        self.gone += [lease.job_id for lease in leases]
        self.hold([])

    @contextlib.contextmanager
    def standing_in(self):
        self.stands_in = True
        try:
            yield
        finally:
            self.stands_in = False

    def step(self) -> None:
        self.steps += 1
        self.on_step(self.steps)

    def verdict(self, lease: Lease) -> Verdict | None:
        return self.verdicts.get(lease.job_id)


@pytest.fixture(scope="session")
def imported(tmp_path_factory) -> Path:
    """A data folder with keys and the shipped model, made once; tests get copies."""
    data = tmp_path_factory.mktemp("installation")
    settings = Settings(_env_file=None, data_dir=data)
    signer = Signer.load_or_create(settings.keys_dir)
    import_base(SHIPPED_MODELS / "emoji", "emoji", open_registry(settings), signer)
    return data


@pytest.fixture
def settings(redis_url: str, imported: Path, tmp_path: Path) -> Settings:
    shutil.copytree(imported, tmp_path / "data")
    return Settings(
        _env_file=None,
        redis_url=redis_url,
        data_dir=tmp_path / "data",
        serve_unerased_base=True,
        lease_s=5,
    )


@pytest.fixture
def registry(settings: Settings) -> ModelRegistry:
    return open_registry(settings)


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.images_dir)


@pytest.fixture
def redis_client(settings: Settings):
    assert settings.redis_url is not None
    with connect(settings.redis_url) as client:
        yield client


@pytest.fixture
def heartbeat() -> SteerableHeartbeat:
    return SteerableHeartbeat()


@pytest.fixture
def submit(jobs: JobStore):
    """Accept a generation as the service would; returns its id."""

    def accept(prompt: str = "a cat", *, alone: bool = False, **fields) -> str:
        values = {"model": "emoji", "width": 64, "height": 64, "num_inference_steps": 4, "seed": 7}
        spec = GenerationSpec(prompt=prompt, **(values | fields))
        job_id = uuid.uuid4().hex
        jobs.submit(job_id, spec, queue_class=spec.model, cost=spec.n, alone=alone)
        return job_id

    return accept


@pytest.fixture
def add_variant(registry, settings):
    """An erased model of the shipped one: its UNet differs by a few tensors, or its text alone."""
    signer = Signer.load(settings.keys_dir)
    base = registry.get("emoji")
    shapes = dict(load_base(registry.path("emoji"), None).unet.named_parameters())

    def add(
        model_id: str, *, seed: int, scale: float = 0.5, text_map: torch.Tensor | None = None
    ) -> Erasure:
        generator = torch.Generator().manual_seed(seed)
        names = [] if text_map is not None else [CHANGED, "conv_out.bias"]
        erasure = Erasure(
            text_map=text_map,
            tensors={
                name: scale * torch.randn(shapes[name].shape, generator=generator)
                for name in names
            },
        )
        folder = registry.making.begin(model_id)
        erasure.save(folder / FILENAME)
        (folder / "unet").mkdir()
        (folder / "unet" / "config.json").write_text("{}")
        made = describe(
            folder,
            model_id=model_id,
            family=base.family,
            drawing=base.drawing,
            code_version="test",
            edit=pistol_edit(base, seed=seed),
            status=ModelStatus.SERVING,
        )
        Registrar(registry).add(made, folder, signer)
        return erasure

    return add


@pytest.fixture
def make_shelf(registry):
    def make(**options) -> Shelf:
        values = {"registry": registry, "device": torch.device("cpu"), "dtype": torch.float32}
        return Shelf(**(values | options))

    return make


@pytest.fixture
def make_batcher(jobs, registry, storage, heartbeat, settings, redis_client):
    """A batcher on one thread; `draining` may be steered through its list."""

    def make(*, draining=lambda: False, drain_s: float = 5.0, rows: int = 8, **parts) -> Batcher:
        torch.set_num_threads(1)
        values = {
            "shelf": Shelf(registry, device=torch.device("cpu"), dtype=torch.float32),
            "storage": storage,
            "heartbeat": heartbeat,
            "detectors": {},
            "credentials": None,
            "load": lambda spec, _: values["detectors"][spec.name],
        }
        values |= parts
        signer = Signer.load_or_create(settings.picture_keys_dir)
        panel = Panel(PolicyStore(redis_client), values["load"])
        return Batcher(
            jobs.leasing,
            values["shelf"],
            Finisher(values["storage"], signer, panel, values["credentials"]),
            values["heartbeat"],
            owner="inference-0@test",
            rows=rows,
            lease_s=30,
            draining=draining,
            drain_s=drain_s,
        )

    return make


@pytest.fixture
def refusals(redis_client) -> Refusals:
    return Refusals(redis_client)


@pytest.fixture
def telling_shelf(registry, refusals) -> Shelf:
    """It tells the installation which models it refuses."""
    board = RefusalBoard(refusals, "inference-0@test")
    return Shelf(registry, device=torch.device("cpu"), dtype=torch.float32, refusals=board)
