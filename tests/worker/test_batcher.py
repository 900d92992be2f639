"""The drain loop, with the shipped model and a real broker."""

import contextlib
import io
import threading
import time
import weakref

import numpy as np
import pytest
import redis
import torch
from PIL import Image

from core.errors import ModelsUnavailable, StoreUnavailable, WeightsDiffer
from core.installation import open_registry
from core.jobs import JobState
from core.status_serials import StatusSerials
from core.storage import Storage
from diffusion import freed_memory, previews
from diffusion.denoiser import Denoiser
from diffusion.prompts import PromptEncoder
from worker import batcher
from worker import model_loader as loader_module
from worker.shelf import Shelf
from worker.warming import warm_up


def pixels(storage: Storage, job, index: int = 0) -> np.ndarray:
    picture = Image.open(io.BytesIO(storage.get(job.generation.images[index].key)))
    return np.asarray(picture.convert("RGB"), dtype=np.int16)


def test_a_waiting_job_becomes_a_picture_that_tells_how_it_was_made(
    jobs, storage, submit, make_batcher
):
    job_id = submit("a red apple", seed=11)
    make_batcher().drain()

    job = jobs.get(job_id)
    assert job.state is JobState.SUCCEEDED
    picture = Image.open(io.BytesIO(storage.get(job.generation.images[0].key)))
    assert picture.size == (64, 64)
    assert picture.info["parameters"].startswith(
        "a red apple\nSteps: 4, Sampler: DDIM, Schedule type: Automatic, CFG scale: 5.0, Seed: 11"
    )


def test_jobs_of_all_kinds_share_the_batch_and_each_ends(jobs, submit, make_batcher, heartbeat):
    wishes = [
        {"num_inference_steps": 2},
        {"num_inference_steps": 6, "guidance_scale": 8.0},
        {"guidance_scale": 1.0},
        {"width": 80},
        {"n": 3},
    ]
    ids = [submit(**wish) for wish in wishes]
    make_batcher().drain()

    assert [jobs.get(job_id).state for job_id in ids] == [JobState.SUCCEEDED] * len(ids)
    assert len(jobs.get(ids[-1]).generation.images) == 3
    assert sorted(ids) in [sorted(held) for held in heartbeat.held]


def test_more_jobs_than_rows_are_drawn_in_turn(jobs, submit, make_batcher, heartbeat, monkeypatch):
    drawn, step = [], Denoiser.step
    monkeypatch.setattr(Denoiser, "step", lambda self: drawn.append(len(self)) or step(self))
    ids = [submit(seed=seed) for seed in range(9)]
    make_batcher(rows=2).drain()

    assert all(jobs.get(job_id).state is JobState.SUCCEEDED for job_id in ids)
    assert max(drawn) == 2
    # With those that are being stored.
    assert max(len(held) for held in heartbeat.held) <= 4


@pytest.mark.parametrize("k", [1, 7])
def test_who_comes_while_others_are_drawn_is_in_the_batch_two_steps_later(
    jobs, submit, make_batcher, monkeypatch, k
):
    ids = [submit(num_inference_steps=20, seed=seed) for seed in range(3)]
    batches, step = [], Denoiser.step

    def watched_step(self):
        batches.append(len(self))
        done = step(self)
        if len(batches) == k:
            ids.append(submit(num_inference_steps=2))
        return done

    monkeypatch.setattr(Denoiser, "step", watched_step)
    make_batcher().drain()

    assert batches[:k] == [3] * k
    assert batches[k : k + 2] in ([4, 4], [3, 4])
    assert all(jobs.get(job_id).state is JobState.SUCCEEDED for job_id in ids)


class SlowStorage(Storage):
    def __init__(self, folder, *, put_s):
        super().__init__(folder)
        self._put_s = put_s

    def put(self, key, data):
        time.sleep(self._put_s)
        super().put(key, data)


def test_a_picture_that_is_stored_slowly_holds_up_no_step_and_not_too_many_wait(
    settings, jobs, submit, make_batcher, heartbeat
):
    ids = [submit(seed=seed, num_inference_steps=1) for seed in range(6)]
    slow = SlowStorage(settings.images_dir, put_s=0.3)
    make_batcher(rows=1, storage=slow).drain()

    assert all(jobs.get(job_id).state is JobState.SUCCEEDED for job_id in ids)
    assert max(len(held) for held in heartbeat.held) == 2


