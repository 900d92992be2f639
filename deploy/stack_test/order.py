"""The steps, in their order; together they take every command of README's section."""

from collections.abc import Callable
from typing import Any

from deploy.stack_test.stack import Stack
from deploy.stack_test.steps import changing, first_run, refusing, surviving

Step = Callable[[Stack], dict[str, Any]]

STEPS: list[Step] = [
    refusing.build,
    refusing.refuse_bad_settings,
    refusing.refuse_a_careless_redis,
    refusing.refuse_a_taken_port,
    first_run.come_up,
    first_run.tell_what_was_set_up,
    first_run.stay_closed_without_a_key,
    first_run.be_hardened,
    first_run.keep_the_signing_key_from_who_draws,
    first_run.serve_no_base,
    first_run.erase_and_promote,
    first_run.be_ready,
    first_run.draw_by_default,
    first_run.draw,
    surviving.survive_kills,
    surviving.survive_a_kill_of_the_trainer,
    surviving.tell_of_lost_durability,
    changing.scale,
    changing.upgrade,
    changing.go_down_and_come_back,
    changing.serve_bases_for_a_trial,
]
