"""What takes minutes, in real Chromium: an erasure's losses, a report; and what is downloaded."""

import io
import re
import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from core.manifests import Manifest
from tests import chromium

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(chromium.installed() is None, reason="no Chromium is installed"),
]

PATIENCE_MS = 300_000
MOST_TABS = 60
LONG_TRAINING = {
    "steps": 3000,
    "batch": 1,
    "anchors": 1,
    "trajectories": 2,
    "anchor_trajectories": 1,
    "kept_trajectories": 1,
    "trajectory_steps": 4,
}
TENSORS = {"erasure.safetensors", "unet/diffusion_pytorch_model.safetensors"}


def tab_to(page, control) -> None:
    """As with the keyboard alone: from where the focus is to a control, in the page's order."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if control.evaluate("one => one === document.activeElement"):
            return
    pytest.fail(f"{MOST_TABS} times Tab do not lead to {control}")


@pytest.fixture(scope="module")
def candidate(stack, token) -> str:
    return stack.ended(stack.erase_axes())["erased_model"]


def test_losses_are_seen_while_stage_2_trains_and_the_erasure_is_cancelled(window, stack):
    axe = {"name": "axe", "replacement": "flower"}
    asked = stack.post("/v1/erasures", base_model="emoji", concepts=[axe], steering=LONG_TRAINING)
    page = window(f"/erasures/{asked['id']}")
    curve = page.locator(".curves polyline").first
    expect(curve).to_have_attribute("points", re.compile(r"\S+ \S+"), timeout=PATIENCE_MS)
    early = curve.get_attribute("points")
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    assert re.search(
        r"from [-\d.e]+ to", page.locator(".curves svg").first.get_attribute("aria-label")
    )
    expect(curve).not_to_have_attribute("points", early, timeout=PATIENCE_MS)

    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("cancelled", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator(".curves polyline").first).to_be_visible()
    assert stack.http.get(f"/v1/erasures/{asked['id']}").json()["state"] == "cancelled"


def test_the_keyboard_is_enough_to_erase_to_look_and_to_promote(window, stack):
    page = window("/erasures")
    tab_to(page, page.get_by_label("Concept", exact=True))
    page.keyboard.type("teapot")
    tab_to(page, page.get_by_label("Draw instead"))
    page.keyboard.type("flower")
    tab_to(page, page.get_by_role("button", name="Erase"))
    page.keyboard.press("Enter")

    link = page.get_by_role("link", name="Look at")
    expect(link).to_be_visible(timeout=PATIENCE_MS)
    tab_to(page, link)
    page.keyboard.press("Enter")
    expect(page.get_by_text("checked just now")).to_be_visible()
    tab_to(page, page.get_by_label("Reason"))
    page.keyboard.type("no hand left the keyboard")
    tab_to(page, page.get_by_role("button", name="Promote"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Retire")).to_be_visible()

    model = page.get_by_role("heading", level=1).inner_text()
    assert stack.http.get(f"/v1/models/{model}").json()["status"] == "serving"


def test_a_model_is_measured_and_its_report_read_on_its_page(window, candidate):
    page = window(f"/models/{candidate}")
    expect(page.get_by_text("Nothing was measured yet")).to_be_visible()
    page.get_by_label("Prompts of each suite").fill("1")
    page.get_by_role("button", name="Measure it").click()
    expect(page.get_by_role("heading", name="Being measured")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Evaluation")).to_be_visible()

    report = page.locator("iframe.report")
    expect(report).to_be_visible(timeout=PATIENCE_MS)
    report.scroll_into_view_if_needed()
    inside = page.frame_locator("iframe.report")
    expect(inside.get_by_role("heading", level=1)).to_contain_text(candidate)
    picture = inside.locator("img").first
    # The browser draws no frames of an inner page that is out of sight, and so none of its
    # pictures ever stands still, which is what the driver's own scrolling waits for.
    picture.evaluate("image => image.scrollIntoView()")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(page.get_by_role("row", name=re.compile("explicit"))).to_be_visible()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="The whole report").click(modifiers=["Control"])
    expect(opened.value.get_by_role("heading", level=1)).to_contain_text(candidate)


def test_what_is_downloaded_is_the_model_whole(window, candidate, tmp_path):
    page = window(f"/models/{candidate}")
    with page.expect_download() as download:
        page.get_by_role("link", name=f"Download {candidate}.tar").click()

    assert download.value.suggested_filename == f"{candidate}.tar"
    data = Path(download.value.path()).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path, filter="data")
    (manifest,) = tmp_path.rglob("manifest.json")
    signed = Manifest.read(manifest.parent)
    assert signed.id == candidate
    signed.check_files(manifest.parent)
    assert set(signed.files) >= TENSORS