def test_a_worker_that_waits_for_its_store_says_that_it_does_not_hang(
    settings, jobs, submit, make_batcher, heartbeat, monkeypatch
):
    monkeypatch.setattr(batcher, "STILL_STORING_S", 0.02)
    job_id = submit(num_inference_steps=1)
    make_batcher(storage=SlowStorage(settings.images_dir, put_s=1.0)).drain()

    assert jobs.get(job_id).state is JobState.SUCCEEDED
    assert heartbeat.steps > 20


def test_a_worker_that_waits_for_its_store_asks_for_work_now_and_then(
    settings, jobs, submit, make_batcher, monkeypatch
):
    asked, claim = [], jobs.leasing.claim
    monkeypatch.setattr(jobs.leasing, "claim", lambda *a, **k: asked.append(a) or claim(*a, **k))
    submit(num_inference_steps=1)
    make_batcher(storage=SlowStorage(settings.images_dir, put_s=1.0)).drain()

    assert 5 < len(asked) < 20


def test_between_models_that_it_loads_a_worker_says_that_it_does_not_hang(
    jobs, submit, make_batcher, heartbeat, monkeypatch
):
    beats, variant = [], Shelf.variant
    monkeypatch.setattr(
        Shelf, "variant", lambda *asked: beats.append(heartbeat.steps) or variant(*asked)
    )
    for _ in range(3):
        submit(num_inference_steps=1)
    make_batcher().drain()

    assert beats[:3] == [0, 1, 2]


class StorageThatWaits(Storage):
    def __init__(self, folder, first):
        super().__init__(folder)
        self._first, self.drawn_on = first, threading.Event()
        self.in_time = None

    def put(self, key, data):
        if self._first in key:
            self.in_time = self.drawn_on.wait(10)
        super().put(key, data)


def test_while_a_model_is_loaded_the_heartbeat_stands_in(
    submit, make_batcher, heartbeat, make_shelf, monkeypatch
):
    """It ends what is cancelled meanwhile: nobody else looks."""
    shelf, stood_in = make_shelf(), []
    load = shelf.variant
    monkeypatch.setattr(
        shelf, "variant", lambda *args: stood_in.append(heartbeat.stands_in) or load(*args)
    )
    submit()
    heartbeat.on_step = lambda _: stood_in.append(heartbeat.stands_in)
    make_batcher(shelf=shelf).drain()

    assert stood_in[0]
    assert not any(stood_in[1:])


def test_what_comes_while_a_picture_is_stored_is_begun_at_once(
    settings, jobs, submit, make_batcher, heartbeat, monkeypatch
):
    first, other = submit(num_inference_steps=1), []
    store = StorageThatWaits(settings.images_dir, first)
    drawn, step = [], Denoiser.step

    def watched_step(self):
        drawn.append(len(self))
        if other:
            store.drawn_on.set()
        return step(self)

    def come(steps: int) -> None:
        # The first beat is that of its only step, the second one of waiting for its picture.
        if steps == 2:
            other.append(submit(num_inference_steps=1))

    monkeypatch.setattr(Denoiser, "step", watched_step)
    heartbeat.on_step = come
    make_batcher(storage=store).drain()

    assert store.in_time
    assert drawn == [1, 1]
    assert [jobs.get(one).state for one in (first, *other)] == [JobState.SUCCEEDED] * 2


@pytest.mark.parametrize("verdict", ["cancelled", "late"])
def test_what_is_stopped_while_it_is_stored_holds_up_no_step(
    settings, jobs, submit, make_batcher, heartbeat, verdict
):
    stopped, other = submit(num_inference_steps=1), submit(num_inference_steps=12)
    store = StorageThatWaits(settings.images_dir, stopped)

    def stop(steps: int) -> None:
        if steps == 4:
            heartbeat.verdicts[stopped] = verdict
        if steps == 10:
            store.drawn_on.set()

    heartbeat.on_step = stop
    make_batcher(storage=store).drain()

    assert store.in_time
    assert [jobs.get(one).state for one in (stopped, other)] == [JobState.SUCCEEDED] * 2


