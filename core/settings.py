"""Settings: read once at the door of a process, then passed on as arguments.

Each field is an environment variable with the prefix TRCE_ (and REDIS_URL without it), or a line
in `.env`. `.env.example` lists them all.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.samples import MAX_SAMPLES
from core.thresholds import ATTACKS, SUITES, is_measurable
from core.urls import check_origin, check_redis_url, check_web_url

SECRETS = Path("/run/secrets")
"""Where containers find secrets as files: a file named like a variable holds its value."""
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
SHIPPED_MODELS = Path(__file__).resolve().parent.parent / "models"

PositiveSeconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TRCE_",
        env_file=".env",
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        # .env holds lines for others, too; core/checkup/names.py finds misspelt ones.
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    # Where things are.
    data_dir: Path = Path("data")
    """Models, images, keys and the embedded broker's files live below it."""
    redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("REDIS_URL", "TRCE_REDIS_URL", "redis_url")
    )
    """The Redis that holds jobs. `trce up` starts an embedded one when this is not set."""

    # The HTTP service.
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    require_keys: bool = False
    """Demand an API key of this machine, too, even before one has been created.

    Always so on an address that other machines can reach.
    """
    max_body_bytes: Count = 256 * 1024
    receive_timeout_s: PositiveSeconds = 30.0
    """For a client to send the head of a request, and again for its body."""
    keep_alive_s: Count = 75
    """How long an idle connection stays open: longer than proxies keep theirs (60 s as a rule), so
    that none sends a request on one that is being closed."""
    cors_origins: str = ""
    """Web sites whose pages may call the service, as `https://a.example https://b.example`."""
    longest_sitting_s: PositiveSeconds = 300.0
    """How long a request of a client that knows no queue may wait for its pictures."""
    max_picture_bytes: Count = 20 * 1024 * 1024
    """Of a picture that is sent to be verified."""
    webhooks_to_private_addresses: bool = False
    """Tell servers in private networks, and without TLS, too, when jobs have ended."""
    longest_stream_s: PositiveSeconds = 3600.0
    """A stream of events ends then; its client connects again, and misses nothing."""
    max_streams_per_tenant: Count = 100
    """Streams of events that one process keeps open for a tenant."""
    max_queued_generations: Count = 2000
    max_queued_erasures: Count = 100
    max_queued_evaluations: Count = 100
    max_open_jobs_per_tenant: Count = 1000
    keep_generations_s: PositiveSeconds = 24 * 3600
    """How long a finished generation and its pictures can be read."""
    keep_erasures_s: PositiveSeconds = 30 * 24 * 3600
    keep_evaluations_s: PositiveSeconds = 30 * 24 * 3600
    """How long its job can be read; the report belongs to the model and stays."""

    # What may be served.
    serve_unerased_base: bool = False
    """Also serve base models, from which nothing was erased."""
    default_model: str = "emoji"
    """What the model name `default` means until an operator points it elsewhere."""
    model_aliases: str = (
        "dall-e-2:default dall-e-3:default gpt-image-1:default gpt-image-1-mini:default "
        "gpt-image-1.5:default"
    )
    """Names that clients have built in, and the models to draw with: `name:model name:model`."""

    # What pictures carry.
    c2pa_certificates: Path | None = None
    """PEM: the certificate to sign Content Credentials with, then those that vouch for it."""
    c2pa_key: Path | None = None
    """PEM: its private key."""

    require_suites: str = ""
    """Suites and attacks, parted by spaces, that a signed report must measure before an erased
    model is promoted; whatever else its own thresholds demand."""

    # Pictures in an S3-compatible store, instead of the data folder.
    s3_bucket: str = ""
    s3_endpoint_url: str = ""
    """Of another store than AWS, as http://minio:9000."""
    s3_region: str = "us-east-1"
    s3_access_key_id: str = ""
    """With its secret, or neither: then those of the host's role are used."""
    s3_secret_access_key: SecretStr = SecretStr("")
    s3_models: bool = False
    """Models, too: put there where they are made or change, fetched by hosts that lack them."""

    # What operators watch.
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Where a process shows Prometheus its metrics without asking for a key; 0: nowhere."""
    metrics_host: str = "127.0.0.1"
    trace_endpoint: str = ""
    """Where OpenTelemetry traces go, as http://collector:4318/v1/traces; empty: none are made."""

    # Workers.
    device: str = "auto"
    """`auto` (CUDA if there is one), `cpu`, `cuda`, `cuda:1` ... Where no number is named, the
    workers of a host share its GPUs out by theirs."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of inference; `auto` is float16 on CUDA and float32 on a CPU."""
    channels_last: bool = True
    """Lay the weights of UNet and VAE out as convolutions like them best."""
    warm_up: str = ""
    """Models, parted by spaces, that an inference worker loads and draws with once before it
    declares itself ready; `default` is the default one."""
    compile_unet: bool = False
    """Compile the UNets of the models in TRCE_WARM_UP with `torch.compile`, for their own size."""
    compile_buckets: str = "1 2 4 8 16 32"
    """Rows of the passes that are compiled; a guided picture has two. Others are padded to one."""
    inference_workers: Annotated[int, Field(ge=0)] | None = None
    """Worker processes that `trce up` starts for generations. If not given: one for each GPU; on a
    CPU one for each TRCE_CPU_THREADS of its cores, and 2 GiB of free memory."""
    trainer_workers: Annotated[int, Field(ge=0)] = 1
    cpu_threads: Count = 1
    """Threads per worker process on a CPU; two one-thread workers beat one two-thread worker."""
    batch_rows: Annotated[int, Field(ge=1, le=256)] = 16
    """Pictures that one worker denoises at a time. A UNet pass has up to twice as many rows, two
    of a guided picture, as far as they fit into memory and more gain anything."""
    delta_cache_bytes: Count = 2 * 2**30
    """Host memory of one worker for weights that erased models change; one model always fits."""
    lease_s: PositiveSeconds = 15.0
    """A worker that has not beaten for this long loses its jobs."""
    step_timeout_s: PositiveSeconds = 300.0
    """A worker that neither finishes a denoising step nor loads a model within this time is
    taken to hang, and is killed."""
    trainer_processes: Count = 1
    """That stage 2 of an erasure runs in: GPUs, from cuda:0 on."""
    trainer_silence_s: PositiveSeconds = 900.0
    """A trainer that reports no progress for this long is taken to hang, and is stopped."""
    erasure_samples: Annotated[int, Field(ge=0, le=MAX_SAMPLES)] = 4
    """Small pictures that an erasure draws with its base, after stage 1 and six times during stage
    2, for whoever watches it; 0: none."""
    generation_attempts: Count = 5
    erasure_attempts: Count = 3
    evaluation_attempts: Count = 3

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis(cls, given: str | None) -> str | None:
        """An empty one is none: so says a line `REDIS_URL=` of `.env`."""
        if given:
            check_redis_url(given)
        return given or None

    @field_validator("s3_endpoint_url")
    @classmethod
    def _is_a_store(cls, given: str) -> str:
        if given:
            check_web_url(given, "http://minio:9000")
        return given

    @field_validator("trace_endpoint")
    @classmethod
    def _is_a_collector(cls, given: str) -> str:
        if given:
            check_web_url(given, "http://collector:4318/v1/traces")
        return given

    @field_validator("cors_origins")
    @classmethod
    def _are_web_sites(cls, given: str) -> str:
        for site in given.split():
            check_origin(site)
        return given

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, given: str) -> str:
        if not DEVICE.fullmatch(given):
            raise ValueError("one of auto, cpu, cuda, cuda:0, cuda:1 ..., in small letters")
        return given

    @field_validator("require_suites")
    @classmethod
    def _names_what_can_be_measured(cls, given: str) -> str:
        for name in given.split():
            if not is_measurable(name):
                raise ValueError(
                    f"nothing measures {name!r}; there are {', '.join((*SUITES, *ATTACKS))}, "
                    "and prompt files such as i2p.csv"
                )
        return given

    @field_validator("compile_buckets")
    @classmethod
    def _are_numbers_of_rows(cls, given: str) -> str:
        if not given.split() or not all(word.isdecimal() and int(word) for word in given.split()):
            raise ValueError("numbers of rows, parted by spaces, as in `1 2 4 8 16`")
        return given

    @property
    def buckets(self) -> tuple[int, ...]:
        """Rows of the passes that are compiled; none, where nothing is."""
        return tuple(map(int, self.compile_buckets.split())) if self.compile_unet else ()

    @property
    def prompt_sets_dir(self) -> Path:
        """Files of prompts that evaluations may name."""
        return self.data_dir / "prompt_sets"

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Half of a configuration would be found out by the first picture; better now."""
        if self.trainer_processes > 1 and ":" in self.device:
            raise ValueError(
                f"TRCE_TRAINER_PROCESSES={self.trainer_processes} takes a GPU for each, and "
                f"TRCE_DEVICE={self.device} is one: set TRCE_DEVICE=cuda"
            )
        if self.compile_unet and not self.warm_up.split():
            raise ValueError(
                "TRCE_COMPILE_UNET compiles what TRCE_WARM_UP names, since no request is to wait "
                "for the minutes that it takes: set TRCE_WARM_UP=default, for example"
            )
        s3 = self.s3_endpoint_url or self.s3_access_key_id or self.s3_secret_access_key
        if self.s3_models and not self.s3_bucket:
            raise ValueError("TRCE_S3_MODELS needs a bucket: set TRCE_S3_BUCKET")
        if s3 and not self.s3_bucket:
            raise ValueError("S3 is half configured: set TRCE_S3_BUCKET, or no TRCE_S3_ at all")
        if bool(self.s3_access_key_id) != bool(self.s3_secret_access_key):
            raise ValueError(
                "S3 is half configured: TRCE_S3_ACCESS_KEY_ID and TRCE_S3_SECRET_ACCESS_KEY "
                "belong together; set both, or neither to use the host's role"
            )
        return self

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def making_dir(self) -> Path:
        """Models that are being made and not yet signed; for the service and the trainer alone."""
        return self.data_dir / "making"

    @property
    def cache_dir(self) -> Path:
        """What is kept so that it need not be made again; it may be emptied at any time."""
        return self.data_dir / "cache"

    @property
    def checkpoints_dir(self) -> Path:
        """Where erasures that were begun go on, a folder for each."""
        return self.data_dir / "checkpoints"

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "images"

    @property
    def keys_dir(self) -> Path:
        return self.data_dir / "keys"

    @property
    def picture_keys_dir(self) -> Path:
        """Inference workers sign pictures with a key that cannot sign models."""
        return self.keys_dir / "pictures"

    @property
    def footprints_dir(self) -> Path:
        """What drawing takes of a device, as inference workers found it."""
        return self.cache_dir / "footprints"

    @property
    def broker_dir(self) -> Path:
        return self.data_dir / "broker"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def run_dir(self) -> Path:
        """Beat files and drain marks of running workers."""
        return self.data_dir / "run"
