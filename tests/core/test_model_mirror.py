"""Models in a bucket, against a real HTTP server that speaks S3: two hosts, one installation."""

import shutil
import threading

import pytest
from botocore.exceptions import EndpointConnectionError
from moto.server import ThreadedMotoServer

from core.byte_counting import counting
from core.errors import ModelNotFound, ModelsUnavailable, UntrustedModel
from core.installation import open_serving_registry
from core.making import describe
from core.manifests import Drawing, ModelStatus
from core.model_mirror import MIB, ModelMirror
from core.object_storage import open_bucket, s3_client
from core.registrar import Registrar
from core.settings import Settings
from core.signing import Signer, Verifier
from tests.made_reports import report, suite, write

DRAWING = Drawing(native_px=64, multiple_px=16, max_px=128)
WEIGHTS = b"weights " * 1000
WORKERS = 8


@pytest.fixture(scope="module")
def server():
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def host(server, redis_url, tmp_path, request):
    """Settings of a host by name; all hosts trust the keys of `first`."""
    Signer.load_or_create(tmp_path / "first" / "keys")

    def settings(name: str) -> Settings:
        data_dir = tmp_path / name
        if not data_dir.exists():
            shutil.copytree(tmp_path / "first" / "keys", data_dir / "keys")
        return Settings(
            _env_file=None,
            data_dir=data_dir,
            redis_url=redis_url,
            serve_unerased_base=True,
            s3_models=True,
            s3_bucket=request.node.name.replace("_", "-")[:60].lower(),
            s3_endpoint_url=server,
            s3_access_key_id="id",
            s3_secret_access_key="secret",
        )

    open_bucket(settings("first")).make()
    return settings


@pytest.fixture
def signer(host):
    return Signer.load(host("first").keys_dir)


@pytest.fixture
def model(host, signer):
    """`emoji`, made on the first host."""
    registry = open_serving_registry(host("first"))
    folder = registry.making.begin("emoji")
    (folder / "unet").mkdir()
    (folder / "unet" / "weights.safetensors").write_bytes(WEIGHTS)
    (folder / "model_index.json").write_text("{}")
    manifest = describe(
        folder,
        model_id="emoji",
        family="sd1",
        drawing=DRAWING,
        code_version="test",
        status=ModelStatus.SERVING,
    )
    return Registrar(registry).add(manifest, folder, signer)


class Watched:
    """An S3 client that counts downloads, and breaks off the one of the given number."""

    def __init__(self, client, *, breaks_at: int | None = None) -> None:
        self._client = client
        self.downloads = 0
        self._breaks_at = breaks_at

    def __getattr__(self, name):
        return getattr(self._client, name)

    def get_object(self, *, Bucket, Key):
        if Key.startswith("files/"):
            self.downloads += 1
            if self.downloads == self._breaks_at:
                raise EndpointConnectionError(endpoint_url="http://away")
        return self._client.get_object(Bucket=Bucket, Key=Key)


def mirror_of(settings, client) -> ModelMirror:
    settings.models_dir.mkdir(parents=True, exist_ok=True)
    verifier = Verifier.load(settings.keys_dir)
    return ModelMirror(client, settings.s3_bucket, settings.models_dir, verifier)


def visible(settings) -> set[str]:
    return {path.name for path in settings.models_dir.iterdir() if not path.name.startswith(".")}


def test_a_host_that_lacks_a_model_fetches_it(host, model):
    registry = open_serving_registry(host("second"))

    assert registry.served("emoji") == model
    model.check_files(registry.path("emoji"))
    assert (registry.path("emoji") / "unet" / "weights.safetensors").read_bytes() == WEIGHTS


def test_whoever_waits_for_a_fetch_hears_of_its_bytes(host, model):
    passed = []
    with counting(passed.append):
        open_serving_registry(host("second")).served("emoji")

    assert sum(passed) >= len(WEIGHTS)


def test_a_model_that_no_host_has_is_not_found(host, model):
    with pytest.raises(ModelNotFound):
        open_serving_registry(host("second")).get("other")


def test_a_retirement_on_one_host_counts_on_the_others(host, model, signer):
    first, second = (open_serving_registry(host(name)) for name in ("first", "second"))
    assert second.served("emoji")

    Registrar(first).set_status("emoji", ModelStatus.RETIRED, signer)

    # Its look at the serials may be half a second old; a process that starts has none.
    again = open_serving_registry(host("second"))
    assert again.get("emoji").status is ModelStatus.RETIRED


def test_a_retirement_is_not_undone_by_what_another_host_changes_at_the_same_time(
    host, model, signer, tmp_path, monkeypatch
):
    first, second = (open_serving_registry(host(name)) for name in ("first", "second"))
    get = second.get

    def read_and_be_late(model_id):
        manifest = get(model_id)
        if first.get(model_id).status is ModelStatus.SERVING:
            Registrar(first).set_status(model_id, ModelStatus.RETIRED, signer)
        return manifest

    monkeypatch.setattr(second, "get", read_and_be_late)
    folder = write(report(model, suite()), tmp_path / "report")
    made = Registrar(second).add_report("emoji", "one", folder, signer)

    assert (made.status, list(made.reports)) == (ModelStatus.RETIRED, ["one"])
    for name in ("first", "second", "third"):
        assert open_serving_registry(host(name)).get("emoji") == made


