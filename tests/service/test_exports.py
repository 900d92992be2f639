"""An erased model, downloaded as one file."""

import io
import tarfile

import pytest

from core.errors import UntrustedModel
from core.manifests import Manifest
from service.archives import ModelArchive

URL = "/v1/models/safe/export"


def test_the_whole_signed_folder_comes_in_one_file(client, parts, tmp_path):
    response = client.get(URL)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-tar"
    assert response.headers["content-disposition"] == 'attachment; filename="safe.tar"'
    assert int(response.headers["content-length"]) == len(response.content)
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    manifest = Manifest.read(tmp_path / "safe")
    assert manifest == parts.registry.get("safe")
    manifest.check_files(tmp_path / "safe")


def test_a_file_that_changes_on_the_way_ends_the_answer_before_its_end(parts):
    folder = parts.registry.path("safe")
    archive = iter(ModelArchive(folder, parts.registry.get("safe")))
    weights = folder / "weights.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))

    with pytest.raises(UntrustedModel, match="differs"):
        list(archive)


@pytest.mark.parametrize(
    ("model", "status", "says"),
    [
        ("raw", 422, "base model"),
        ("nothing", 404, "nothing"),
        ("forged", 409, "signature"),
    ],
)
def test_what_is_no_erased_model_is_refused(client, model, status, says):
    response = client.get(f"/v1/models/{model}/export")

    assert response.status_code == status
    assert says in response.json()["detail"]


def test_only_admins_take_models_away(client, bearer):
    bearer("admin")
    assert client.get(URL).status_code == 401
    assert client.get(URL, headers=bearer("generate", "erase")).status_code == 403
