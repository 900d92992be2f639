"""The playground: several models, one seed; what is drawn comes to be before one's eyes."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from core.progress import Preview, Progress

PART = {"HX-Request": "true"}
FORM = {"prompt": "a red apple", "models": "safe", "steps": "20", "guidance": "5", "seed": "7"}


@pytest.fixture
def both(serve):
    """A service that serves the base `raw`, too."""
    return serve(serve_unerased_base=True)


def jobs_of(response) -> list[str]:
    return response.headers["HX-Push-Url"].removeprefix("/?jobs=").split(".")


def test_models_that_are_served_can_be_chosen_and_no_others(client, both):
    assert 'value="safe" checked' in client.get("/").text
    assert 'value="raw"' not in client.get("/").text
    page = both.get("/").text
    assert 'value="safe" checked' in page
    assert 'value="raw" checked' in page
    assert "waiting" not in page


def test_every_model_draws_the_same_prompt_from_the_same_seed(both):
    asked = FORM | {"models": ["safe", "raw"], "seed": "", "negative_prompt": "blue"}
    response = both.post("/comparisons", data=asked, headers=PART)

    safe, raw = (both.get(f"/v1/generations/{job}").json() for job in jobs_of(response))
    assert (safe["model"], raw["model"]) == ("safe", "raw")
    assert safe["request"] == raw["request"] | {"model": "safe"}
    assert safe["request"]["negative_prompt"] == "blue"


def test_a_browser_without_scripts_gets_there_too(client):
    shown = client.post("/comparisons", data=FORM)

    assert shown.url.path == "/"
    assert shown.text.count("<figure") == 1
    assert "<!doctype html>" in shown.text


def test_a_picture_asks_for_itself_until_it_is_there(client, worker):
    (job,) = jobs_of(client.post("/comparisons", data=FORM, headers=PART))
    waiting = client.get(f"/comparisons/{job}", headers=PART).text
    lease = worker.claim()
    worker.jobs.leasing.report(lease, Progress(stage="denoising", done=5, total=20))
    running = client.get(f"/comparisons/{job}", headers=PART).text
    worker.jobs.leasing.hand_back(lease, "test")
    worker.draw()
    drawn = client.get(f"/comparisons/{job}", headers=PART).text

    assert "next in line" in waiting
    assert '<progress value="5" max="20"' in running
    for text in (waiting, running):
        assert "every 400ms" in text
    assert f'src="/v1/generations/{job}/images/0"' in drawn
    assert "every" not in drawn
    assert "Cancel" not in drawn


def test_what_was_drawn_is_shown_again_at_its_address(client, worker):
    (job,) = jobs_of(client.post("/comparisons", data=FORM, headers=PART))
    worker.draw()

    page = client.get(f"/?jobs={job}").text
    assert f'src="/v1/generations/{job}/images/0"' in page
    assert 'value="a red apple"' in page
    assert 'value="7"' in page


def test_without_scripts_cancelling_leads_back_to_all_of_them(both):
    asked = both.post("/comparisons", data=FORM | {"models": ["safe", "raw"]})
    ids = parse_qs(urlsplit(str(asked.url)).query)["jobs"][0]
    first = ids.partition(".")[0]
    (address,) = re.findall(rf'method="post" action="(/comparisons/{first}/[^"]+)"', asked.text)

    shown = both.post(address)

    assert both.get(f"/v1/generations/{first}").json()["state"] == "cancelled"
    assert parse_qs(urlsplit(str(shown.url)).query)["jobs"] == [ids]
    assert shown.text.count("<figure") == 2


def test_a_picture_can_be_cancelled(client):
    (job,) = jobs_of(client.post("/comparisons", data=FORM, headers=PART))
    shown = client.post(f"/comparisons/{job}/cancellation", headers=PART)

    assert "Cancelled" in shown.text
    assert client.get(f"/v1/generations/{job}").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"prompt": ""}, "prompt", id="no prompt"),
        pytest.param({"steps": "many"}, "valid integer", id="no number"),
        pytest.param({"guidance": "inf"}, "finite", id="endless"),
        pytest.param({"steps": "101"}, "less than or equal to 100", id="too many"),
        pytest.param({"models": []}, "choose from 1 to 6", id="no model"),
        pytest.param({"models": ["safe"] * 7}, "choose from 1 to 6", id="too many models"),
        pytest.param({"models": ["safe", "waiting"]}, "promote it first", id="a candidate"),
        pytest.param({"models": ["safe", "gone"]}, "no model", id="not there"),
    ],
)
def test_a_refusal_is_words_for_a_person_and_leaves_nothing_to_draw(client, queue, change, says):
    response = client.post("/comparisons", data=FORM | change, headers=PART)

    assert 400 <= response.status_code < 500
    assert says in response.text
    assert "<html" not in response.text
    assert queue.counts.queued("generation") == 0


def test_a_refusal_of_a_whole_page_is_a_page(client):
    response = client.get("/?jobs=nothing")

    assert response.status_code == 404
    assert "<!doctype html>" in response.text


def test_every_picture_counts_against_the_rate(both, keys):
    both.put("/v1/policies/local", json={"limits": {"requests_per_minute": 2}})
    asked = FORM | {"models": ["safe", "raw"]}

    assert both.post("/comparisons", data=asked, headers=PART).status_code == 200
    assert both.post("/comparisons", data=asked, headers=PART).status_code == 429


def test_who_may_not_draw_is_told(client, bearer):
    response = client.post("/comparisons", data=FORM, headers=PART | bearer("erase"))

    assert response.status_code == 403
    assert "scope" in response.text


def test_what_was_typed_is_never_markup(client):
    typed = '"><script>alert(1)</script>'
    (job,) = jobs_of(client.post("/comparisons", data=FORM | {"prompt": typed}, headers=PART))

    page = client.get(f"/?jobs={job}").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_page_runs_its_own_script_alone_and_is_in_no_frame(client):
    policy = client.get("/").headers["Content-Security-Policy"]

    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_body_that_is_no_form_is_refused(client):
    assert client.post("/comparisons", json=FORM).status_code == 415
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/comparisons", content=b"\xff=1", headers=sent).status_code == 400


def test_a_picture_is_seen_before_it_is_finished(client, worker):
    (job,) = jobs_of(client.post("/comparisons", data=FORM, headers=PART))
    lease = worker.claim()
    preview = Preview(index=0, step=5, jpeg="/9j/4AAQ")
    worker.jobs.leasing.report(lease, Progress(stage="denoising", done=5, total=20), [preview])

    assert 'src="data:image/jpeg;base64,/9j/4AAQ"' in client.get(f"/comparisons/{job}").text


@pytest.mark.parametrize("address", ["/comparisons/{}", "/erasures/{}/state"])
def test_what_is_gone_says_so_and_is_asked_for_no_longer(client, address):
    gone = client.get(address.format("0" * 32), headers=PART)

    assert gone.status_code == 286  # htmx stops asking
    assert 'class="refusal"' in gone.text
    assert client.get(address.format("0" * 32)).status_code == 404
    order = client.post(f"/comparisons/{'0' * 32}/cancellation", headers=PART)
    assert order.status_code == 404


def test_a_screen_reader_is_told_the_state_of_each_picture(client):
    shown = client.post("/comparisons", data=FORM, headers=PART).text

    assert 'data-told="safe: queued"' in shown
    assert "aria-live" not in shown