def test_a_changed_file_in_the_bucket_is_refused_and_not_kept(host, model):
    settings = host("second")
    client = s3_client(settings)
    digest = model.files["unet/weights.safetensors"]
    client.put_object(Bucket=settings.s3_bucket, Key=f"files/{digest}", Body=WEIGHTS[:-1] + b"!")

    with pytest.raises(UntrustedModel, match=r"unet/weights\.safetensors in the bucket"):
        open_serving_registry(settings).get("emoji")

    assert visible(settings) == set()
    assert not list((settings.models_dir / ".incoming").iterdir())


def test_a_partial_file_in_the_bucket_is_refused(host, model):
    settings = host("second")
    digest = model.files["unet/weights.safetensors"]
    s3_client(settings).put_object(
        Bucket=settings.s3_bucket, Key=f"files/{digest}", Body=WEIGHTS[:100]
    )

    with pytest.raises(UntrustedModel, match="push --again emoji"):
        open_serving_registry(settings).get("emoji")


def test_a_manifest_of_an_untrusted_key_is_refused(host, model, tmp_path):
    settings = host("second")
    forged = model.signed(Signer.load_or_create(tmp_path / "stranger"))
    s3_client(settings).put_object(
        Bucket=settings.s3_bucket, Key="models/emoji/manifest.json", Body=forged.file_bytes()
    )

    with pytest.raises(UntrustedModel):
        open_serving_registry(settings).get("emoji")
    assert visible(settings) == set()


def test_a_broken_download_leaves_nothing_and_is_taken_up_again(host, model):
    settings = host("second")
    client = s3_client(settings)

    with pytest.raises(ModelsUnavailable, match="does not answer"):
        mirror_of(settings, Watched(client, breaks_at=2)).fetch("emoji")
    assert visible(settings) == set()

    assert mirror_of(settings, client).fetch("emoji")
    model.check_files(settings.models_dir / "emoji")


def test_what_came_whole_before_is_not_fetched_again_and_what_did_not_is(host, model):
    settings = host("second")
    client = s3_client(settings)
    with pytest.raises(ModelsUnavailable):
        mirror_of(settings, Watched(client, breaks_at=2)).fetch("emoji")
    (incoming,) = (settings.models_dir / ".incoming").iterdir()
    (whole,) = [path for path in incoming.rglob("*") if path.is_file() and path.stat().st_size]
    (incoming / "stray").write_text("not of this model")

    again = Watched(client)
    assert mirror_of(settings, again).fetch("emoji")
    assert again.downloads == len(model.files) - 1
    model.check_files(settings.models_dir / "emoji")
    assert not (settings.models_dir / "emoji" / "stray").exists()
    assert whole.name in {name.rsplit("/", 1)[-1] for name in model.files}


def test_a_part_of_a_file_and_a_changed_one_are_fetched_again(host, model):
    settings = host("second")
    client = s3_client(settings)
    with pytest.raises(ModelsUnavailable):
        mirror_of(settings, Watched(client, breaks_at=1)).fetch("emoji")
    (incoming,) = (settings.models_dir / ".incoming").iterdir()
    (incoming / "model_index.json").write_text("[]")
    (incoming / "unet").mkdir(exist_ok=True)
    (incoming / "unet" / "weights.safetensors").write_bytes(WEIGHTS[:100])

    again = Watched(client)
    assert mirror_of(settings, again).fetch("emoji")
    assert again.downloads == len(model.files)
    model.check_files(settings.models_dir / "emoji")


def test_what_the_disk_has_no_room_for_is_not_begun_and_told_with_the_numbers(
    host, model, monkeypatch
):
    settings = host("second")
    client = Watched(s3_client(settings))
    needed = sum(
        (host("first").models_dir / "emoji" / name).stat().st_size for name in model.files
    )
    monkeypatch.setattr("core.model_mirror.SPARE_BYTES", 5 * MIB)
    usage = shutil.disk_usage(settings.models_dir.parent)

    def with_free(free_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free_bytes))

    with_free(needed + 5 * MIB - 1)
    with pytest.raises(ModelsUnavailable, match=r"0 MiB are to be fetched, and .* 5 MiB free"):
        mirror_of(settings, client).fetch("emoji")
    assert client.downloads == 0
    assert visible(settings) == set()

    with_free(needed + 5 * MIB)
    assert mirror_of(settings, client).fetch("emoji")


def test_a_disk_that_fills_meanwhile_is_said_and_given_back(host, model, monkeypatch):
    settings = host("second")

    def full(self, digest, target):
        target.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.bucket_files.BucketFiles.fetch", full)
    with pytest.raises(ModelsUnavailable, match="No space left on device"):
        mirror_of(settings, s3_client(settings)).fetch("emoji")
    assert not list((settings.models_dir / ".incoming").iterdir())