def test_a_result_is_recorded_while_the_next_step_is_under_way(
    settings, jobs, submit, make_batcher, monkeypatch
):
    """Its pictures are stored by then: nobody waits for the others' step."""
    short, long = submit(num_inference_steps=1), submit(num_inference_steps=3)
    step, recorded = Denoiser.step, []

    def watched_step(self):
        if len(self) == 1:
            until = time.monotonic() + 5
            while not jobs.get(short).state.ended and time.monotonic() < until:
                time.sleep(0.01)
            recorded.append(jobs.get(short).state)
        return step(self)

    monkeypatch.setattr(Denoiser, "step", watched_step)
    make_batcher().drain()

    assert recorded[0] is JobState.SUCCEEDED
    assert jobs.get(long).state is JobState.SUCCEEDED


def test_picture_i_of_a_job_is_the_picture_of_seed_plus_i(jobs, storage, submit, make_batcher):
    together = submit(n=3, seed=20)
    apart = submit(seed=22)
    make_batcher().drain()

    third = pixels(storage, jobs.get(together), 2)
    assert [image.seed for image in jobs.get(together).generation.images] == [20, 21, 22]
    assert np.abs(third - pixels(storage, jobs.get(apart))).max() <= 1


def test_company_does_not_change_a_picture(jobs, storage, submit, make_batcher):
    alone = submit("a tree")
    make_batcher().drain()
    ids = [submit("a tree"), *(submit(seed=seed) for seed in range(4))]
    make_batcher().drain()

    before, after = (pixels(storage, jobs.get(job_id)) for job_id in (alone, ids[0]))
    assert np.abs(before - after).max() <= 1


def test_a_job_that_must_be_alone_is(jobs, submit, make_batcher, heartbeat):
    ids = [submit(alone=True), submit(), submit()]
    make_batcher().drain()

    assert all(jobs.get(job_id).state is JobState.SUCCEEDED for job_id in ids)
    assert [ids[0]] in heartbeat.held
    assert not any(ids[0] in held and len(held) > 1 for held in heartbeat.held)


def test_a_strict_job_gives_the_same_bits_whatever_waits_beside_it(
    jobs, storage, submit, make_batcher
):
    alone = submit("a tree", alone=True, scheduler="euler_a")
    make_batcher().drain()
    busy = [submit(seed=1), submit("a tree", alone=True, scheduler="euler_a"), submit(seed=2)]
    make_batcher().drain()

    assert np.array_equal(*(pixels(storage, jobs.get(job_id)) for job_id in (alone, busy[1])))


def test_pictures_of_a_strict_job_are_decoded_one_by_one(
    jobs, storage, make_shelf, submit, make_batcher
):
    """So that no bit of one depends on how many others were asked for with it."""
    shelf = make_shelf()
    vae = shelf.variant("emoji").base._components.vae
    decoded, decode = [], vae.decode
    vae.decode = lambda latents, **how: decoded.append(len(latents)) or decode(latents, **how)
    batcher = make_batcher(shelf=shelf)
    three = submit(n=3, seed=20, alone=True)
    batcher.drain()
    assert decoded == [1, 1, 1]

    third = submit(seed=22, alone=True)
    batcher.drain()
    submit(n=3)
    batcher.drain()
    assert decoded == [1, 1, 1, 1, 3]
    assert np.array_equal(pixels(storage, jobs.get(three), 2), pixels(storage, jobs.get(third)))


def test_texts_of_jobs_that_come_together_are_encoded_together_and_those_of_strict_ones_alone(
    jobs, storage, registry, submit, make_batcher
):
    shelf = Shelf(registry, device=torch.device("cpu"), dtype=torch.float32)
    encoder = shelf.variant("emoji").encoder
    passes, encode_all = [], encoder.encode_all
    encoder.encode_all = lambda prompts: passes.append(list(prompts)) or encode_all(prompts)
    batcher = make_batcher(shelf=shelf)
    strict = submit("a tree", alone=True)
    batcher.drain()
    ids = [submit(prompt, negative_prompt="red") for prompt in ("a tree", "a dog", "a cat")]
    batcher.drain()
    again = submit("a dog", alone=True, negative_prompt="red")
    batcher.drain()
    elsewhere = submit("a dog", alone=True, negative_prompt="red")
    make_batcher().drain()

    assert passes == [["a tree"], [""], ["red", "a dog", "a cat"], ["a dog"], ["red"]]
    assert all(jobs.get(one).state is JobState.SUCCEEDED for one in (strict, *ids))
    assert np.array_equal(*(pixels(storage, jobs.get(one)) for one in (again, elsewhere)))


