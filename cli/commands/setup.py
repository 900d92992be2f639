"""`trce setup`: what the first run needs, and a look at what every run needs."""

from cli.answers import Json, answer
from cli.stack.up import prepare, prepare_pictures
from core.checkup.broker import check_broker
from core.checkup.check import Check, insist, warning
from core.checkup.default_model import check_default
from core.checkup.folder import check_keys, check_models
from core.checkup.tracing import check_tracing
from core.errors import Misconfigured
from core.installation import open_default_model, open_registry
from core.keys import KeyStore
from core.redis_connection import connect
from core.startup import read_settings

WAIT_FOR_REDIS_S = 30.0


def setup(as_json: Json = False) -> None:
    """Make keys, import the shipped model, create the bucket; then check everything.

    Harmless to repeat: docker compose runs it before each start, and starts nothing if it fails.
    """
    settings = read_settings("setup")
    if settings.redis_url is None:
        raise Misconfigured("REDIS_URL is not set")
    # First: importing the shipped model may put it into the bucket.
    pictures = prepare_pictures(settings)
    insist([pictures])
    prepare(settings)
    with connect(settings.redis_url, retry_s=WAIT_FOR_REDIS_S) as client:
        checks = [
            *check_broker(client),
            check_keys(settings),
            check_models(settings, one_suffices=True),
            check_default(open_default_model(settings, client), open_registry(settings)),
            pictures,
        ]
        if settings.trace_endpoint:
            checks.append(check_tracing(settings.trace_endpoint))
        insist(checks)
        if not KeyStore(client).exist():
            checks.append(_no_api_key())
    lines = [
        f"{one.state:<8}{one.name}: {one.found}{'; ' if one.fix else ''}{one.fix}"
        for one in checks
    ]
    answer(lines, [one.model_dump() for one in checks], as_json=as_json)


def _no_api_key() -> Check:
    return warning(
        "API keys",
        "there is none, so nobody is served",
        "`docker compose exec service trce keys create --scope admin` makes one",
    )
