"""POST /v1/verify: where a picture comes from."""

import io

import pytest
from PIL import Image

from core.picture_files import FORMATS, as_decoded, digest_of, encode
from core.provenance import Provenance, text_digest
from core.signing import Signer
from tests.service.test_refusals import assert_refused

URL = "/v1/verify"
TEXT = "a red apple\nSteps: 20, Seed: 7"


@pytest.fixture
def picture():
    return Image.linear_gradient("L").resize((64, 64)).convert("RGB")


@pytest.fixture
def drawn(client, installation, settings, picture):
    """A picture as a worker leaves it, by the model `safe`."""

    def make(image_format: str = "png", keys_dir=None, **changes) -> bytes:
        manifest = installation.registry.get("safe")
        fields = {
            "generation": "0" * 32,
            "index": 0,
            "model": manifest.id,
            "model_digest": manifest.content_digest,
            "certificate": manifest.certificate,
            "base_model": manifest.edit.base_model,
            "base_digest": manifest.edit.base_digest,
            "seed": 7,
            "made_at": 1_800_000_000,
            "pixels": digest_of(as_decoded(picture, image_format, 90)),
            "parameters": text_digest(TEXT),
        }
        signer = Signer.load_or_create(keys_dir or settings.picture_keys_dir)
        record = Provenance(**(fields | changes)).signed(signer).encoded()
        return encode(picture, image_format, 90, parameters=TEXT, record=record)

    return make


@pytest.fixture
def verify(client):
    def send(data: bytes, kind: str = "image/png") -> dict:
        response = client.post(URL, content=data, headers={"Content-Type": kind})
        assert response.status_code == 200, response.text
        return response.json()

    return send


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_picture_of_ours_is_traced_to_its_model_and_what_was_erased(
    verify, drawn, installation, client, image_format
):
    answer = verify(drawn(image_format), f"image/{image_format}")

    manifest = installation.registry.get("safe")
    assert (answer["verdict"], answer["changed"]) == ("intact", [])
    origin = answer["origin"]
    assert (origin["model"], origin["base_model"], origin["seed"]) == ("safe", "raw", 7)
    assert origin["certificate"] == manifest.certificate
    assert [concept["name"] for concept in origin["erased"]] == ["pistol"]
    assert (origin["installed"], origin["status"]) == (True, "serving")
    assert origin["report"] == "/v1/models/safe/reports"
    assert client.get(origin["report"]).json()["object"] == "list"


def test_a_changed_picture_is_altered(verify, drawn):
    file = Image.open(io.BytesIO(drawn()))
    file.putpixel((3, 3), (255, 0, 0))
    changed = io.BytesIO()
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in file.info.items():
        info.add_itxt(name, text)
    file.save(changed, "PNG", pnginfo=info)

    answer = verify(changed.getvalue())
    assert (answer["verdict"], answer["changed"]) == ("altered", ["pixels"])
    assert answer["origin"]["model"] == "safe"


def test_a_changed_text_is_altered_too(verify, drawn):
    answer = verify(drawn(parameters=text_digest("another prompt")))

    assert (answer["verdict"], answer["changed"]) == ("altered", ["parameters"])


def test_a_record_on_another_picture_is_altered(verify, drawn):
    assert verify(drawn(pixels="0" * 64))["changed"] == ["pixels"]


def test_a_picture_without_a_record_is_unknown(verify, picture):
    plain = io.BytesIO()
    picture.save(plain, "PNG")

    answer = verify(plain.getvalue())
    assert (answer["verdict"], answer["origin"]) == ("unknown", None)


def test_a_record_by_another_key_is_unknown(verify, drawn, tmp_path):
    answer = verify(drawn(keys_dir=tmp_path / "elsewhere"))

    assert (answer["verdict"], answer["origin"]) == ("unknown", None)
    assert "not signed by a key that is trusted" in answer["explanation"]


def test_a_record_signed_by_the_key_for_models_is_unknown(verify, drawn, settings):
    assert verify(drawn(keys_dir=settings.keys_dir))["verdict"] == "unknown"


def test_a_model_that_is_gone_or_differs_is_said_to_be(verify, drawn):
    for change in ({"model": "long-gone"}, {"model_digest": "0" * 64}):
        origin = verify(drawn(**change))["origin"]
        assert (origin["installed"], origin["erased"], origin["report"]) == (False, None, None)
        assert origin["base_model"] == "raw"


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        pytest.param(b"no picture", "image/png", 422, id="no picture"),
        pytest.param(b"", "image/png", 422, id="nothing"),
        pytest.param(b"{}", "application/json", 415, id="JSON"),
        pytest.param(b"GIF89a", "image/gif", 415, id="GIF"),
        pytest.param(b"x", "", 415, id="no type"),
    ],
)
def test_what_is_no_picture_is_refused(client, data, kind, status):
    assert_refused(client.post(URL, content=data, headers={"Content-Type": kind}), status)


def test_a_picture_over_the_limit_is_refused_and_one_over_that_for_json_is_not(serve, drawn):
    client = serve(max_picture_bytes=300_000)
    kind = {"Content-Type": "image/png"}

    assert client.post(URL, content=drawn() + b"\0" * 270_000, headers=kind).status_code == 200
    assert_refused(client.post(URL, content=b"\0" * 300_001, headers=kind), 413)