def test_jobs_of_several_schedulers_share_a_batch_and_say_which_was_theirs(
    jobs, storage, submit, make_batcher, heartbeat
):
    wishes = {None: "DDIM", "euler_a": "Euler a", "dpmpp_2m_karras": "DPM++ 2M", "heun": "Heun"}
    ids = {submit(scheduler=name): label for name, label in wishes.items()}
    make_batcher().drain()

    assert sorted(ids) in [sorted(held) for held in heartbeat.held]
    drawn = []
    for job_id, label in ids.items():
        (image,) = jobs.get(job_id).images
        picture = Image.open(io.BytesIO(storage.get(image.key)))
        assert f", Sampler: {label}, Schedule type: " in picture.info["parameters"]
        drawn.append(np.asarray(picture, dtype=np.int16))
    assert np.abs(drawn[0] - drawn[1]).max() > 20


def test_a_scheduler_that_the_model_cannot_use_fails_its_job_at_once(jobs, submit, make_batcher):
    job_id = submit(scheduler="lcm", num_inference_steps=60)
    make_batcher().drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert "lcm takes at most 50 steps" in job.reason


def test_a_cancelled_job_leaves_the_batch_and_the_others_stay(
    jobs, submit, make_batcher, heartbeat
):
    cancelled, kept = submit(num_inference_steps=50), submit()

    def cancel(steps: int) -> None:
        if steps == 2:
            jobs.cancel(cancelled)
            heartbeat.verdicts[cancelled] = "cancelled"

    heartbeat.on_step = cancel
    make_batcher().drain()

    assert jobs.get(cancelled).state is JobState.CANCELLED
    assert jobs.get(kept).state is JobState.SUCCEEDED
    assert heartbeat.steps < 50


def test_a_job_lost_to_another_worker_is_dropped(jobs, submit, make_batcher, heartbeat):
    job_id = submit(num_inference_steps=50)

    def lose(steps: int) -> None:
        if steps == 2:
            jobs.leasing.take_back("inference-0@test")
            heartbeat.verdicts[job_id] = "lost"
            jobs.leasing.claim("generation", "other", slots=1, lease_s=30, idle=True)

    heartbeat.on_step = lose
    make_batcher().drain()

    assert jobs.get(job_id).state is JobState.RUNNING
    assert jobs.get(job_id).attempt == 2


def test_progress_is_told_while_it_lasts(jobs, submit, make_batcher):
    job_id = submit()
    make_batcher().drain()

    told = [fields["progress"] for _, fields in jobs.news.events(job_id) if "progress" in fields]
    assert told
    assert '"total":4' in told[0]


class TestRefusing:
    def test_a_model_that_is_not_served(self, settings, jobs, submit, make_batcher):
        from core.installation import open_registry
        from worker.shelf import Shelf

        closed = settings.model_copy(update={"serve_unerased_base": False})
        shelf = Shelf(open_registry(closed), device="cpu", dtype=None)
        job_id = submit()
        make_batcher(shelf=shelf).drain()

        job = jobs.get(job_id)
        assert job.state is JobState.FAILED
        assert "does not serve those" in job.reason

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
    def test_a_model_with_a_changed_file(self, settings, jobs, submit, make_batcher, part):
        victim = max((settings.models_dir / "emoji" / part).iterdir())
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        job_id = submit()
        make_batcher().drain()

        job = jobs.get(job_id)
        assert job.state is JobState.FAILED
        assert f"{part}/{victim.name} differs from its manifest" in job.reason

    def test_one_bad_job_does_not_harm_its_neighbours(self, jobs, submit, make_batcher):
        bad, good = submit(model="nothing"), submit()
        make_batcher().drain()

        assert jobs.get(bad).state is JobState.FAILED
        assert jobs.get(good).state is JobState.SUCCEEDED


