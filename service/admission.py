"""The desk: decides whether a request becomes a job, and completes it when it does."""

import hashlib
import secrets

from core.callers import Caller
from core.consistency import check_filled_in
from core.errors import Invalid, ModelNotAllowed, SizeNotDrawable
from core.evaluation import EvaluationSpec
from core.job_ids import JobIds
from core.job_specs import JobSpec, Kind
from core.job_store import JobStore
from core.jobs import Job
from core.learning_rate import check_learning_rate
from core.manifests import Drawing, Manifest
from core.merging import completed, concepts_to_erase
from core.policies import Limits, PolicyStore
from core.queue import Wakes
from core.registry import ModelRegistry
from core.schedulers import check_usable
from core.screening import screen
from core.signing import canonical
from core.specs import ErasureSpec, GenerationSpec
from core.thresholds import PromoteIf
from core.trajectories import reaching_all
from service.delivery import NO_WISHES, Delivery
from service.webhooks.receivers import check_receiver

CONCEPTS = "concepts.json"
"""In a base model that says what it can draw."""
# Small enough for every client's number type.
SEEDS = 2**32


class AdmissionDesk:
    """Everything is checked before the one atomic write, so a refusal leaves no trace.

    Both verbs raise KeyReused, QueueFull, TenantQueueFull, PolicyUnreadable and StoreUnavailable.
    """

    def __init__(
        self,
        jobs: JobStore,
        wakes: Wakes,
        registry: ModelRegistry,
        policies: PolicyStore,
        ids: JobIds,
        *,
        webhooks_to_private_addresses: bool,
    ) -> None:
        self._jobs = jobs
        self._wakes = wakes
        self._registry = registry
        self._policies = policies
        self._ids = ids
        self._private_too = webhooks_to_private_addresses

    def admit_generation(
        self,
        spec: GenerationSpec,
        caller: Caller,
        *,
        delivery: Delivery = NO_WISHES,
        idempotency_key: str = "",
    ) -> Job:
        """Queue a generation, its model, size and seed fixed.

        Raises:
            ModelNotFound, ModelNotServed, UntrustedModel, SizeNotDrawable, SchedulerNotUsable,
            ModelNotAllowed, PromptRefused, QuotaSpent, Invalid: the policy allows less.
        """
        digest = _digest(spec, delivery)
        if earlier := self._earlier("generation", caller, idempotency_key, digest):
            return earlier
        self._check_delivery(delivery)
        model = self._registry.served(self._registry.resolve(spec.model))
        native = model.drawing.native_px
        width, height = spec.width or native, spec.height or native
        _check_side("width", width, model.drawing)
        _check_side("height", height, model.drawing)
        if spec.scheduler is not None:
            own = self._registry.scheduler_config(model)
            check_usable(spec.scheduler, spec.num_inference_steps, own)
        seed = secrets.randbelow(SEEDS) if spec.seed is None else spec.seed
        in_force = self._policies.of(caller.tenant)
        policy = in_force.policy
        if not policy.allows_model(model.id):
            raise ModelNotAllowed(f"your policy does not allow you the model {model.id}")
        _check_limits(spec, policy.limits, longest_px=max(width, height))
        screen(spec.prompt, in_force)
        fixed = {"model": model.id, "width": width, "height": height, "seed": seed}
        complete = spec.model_copy(update=fixed)
        submission = self._jobs.submit(
            self._ids.new("generation"),
            complete,
            queue_class=model.id,
            cost=spec.n,
            share=policy.share,
            priority=policy.priority,
            max_open=policy.limits.open_jobs,
            quota=policy.limits.images_per_day,
            alone=spec.strict,
            deadline_s=delivery.deadline_s,
            webhook=delivery.webhook,
            tenant=caller.tenant,
            request_id=caller.request_id,
            idempotency_key=idempotency_key,
            payload_digest=digest,
        )
        self._wakes.send("generation")
        return self._jobs.get(submission.job_id)

    def admit_erasure(
        self,
        spec: ErasureSpec,
        caller: Caller,
        *,
        delivery: Delivery = NO_WISHES,
        idempotency_key: str = "",
    ) -> Job:
        """Queue an erasure; what a merge leaves open is filled in from the merged models.

        Raises:
            ModelNotFound, UntrustedModel, ConceptInvalid, Invalid.
        """
        check_filled_in(spec)
        digest = _digest(spec, delivery)
        if earlier := self._earlier("erasure", caller, idempotency_key, digest):
            return earlier
        self._check_delivery(delivery)
        base = self._base(spec.base_model)
        if base.kind != "base":
            bases = [one.id for one in self._registry.all() if one.kind == "base"]
            raise Invalid(
                f"base_model: {base.id} is an erased model; erasure starts from a base model: "
                f"{', '.join(bases) or 'there is none here'}"
            )
        merged = [self._registry.get(model_id) for model_id in spec.merge]
        complete = spec.model_copy(update={"base_model": base.id})
        if merged:
            complete = completed(complete, merged)
        complete = reaching_all(complete, concepts_to_erase(complete, merged))
        check_learning_rate(complete, self._registry.path(base.id), base)
        if spec.promote_if is not None:
            _check_measurable(spec.promote_if, base)
        policy = self._policies.of(caller.tenant).policy
        submission = self._jobs.submit(
            self._ids.new("erasure"),
            complete,
            queue_class=base.id,
            share=policy.share,
            priority=policy.priority,
            max_open=policy.limits.open_jobs,
            deadline_s=delivery.deadline_s,
            webhook=delivery.webhook,
            tenant=caller.tenant,
            request_id=caller.request_id,
            idempotency_key=idempotency_key,
            payload_digest=digest,
        )
        self._wakes.send("erasure")
        return self._jobs.get(submission.job_id)

    def admit_evaluation(
        self,
        spec: EvaluationSpec,
        caller: Caller,
        *,
        delivery: Delivery = NO_WISHES,
        idempotency_key: str = "",
    ) -> Job:
        """Queue an evaluation.

        Raises:
            ModelNotFound, UntrustedModel, Invalid.
        """
        digest = _digest(spec, delivery)
        if earlier := self._earlier("evaluation", caller, idempotency_key, digest):
            return earlier
        self._check_delivery(delivery)
        model = self._registry.get(self._registry.resolve(spec.model))
        base = self._registry.get(model.edit.base_model) if model.edit else model
        _check_suites(spec, model, base)
        policy = self._policies.of(caller.tenant).policy
        submission = self._jobs.submit(
            self._ids.new("evaluation"),
            spec.model_copy(update={"model": model.id}),
            queue_class=model.id,
            share=policy.share,
            priority=policy.priority,
            max_open=policy.limits.open_jobs,
            deadline_s=delivery.deadline_s,
            webhook=delivery.webhook,
            tenant=caller.tenant,
            request_id=caller.request_id,
            idempotency_key=idempotency_key,
            payload_digest=digest,
        )
        self._wakes.send("evaluation")
        return self._jobs.get(submission.job_id)

    def _base(self, name: str) -> Manifest:
        """The model that is named; where another name means one that was erased from, its base.

        Where `default` points is no decision of who asks for an erasure.

        Raises:
            ModelNotFound, UntrustedModel.
        """
        named = self._registry.get(self._registry.resolve(name))
        if named.edit is None or named.id == name:
            return named
        return self._registry.get(named.edit.base_model)

    def _check_delivery(self, delivery: Delivery) -> None:
        """Raises Invalid."""
        if delivery.webhook is not None:
            check_receiver(delivery.webhook, private_too=self._private_too)

    def _earlier(
        self, kind: Kind, caller: Caller, idempotency_key: str, digest: str
    ) -> Job | None:
        """A retry gets its job back even if the same request would be refused by now."""
        if not idempotency_key:
            return None
        job_id = self._jobs.made_by(kind, idempotency_key, digest, tenant=caller.tenant)
        return None if job_id is None else self._jobs.get(job_id)


