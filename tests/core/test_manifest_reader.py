"""What is remembered of manifests is what their bytes and the keys say, and nothing else."""

import pytest

from core.errors import UntrustedModel
from core.key_folder import KeyFolder
from core.manifest_reader import MAX_REMEMBERED, ManifestReader
from core.manifests import Drawing, Manifest, ModelStatus
from core.model_folder import MANIFEST
from core.signing import Signer, Verifier


class Counting(Verifier):
    checks = 0

    def check(self, *arguments, **options):
        self.checks += 1
        super().check(*arguments, **options)


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def signer(keys):
    return Signer.load_or_create(keys)


@pytest.fixture
def write(tmp_path, signer):
    """Write the signed manifest of a model, and return its folder."""

    def write_one(name: str = "tiny", *, signed_by: Signer | None = None, **fields):
        manifest = Manifest(
            **{
                "id": name,
                "kind": "base",
                "family": "sd1",
                "status": ModelStatus.SERVING,
                "created_at": 1.0,
                "code_version": "test",
                "drawing": Drawing(native_px=16, multiple_px=4, max_px=16),
                "files": {"unet/config.json": "0" * 64},
            }
            | fields
        )
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        manifest.explicit().signed(signed_by or signer).write(folder)
        return folder

    return write_one


@pytest.fixture
def verifier(keys, signer):
    return Counting.load(keys)


@pytest.fixture
def reader(verifier):
    return ManifestReader(verifier)


def test_the_same_bytes_under_the_same_keys_are_checked_once(reader, verifier, write):
    folder = write()
    looks = [reader.read(folder, trusted=True) for _ in range(3)]

    assert verifier.checks == 1
    assert looks[0] is looks[2]


def test_what_is_written_anew_is_read_anew(reader, write):
    folder = write(status=ModelStatus.SERVING)
    reader.read(folder, trusted=True)
    write(status=ModelStatus.RETIRED)

    assert reader.read(folder, trusted=True).status is ModelStatus.RETIRED


def test_a_changed_byte_is_refused_however_often_it_was_right_before(reader, write):
    folder = write(status=ModelStatus.RETIRED)
    reader.read(folder, trusted=True)
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"retired"', '"serving"'))

    for _ in range(2):
        with pytest.raises(UntrustedModel, match="does not match"):
            reader.read(folder, trusted=True)


def test_a_key_that_is_revoked_counts_no_more_at_the_next_look(reader, signer, keys, write):
    folder = write()
    reader.read(folder, trusted=True)
    revoked = signer.key_id
    KeyFolder(keys).rotate()
    assert reader.read(folder, trusted=True).signed_by == revoked
    KeyFolder(keys).revoke(revoked)

    with pytest.raises(UntrustedModel, match="was revoked"):
        reader.read(folder, trusted=True)


def test_what_was_read_without_trust_is_not_trusted_for_it(reader, write, tmp_path):
    stranger = Signer.load_or_create(tmp_path / "elsewhere")
    folder = write(signed_by=stranger)
    assert reader.read(folder, trusted=False).id == "tiny"

    with pytest.raises(UntrustedModel, match="not trusted here"):
        reader.read(folder, trusted=True)


def test_it_remembers_a_bounded_number(reader, write, verifier):
    first = write("tiny-0")
    reader.read(first, trusted=True)
    for number in range(1, MAX_REMEMBERED + 1):
        reader.read(write(f"tiny-{number}"), trusted=True)
    checks = verifier.checks
    reader.read(first, trusted=True)

    assert verifier.checks == checks + 1