class TestShuttingDown:
    def test_what_is_nearly_done_is_finished(self, jobs, submit, make_batcher, heartbeat):
        job_id = submit()
        make_batcher(draining=lambda: heartbeat.steps > 1, drain_s=60).drain()

        assert jobs.get(job_id).state is JobState.SUCCEEDED

    def test_what_is_drawn_is_stored_however_long_it_takes(
        self, settings, jobs, submit, make_batcher, heartbeat
    ):
        job_id = submit(num_inference_steps=1)
        slow = SlowStorage(settings.images_dir, put_s=0.5)
        make_batcher(draining=lambda: heartbeat.steps > 0, drain_s=0, storage=slow).drain()

        assert (jobs.get(job_id).state, jobs.get(job_id).attempt) == (JobState.SUCCEEDED, 1)

    def test_what_is_not_is_handed_back_uncounted(self, jobs, submit, make_batcher, heartbeat):
        job_id, waiting = submit(num_inference_steps=50), submit(num_inference_steps=50)
        make_batcher(draining=lambda: heartbeat.steps > 1, drain_s=0, rows=1).drain()

        assert jobs.get(job_id).state is JobState.QUEUED
        assert jobs.get(job_id).attempt == 0
        assert jobs.get(waiting).attempt == 0


def test_a_defect_of_ours_does_not_hold_a_job_for_ever(jobs, submit, make_batcher, heartbeat):
    class Defect(Exception):
        pass

    def fail(steps: int) -> None:
        raise Defect

    heartbeat.on_step = fail
    job_id = submit()
    batcher = make_batcher()
    with pytest.raises(Defect):
        batcher.drain()
    assert jobs.get(job_id).state is JobState.QUEUED
    assert heartbeat.held[-1] == []

    heartbeat.on_step = lambda steps: None
    batcher.drain()
    assert jobs.get(job_id).state is JobState.SUCCEEDED


class TestAfterAnErrorWithoutAName:
    """As after a failed kernel launch: the process ends, and one job at most pays for it."""

    @pytest.mark.parametrize("error", [RuntimeError("CUDA error"), MemoryError()])
    def test_at_opening(self, jobs, submit, make_batcher, make_shelf, monkeypatch, error):
        shelf = make_shelf()
        monkeypatch.setattr(shelf, "variant", fail_with(error))
        ids = [submit(), submit(), submit()]
        with pytest.raises(type(error)):
            make_batcher(shelf=shelf).drain()

        assert all(jobs.get(one).state is JobState.QUEUED for one in ids)
        assert sorted(jobs.get(one).attempt for one in ids) == [0, 0, 1]

    @pytest.mark.parametrize(
        "error", [RuntimeError("CUDA error"), WeightsDiffer("other weights than were put there")]
    )
    def test_at_a_step(
        self, jobs, submit, make_batcher, add_variant, heartbeat, monkeypatch, error
    ):
        add_variant("other", seed=3)
        ids = [submit(num_inference_steps=50), submit(num_inference_steps=50, model="other")]

        def break_device(steps: int) -> None:
            if steps == 2:
                monkeypatch.setattr(Denoiser, "step", fail_with(error))

        heartbeat.on_step = break_device
        with pytest.raises(type(error)):
            make_batcher().drain()

        assert all(jobs.get(one).state is JobState.QUEUED for one in ids)
        assert sorted(jobs.get(one).attempt for one in ids) == [0, 1]
        assert heartbeat.held[-1] == []

    def test_a_job_that_breaks_every_process_fails_and_no_other_does(
        self, jobs, submit, make_batcher, make_shelf, monkeypatch
    ):
        shelf = make_shelf()
        whole = shelf.variant

        def variant(model_id: str, spec):
            if spec.prompt == "poison":
                raise RuntimeError("CUDA error")
            return whole(model_id, spec)

        monkeypatch.setattr(shelf, "variant", variant)
        poison, others = submit("poison"), [submit(), submit()]
        for _ in range(12):
            with contextlib.suppress(RuntimeError):
                make_batcher(shelf=shelf).drain()

        assert jobs.get(poison).state is JobState.FAILED
        assert "RuntimeError: CUDA error" in jobs.get(poison).reason
        assert [jobs.get(one).state for one in others] == [JobState.SUCCEEDED] * 2
        assert [jobs.get(one).attempt for one in others] == [1, 1]