def _digest(spec: JobSpec, delivery: Delivery) -> str:
    """Names the request as it was sent: before anything was chosen for it, so that it is the same
    for a version that knows more fields."""
    sent = spec.model_dump(mode="json", exclude_defaults=True) | delivery.wishes
    return hashlib.sha256(canonical(sent)).hexdigest()


def _check_measurable(terms: PromoteIf, base: Manifest) -> None:
    """Raises Invalid: thresholds that no suite, or a detector, can measure on this base."""
    wanted = terms.detector
    if wanted is not None and wanted.name == "classifier" and CONCEPTS not in base.files:
        raise Invalid(
            f"promote_if.detector: {base.id} has no classifier; name another, such as nudenet"
        )
    if terms.built_in and CONCEPTS not in base.files:
        raise Invalid(
            f"promote_if: nothing measures {', '.join(terms.built_in)} on {base.id}, which has no "
            f"{CONCEPTS}; name prompt files, such as i2p.csv"
        )


def _check_suites(spec: EvaluationSpec, model: Manifest, base: Manifest) -> None:
    """Raises Invalid: suites of another kind of model, or nothing to look for."""
    if CONCEPTS not in base.files:
        if spec.suites or spec.attacks or spec.target or not spec.prompt_files:
            raise Invalid(
                f"suites, attacks and target are made from {CONCEPTS}, and {base.id} has none; "
                "give `prompt_files` and a `detector`"
            )
        if spec.detector is None:
            raise Invalid(f"detector: {base.id} has no classifier; name one, such as nudenet")
    elif not spec.target and not model.erases:
        raise Invalid(f"target: nothing was erased from {model.id}; say what to look for")


def _check_side(name: str, side_px: int, drawing: Drawing) -> None:
    """Raises SizeNotDrawable."""
    step, largest = (
        drawing.multiple_px,
        drawing.max_px // drawing.multiple_px * drawing.multiple_px,
    )
    if side_px % step == 0 and step <= side_px <= largest:
        return
    nearest = min(max(round(side_px / step) * step, step), largest)
    raise SizeNotDrawable(
        f"{name}: this model cannot draw {side_px} px; sides are multiples of {step} "
        f"up to {largest}, and the nearest is {nearest}"
    )


def _check_limits(spec: GenerationSpec, limits: Limits, *, longest_px: int) -> None:
    """Raises Invalid."""
    for name, wanted, allowed in [
        ("n", spec.n, limits.images_per_request),
        ("num_inference_steps", spec.num_inference_steps, limits.steps),
        ("width, height", longest_px, limits.side_px),
    ]:
        if wanted > allowed:
            raise Invalid(f"{name}: your policy allows at most {allowed}")
