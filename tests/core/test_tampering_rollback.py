"""A manifest that was signed once, and put back later, counts no more; on no host."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest

from core import status_serials
from core.errors import ModelNotServed, StoreUnavailable, UntrustedModel
from core.installation import open_serving_registry
from core.manifests import ModelStatus
from core.redis_connection import connect
from core.registrar import Registrar
from core.signing import Signer
from core.status_serials import KEY, StatusSerials
from tests.models_on_disk import ModelsOnDisk


@pytest.fixture
def client(redis_url):
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def host(client, tmp_path, monkeypatch) -> ModelsOnDisk:
    """An installation with a model that is served."""
    monkeypatch.setattr(status_serials, "LOOK_EVERY_S", 0.0)
    made = ModelsOnDisk(tmp_path / "host", serials=StatusSerials(client))
    base = made.add("base")
    made.add("erased", base=base)
    made.promote("erased")
    return made


class SlowToTell:
    """Redis, which tells serials when it is let."""

    def __init__(self, client) -> None:
        self._client = client
        self.asked, self.told = threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._client, name)

    def zrange(self, *words, **options):
        self.asked.set()
        assert self.told.wait(20)
        return self._client.zrange(*words, **options)


def kept(host: ModelsOnDisk) -> bytes:
    return (host.folder / "erased" / "manifest.json").read_bytes()


def put_back(host: ModelsOnDisk, data: bytes) -> None:
    (host.folder / "erased" / "manifest.json").write_bytes(data)


class TestRollback:
    def test_a_retired_model_is_not_served_again_by_its_old_manifest(self, host):
        serving = kept(host)
        host.retire("erased")

        put_back(host, serving)

        with pytest.raises(UntrustedModel, match="put back"):
            host.registry.served("erased")
        assert "put back" in host.registry.untrusted()["erased"]
        assert [one.id for one in host.registry.all()] == ["base"]

    def test_nor_in_a_process_that_started_afterwards(self, host, client):
        serving = kept(host)
        host.retire("erased")
        put_back(host, serving)

        with pytest.raises(UntrustedModel, match="put back"):
            host.open(StatusSerials(client)).get("erased")

    def test_an_older_manifest_with_the_same_status_is_older_all_the_same(self, host):
        """It may lack a report, or an override."""
        before = kept(host)
        host.retire("erased")
        host.promote("erased")
        put_back(host, before)

        with pytest.raises(UntrustedModel, match="put back"):
            host.registry.get("erased")

    def test_a_serial_that_was_raised_by_hand_is_not_signed(self, host):
        serving = kept(host)
        retired = host.retire("erased")
        old = host.registry
        put_back(host, serving.replace(b'"serial": ', f'"serial": {retired.serial}'.encode()))

        with pytest.raises(UntrustedModel):
            old.get("erased")

    def test_what_an_operator_vouches_for_is_served_from_a_backup(self, host):
        serving = kept(host)
        host.retire("erased")
        put_back(host, serving)

        host.registrar.sign_again("erased", host.signer, vouched=True)

        assert host.registry.served("erased").status == "serving"

    def test_a_model_that_is_made_anew_under_its_old_id_is_newer(self, host):
        shutil.rmtree(host.folder / "erased")

        host.add("erased", base=host.registry.get("base"))

        assert host.registry.get("erased").status == "candidate"


class TestHosts:
    @pytest.fixture
    def other(self, host, client, tmp_path) -> ModelsOnDisk:
        """Another host, with a copy of everything on disk and the same Redis."""
        shutil.copytree(tmp_path / "host", tmp_path / "other")
        return ModelsOnDisk(tmp_path / "other", serials=StatusSerials(client))

    def test_a_model_retired_on_one_is_served_by_no_copy(self, host, other):
        assert other.registry.served("erased")

        host.retire("erased")

        with pytest.raises(UntrustedModel, match="copy is behind"):
            other.registry.served("erased")

    def test_a_copy_that_was_brought_up_to_date_is_good(self, host, other):
        host.retire("erased")
        put_back(other, kept(host))

        with pytest.raises(ModelNotServed, match="retired"):
            other.registry.served("erased")

    def test_what_was_read_before_another_host_changed_it_is_not_written(
        self, host, other, monkeypatch
    ):
        """Else the retirement would be undone, and the model be served again by all."""
        get = other.registry.get

        def read_and_be_late(model_id):
            manifest = get(model_id)
            if host.registry.get(model_id).status is ModelStatus.SERVING:
                host.retire(model_id)
            return manifest

        monkeypatch.setattr(other.registry, "get", read_and_be_late)
        before = kept(other)
        with pytest.raises(UntrustedModel, match="copy is behind"):
            other.registrar.sign_again("erased", Signer.load_or_create(other.folder / "new"))

        assert kept(other) == before
        assert host.registry.get("erased").status is ModelStatus.RETIRED

    def test_of_two_changes_at_once_one_waits_for_the_other(self, host, client):
        serial = host.registry.get("erased").serial
        with ThreadPoolExecutor(1) as pool, StatusSerials(client).changing("erased", serial):
            retired = pool.submit(host.retire, "erased")
            wait([retired], timeout=0.5)
            assert not retired.done()

        assert retired.result().status is ModelStatus.RETIRED

    def test_nobody_waits_for_ever_for_a_host_that_died_while_it_changed_a_model(
        self, host, client, monkeypatch
    ):
        monkeypatch.setattr(status_serials, "CHANGE_S", 1.0)
        died = StatusSerials(client).changing("erased", host.registry.get("erased").serial)
        died.__enter__()

        assert host.retire("erased").status is ModelStatus.RETIRED

    def test_a_change_without_redis_counts_once_it_was_seen(self, host, other):
        """`trce erase` without a service, say, writes manifests without asking Redis."""
        serving, offline = kept(host), host.open()
        Registrar(offline).set_status("erased", ModelStatus.RETIRED, host.signer)
        host.registry.get("erased")

        put_back(host, serving)

        for registry in (host.registry, other.registry):
            with pytest.raises(UntrustedModel):
                registry.get("erased")


class TestRedis:
    def test_while_it_is_away_a_process_judges_by_what_it_saw(self, host, broker, client):
        serving = kept(host)
        host.retire("erased")
        put_back(host, serving)
        broker.kill()
        try:
            with pytest.raises(UntrustedModel):
                host.registry.get("erased")
            assert host.registry.get("base")
        finally:
            broker.start()

    def test_what_it_missed_it_is_told_later(self, host, broker, client, monkeypatch):
        monkeypatch.setattr(status_serials, "LOOK_AGAIN_S", 0.0)
        broker.kill()
        try:
            retired = Registrar(host.open()).set_status("erased", ModelStatus.RETIRED, host.signer)
            host.registry.get("erased")
        finally:
            broker.start()
        host.registry.get("base")

        assert client.zscore(KEY, "erased") == retired.serial

    def test_while_it_is_away_nobody_knows_what_others_change_and_nothing_is_changed(
        self, host, broker, client
    ):
        serving = kept(host)
        broker.kill()
        try:
            with pytest.raises(StoreUnavailable):
                host.retire("erased")
        finally:
            broker.start()

        assert kept(host) == serving
        assert host.retire("erased").status is ModelStatus.RETIRED

    def test_who_comes_while_a_process_looks_for_the_first_time_waits_for_what_it_sees(
        self, host, client
    ):
        serving = kept(host)
        host.retire("erased")
        put_back(host, serving)
        slow = SlowToTell(client)
        registry = host.open(StatusSerials(slow))
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(registry.untrusted)
            assert slow.asked.wait(20)
            second = pool.submit(registry.untrusted)
            wait([second], timeout=0.5)
            slow.told.set()

            for asked in (first, second):
                assert "put back" in asked.result()["erased"]

    def test_a_new_process_whose_first_look_fails_takes_no_manifest_for_the_newest(
        self, host, broker, client
    ):
        serving = kept(host)
        host.retire("erased")
        put_back(host, serving)
        registry = host.open(StatusSerials(client))
        broker.kill()
        try:
            for ask in (registry.all, registry.untrusted, lambda: registry.served("erased")):
                with pytest.raises(StoreUnavailable):
                    ask()
        finally:
            broker.start()

        with pytest.raises(UntrustedModel, match="put back"):
            registry.served("erased")
        assert registry.get("base")

    def test_nor_does_one_that_knows_what_it_wrote_itself_alone(self, broker, client):
        serials = StatusSerials(client)
        StatusSerials(client).note("retired-elsewhere", 5)
        broker.kill()
        try:
            serials.note("made-here", 3)
            with pytest.raises(StoreUnavailable):
                serials.newest("made-here")
        finally:
            broker.start()

        assert serials.newest("retired-elsewhere") == 5
        assert client.zscore(KEY, "made-here") == 3

    def test_where_no_redis_is_asked_nothing_is_waited_for(self, host, broker):
        """`trce erase --data-dir`, `trce signing list`, and whatever else works offline."""
        broker.kill()
        try:
            assert [one.id for one in host.open().all()] == ["base", "erased"]
        finally:
            broker.start()

    def test_of_those_who_ask_a_process_that_never_heard_redis_not_each_waits_in_turn(
        self, settings, broker, monkeypatch
    ):
        monkeypatch.setattr("core.redis_connection.SILENCE_S", 0.5)
        ModelsOnDisk(settings.data_dir)
        with closing(open_serving_registry(settings).serials) as serials:
            with ThreadPoolExecutor(8) as pool, broker.frozen():
                began_s = time.monotonic()
                asked = [pool.submit(serials.newest, "base") for _ in range(8)]
                failed = [one.exception() for one in asked]
                took_s = time.monotonic() - began_s

            assert {type(error) for error in failed} == {StoreUnavailable}
            assert took_s < 4 * 0.5
            time.sleep(1.1)  # it was silent a moment ago
            assert serials.newest("base") == 0

    def test_a_lower_serial_never_takes_the_place_of_a_higher_one(self, client):
        late, early = StatusSerials(client), StatusSerials(client)
        late.note("m", 5)
        early.note("m", 3)

        assert client.zscore(KEY, "m") == 5

    def test_reading_writes_nothing(self, host, client):
        host.registry.get("erased")
        before = client.info("persistence")["rdb_changes_since_last_save"]
        for _ in range(10):
            host.registry.get("erased")

        assert client.info("persistence")["rdb_changes_since_last_save"] == before


def test_readers_never_take_a_change_for_a_rollback(host, client):
    """They read the file before it changed, and the serial after that."""
    done, failed = threading.Event(), []

    def read() -> None:
        registry = host.open(StatusSerials(client))
        while not done.is_set():
            try:
                registry.get("erased")
            except UntrustedModel as error:
                failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(30):
        host.retire("erased")
        host.promote("erased")
    done.set()
    for reader in readers:
        reader.join()

    assert failed == []


def test_serials_rise_however_the_clock_goes(host, monkeypatch):
    before = host.registry.get("erased").serial
    monkeypatch.setattr("core.registrar.time.time", lambda: 0.0)

    assert host.retire("erased").serial == before + 1