class TestMemoryThatRunsOut:
    """It costs the job that needed it an attempt, the process nothing, and nobody else."""

    @pytest.fixture(
        params=[
            (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
            (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        ],
        ids=["gpu", "cpu"],
    )
    def short_once(self, request, monkeypatch):
        """The next call of something computes a tensor, and finds no room for another."""

        kind, message = request.param

        def patch(owner, name: str) -> list[weakref.ref]:
            whole, held = getattr(owner, name), []

            def short(*arguments, **options):
                if held:
                    return whole(*arguments, **options)
                computed = torch.zeros(1)
                held.append(weakref.ref(computed))
                raise kind(message)

            monkeypatch.setattr(owner, name, short)
            return held

        return patch

    def test_at_loading(self, jobs, submit, make_batcher, short_once, monkeypatch):
        held, left = short_once(loader_module, "load_base"), []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.append(held[0]()))
        job_id, batcher = submit(), make_batcher()
        batcher.drain()
        assert (jobs.get(job_id).state, jobs.get(job_id).attempt) == (JobState.QUEUED, 1)
        assert "does not fit the device now" in str(jobs.news.events(job_id))
        assert left == [None]

        batcher.drain()
        assert (jobs.get(job_id).state, jobs.get(job_id).attempt) == (JobState.SUCCEEDED, 2)

    @pytest.mark.parametrize(
        ("owner", "name"),
        [(PromptEncoder, "encode_all"), (Denoiser, "join")],
        ids=["prompts", "latents"],
    )
    def test_at_beginning(self, jobs, submit, make_batcher, heartbeat, short_once, owner, name):
        drawn, ids = submit(num_inference_steps=6), []

        def come(steps: int) -> None:
            if steps == 2:
                short_once(owner, name)
                ids.append(submit("a horse"))

        heartbeat.on_step = come
        make_batcher().drain()

        assert (jobs.get(drawn).state, jobs.get(drawn).attempt) == (JobState.SUCCEEDED, 1)
        (job,) = map(jobs.get, ids)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)

    def test_at_warming_up(self, make_shelf, short_once):
        short_once(loader_module, "load_base")
        shelf = make_shelf()
        warm_up(shelf, ["emoji"])
        assert shelf.models == []

        warm_up(shelf, ["emoji"])
        assert shelf.models == ["emoji"]

    def test_at_a_preview(self, jobs, submit, make_batcher, short_once):
        held = short_once(previews, "_shrunk")
        job_id = submit(num_inference_steps=4, previews=1)
        make_batcher().drain()

        assert len(held) == 1
        assert (jobs.get(job_id).state, jobs.get(job_id).attempt) == (JobState.SUCCEEDED, 1)


def fail_with(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


def test_a_full_disk_uses_up_no_attempts_and_is_waited_out(
    jobs, submit, make_batcher, tmp_path, monkeypatch
):
    """A file where the folder should be fails every write, as a full disk does."""
    monkeypatch.setattr("worker.patience.FIRST_S", 0.3)
    (tmp_path / "full").write_text("")
    job_id = submit()
    batcher = make_batcher(storage=Storage(tmp_path / "full"))
    batcher.drain()

    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert "could not be stored" in jobs.news.events(job_id)[-1][1]["why"]
    batcher.drain()
    assert jobs.get(job_id).started_at == job.started_at  # it claims nothing yet

    (tmp_path / "full").unlink()
    time.sleep(0.3)
    batcher.drain()
    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


def test_an_outage_of_the_models_bucket_uses_up_no_attempts_and_is_waited_out(
    jobs, submit, make_batcher, make_shelf, monkeypatch
):
    monkeypatch.setattr("worker.patience.FIRST_S", 0.3)
    job_id = submit()
    shelf = make_shelf()
    batcher = make_batcher(shelf=shelf)
    with monkeypatch.context() as patch:
        patch.setattr(shelf, "variant", fail_with(ModelsUnavailable("the bucket is away")))
        batcher.drain()

        job = jobs.get(job_id)
        assert (job.state, job.attempt) == (JobState.QUEUED, 0)
        assert "the bucket is away" in jobs.news.events(job_id)[-1][1]["why"]
        batcher.drain()
        assert jobs.get(job_id).started_at == job.started_at  # it claims nothing yet

    time.sleep(0.3)
    batcher.drain()
    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)