def test_the_workers_of_a_host_fetch_a_model_once(host, model):
    settings = host("second")
    client = Watched(s3_client(settings))
    workers = [
        threading.Thread(target=mirror_of(settings, client).fetch, args=("emoji",))
        for _ in range(WORKERS)
    ]

    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert client.downloads == len(model.files)


def test_what_is_there_is_not_sent_again(host, model, monkeypatch):
    settings = host("first")
    client = s3_client(settings)
    sent = []
    monkeypatch.setattr(client, "upload_file", lambda *_: sent.append(1))

    mirror_of(settings, client).push(model)

    assert sent == []


def spoil(settings, model, name: str, data: bytes) -> None:
    """In the bucket."""
    s3_client(settings).put_object(
        Bucket=settings.s3_bucket, Key=f"files/{model.files[name]}", Body=data
    )


def test_a_part_of_a_file_in_the_bucket_is_mended_by_the_next_push(host, model):
    registry = open_serving_registry(host("first"))
    spoil(host("first"), model, "unet/weights.safetensors", WEIGHTS[:100])

    Registrar(registry).push_all()

    assert open_serving_registry(host("second")).get("emoji") == model


def test_a_changed_file_in_the_bucket_is_mended_by_a_push_that_names_its_model(host, model):
    """Nobody sees that it is changed but who fetches it."""
    registry = open_serving_registry(host("first"))
    spoil(host("first"), model, "unet/weights.safetensors", WEIGHTS[:-1] + b"!")

    Registrar(registry).push_all(again=["emoji"])

    assert open_serving_registry(host("second")).get("emoji") == model


def test_a_file_that_is_spoilt_here_takes_no_good_ones_place_in_the_bucket(host, model):
    registry = open_serving_registry(host("first"))
    (registry.path("emoji") / "unet" / "weights.safetensors").write_bytes(WEIGHTS[:-1] + b"!")

    with pytest.raises(UntrustedModel, match="differs from its manifest"):
        Registrar(registry).push_all(again=["emoji"])

    assert open_serving_registry(host("second")).get("emoji") == model


def test_models_that_were_there_before_the_bucket_are_pushed_together(host, model):
    settings = host("first")
    client = s3_client(settings)
    client.delete_object(Bucket=settings.s3_bucket, Key="models/emoji/manifest.json")

    assert Registrar(open_serving_registry(settings)).push_all() == ["emoji"]
    assert open_serving_registry(host("second")).get("emoji") == model


def test_reports_come_along_and_later_ones_follow(host, signer, model, tmp_path):
    """Where suites are demanded, a host without the report would refuse the model."""
    registry = open_serving_registry(host("first"))
    other = open_serving_registry(host("second"))
    Registrar(registry).add_report(
        "emoji", "one", write(report(model, suite()), tmp_path / "r1"), signer
    )
    assert [one.model.id for one in other.reports.of(other.get("emoji"))] == ["emoji"]

    Registrar(registry).add_report(
        "emoji", "two", write(report(model, suite()), tmp_path / "r2"), signer
    )

    fresh = open_serving_registry(host("second"))
    manifest = fresh.get("emoji")
    assert sorted(manifest.reports) == ["one", "two"]
    assert len(fresh.reports.of(manifest)) == 2


@pytest.fixture
def candidate(host, model, signer):
    """Made on the first host; all of its files but one are those of `emoji`, too."""
    registry = open_serving_registry(host("first"))
    folder = registry.making.begin("erased")
    shutil.copytree(registry.path("emoji"), folder, dirs_exist_ok=True)
    (folder / "manifest.json").unlink()
    (folder / "README.md").write_text("erased")
    made = describe(folder, model_id="erased", family="sd1", drawing=DRAWING, code_version="test")
    return Registrar(registry).add(made, folder, signer)


def discard(settings, candidate) -> bool:
    registrar = Registrar(open_serving_registry(settings))
    return registrar.discard("erased", candidate.content_digest, is_unwanted=lambda: True)


def test_a_candidate_that_is_discarded_is_found_by_no_host_and_takes_no_others_files(
    host, model, candidate
):
    assert discard(host("first"), candidate)

    for name in ("first", "second"):
        with pytest.raises(ModelNotFound):
            open_serving_registry(host(name)).get("erased")
    assert open_serving_registry(host("second")).get("emoji") == model


def test_a_candidate_stays_while_it_cannot_be_taken_out_of_the_bucket(
    host, candidate, monkeypatch
):
    def away(*_) -> None:
        raise ModelsUnavailable("the bucket does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(ModelMirror, "withdraw", away)
        with pytest.raises(ModelsUnavailable):
            discard(host("first"), candidate)

    assert open_serving_registry(host("first")).get("erased") == candidate


def test_a_candidate_that_was_promoted_on_another_host_stays(host, candidate, signer):
    registry = open_serving_registry(host("second"))
    promoted = Registrar(registry).set_status("erased", ModelStatus.SERVING, signer)

    assert not discard(host("first"), candidate)

    assert open_serving_registry(host("third")).get("erased") == promoted