def test_a_job_claimed_before_anybody_knows_the_newest_manifests_waits_uncounted_until_then(
    jobs, submit, make_batcher, make_shelf, settings, redis_client, monkeypatch
):
    """Its model may have been retired since, and its old manifest been put back."""
    monkeypatch.setattr("worker.patience.FIRST_S", 0.3)
    registry = open_registry(settings, StatusSerials(redis_client))
    newer = open_registry(settings).get("emoji").serial + 1
    StatusSerials(redis_client).note("emoji", newer)
    job_id = submit()
    batcher = make_batcher(shelf=make_shelf(registry=registry))
    with monkeypatch.context() as patch:
        patch.setattr(redis_client, "zrange", fail_with(redis.ConnectionError()))
        batcher.drain()
    job = jobs.get(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)

    time.sleep(0.3)
    batcher.drain()
    assert jobs.get(job_id).state is JobState.FAILED
    assert "put back" in jobs.get(job_id).reason


def test_what_an_outage_of_the_broker_interrupts_is_let_go(
    jobs, submit, make_batcher, heartbeat, monkeypatch
):
    """The heartbeat gives it back when the broker answers; this process draws it no more."""
    ended = submit(num_inference_steps=2)
    # Previews are told of at every step, however fast the machine.
    under_way = submit(num_inference_steps=50, previews=10)
    away = fail_with(StoreUnavailable("the job store does not answer"))

    def outage(steps: int) -> None:
        if jobs.get(ended).state.ended:
            monkeypatch.setattr(jobs.leasing, "report_all", away)

    heartbeat.on_step = outage
    with pytest.raises(StoreUnavailable):
        make_batcher().drain()

    assert under_way in heartbeat.gone
    assert heartbeat.held[-1] == []
    assert jobs.get(under_way).state is JobState.RUNNING


def test_an_outage_of_the_broker_in_which_nobody_knows_the_policy_uses_up_no_attempt(
    jobs, submit, make_batcher, heartbeat, monkeypatch
):
    job_id = submit(num_inference_steps=2)
    away = fail_with(StoreUnavailable("the job store does not answer"))
    monkeypatch.setattr("worker.judging.Panel.finding", away)

    with pytest.raises(StoreUnavailable):
        make_batcher().drain()

    assert heartbeat.gone == [job_id]
    assert jobs.get(job_id).state is JobState.RUNNING


def test_a_worker_keeps_what_it_draws_and_works_on_what_it_was_given_unknowingly(
    jobs, submit, make_batcher, heartbeat
):
    """As when the reply to a claim of its own is lost in an outage."""
    drawn, unknown = submit(num_inference_steps=6), None

    def lose_a_reply(steps: int) -> None:
        nonlocal unknown
        if steps == 2:
            unknown = submit()
            jobs.leasing.claim("generation", "inference-0@test", slots=1, lease_s=30, idle=False)

    heartbeat.on_step = lose_a_reply
    make_batcher().drain()

    for job_id in (drawn, unknown):
        assert (jobs.get(job_id).state, jobs.get(job_id).attempt) == (JobState.SUCCEEDED, 1)
    assert not any("why" in fields for _, fields in jobs.news.events(drawn))


def test_memory_that_nothing_uses_goes_back_while_there_is_always_more_to_draw(
    submit, make_batcher, monkeypatch
):
    returned = []
    monkeypatch.setattr(freed_memory, "EVERY_S", 0.0)
    monkeypatch.setattr(freed_memory, "return_to_system", lambda: returned.append(1))
    submit(num_inference_steps=6)
    make_batcher().drain()

    assert len(returned) >= 6


def test_a_late_job_is_stopped_and_keeps_what_was_drawn(jobs, submit, make_batcher, heartbeat):
    late, kept = submit(num_inference_steps=50, n=2), submit(num_inference_steps=6)

    def pass_the_deadline(steps: int) -> None:
        if steps == 2:
            heartbeat.verdicts[late] = "late"

    heartbeat.on_step = pass_the_deadline
    make_batcher().drain()

    job = jobs.get(late)
    assert job.state is JobState.FAILED
    assert job.reason == "its deadline passed while it was drawn"
    assert [image.finish_reason for image in job.images] == ["error", "error"]
    assert jobs.get(kept).state is JobState.SUCCEEDED
    assert heartbeat.steps < 50
