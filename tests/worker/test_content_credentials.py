"""C2PA claims in pictures, read back by the library that others read them with."""

import datetime as dt
import io
import json
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from core.errors import Misconfigured
from core.picture_files import DRAWN_BY_A_MODEL, FORMATS, encode, read
from core.provenance import Provenance
from tests.started_worker import refused_start
from worker.content_credentials import MODEL_LABEL, ContentCredentials

DAY = dt.timedelta(days=1)
NO_USAGE = dict.fromkeys(
    [
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    ],
    False,
)


def certificate(name: str, key, issuer: str, issuer_key, *, ca: bool) -> bytes:
    def named(common: str) -> x509.Name:
        parts = {NameOID.ORGANIZATION_NAME: "Example", NameOID.COMMON_NAME: common}
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts.items()])

    now = dt.datetime.now(dt.UTC)
    usage = {"key_cert_sign": True, "crl_sign": True} if ca else {"digital_signature": True}
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 90 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**NO_USAGE | usage), critical=True)
        .add_extension(authority, critical=False)
    )
    if not ca:
        mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(mail, critical=True)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate authority of our own, and what it vouches for."""
    folder = tmp_path_factory.mktemp("c2pa")
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (folder / "chain.pem").write_bytes(
        certificate("pictures", key, "authority", authority, ca=False)
        + certificate("authority", authority, "authority", authority, ca=True)
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return folder / "chain.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def credentials(chain):
    return ContentCredentials.load(*chain)


def claim_of(data: bytes, image_format: str) -> dict:
    return json.loads(c2pa.Reader(f"image/{image_format}", io.BytesIO(data)).json())


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_signed_picture_says_what_made_it_and_keeps_all_else(credentials, image_format):
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    plain = encode(picture, image_format, 90, parameters="a red apple", record="QUJD")
    provenance = Provenance(
        generation="0" * 32,
        index=0,
        model="safe",
        model_digest="a" * 64,
        certificate="c" * 16,
        base_model="raw",
        base_digest="b" * 64,
        seed=7,
        made_at=1,
        pixels="d" * 64,
        parameters="e" * 64,
    )
    signed = credentials.sign(plain, image_format, provenance)

    assert read(signed) == read(plain)
    assert len(signed) - len(plain) < 8000
    found = claim_of(signed, image_format)
    assert found["validation_state"] == "Valid"
    claim = found["manifests"][found["active_manifest"]]
    said = {one["label"]: one["data"] for one in claim["assertions"]}
    assert said[MODEL_LABEL]["model"] == "safe"
    assert said[MODEL_LABEL]["certificate"] == "c" * 16
    (created,) = said["c2pa.actions.v2"]["actions"]
    assert created["digitalSourceType"] == DRAWN_BY_A_MODEL


def test_a_changed_picture_is_told_by_its_claim(credentials):
    picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
    plain = encode(picture, "jpeg", 90, parameters="", record="QUJD")
    data = bytearray(credentials._sign(plain, "jpeg", {}))
    data[-20] ^= 1

    assert claim_of(bytes(data), "jpeg")["validation_state"] == "Invalid"


def test_a_worker_with_credentials_signs_what_it_draws(
    jobs, storage, submit, make_batcher, credentials
):
    job_id = submit("a red apple")
    make_batcher(credentials=credentials).drain()

    data = storage.get(jobs.get(job_id).images[0].key)
    assert claim_of(data, "png")["validation_state"] == "Valid"
    assert read(data).record


class TestMisconfigured:
    def test_neither_is_no_credentials(self):
        assert ContentCredentials.load(None, None) is None

    @pytest.mark.parametrize("missing", [0, 1])
    def test_one_of_two_is_an_error(self, chain, missing):
        paths = list(chain)
        paths[missing] = None

        with pytest.raises(Misconfigured, match="TRCE_C2PA_KEY"):
            ContentCredentials.load(*paths)

    def test_a_file_that_is_not_there(self, chain, tmp_path):
        with pytest.raises(Misconfigured, match=r"none\.pem"):
            ContentCredentials.load(chain[0], tmp_path / "none.pem")

    @pytest.mark.parametrize(
        "key",
        [
            pytest.param(b"no PEM", id="no key"),
            pytest.param(
                ed25519.Ed25519PrivateKey.generate().private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                ),
                id="another key",
            ),
        ],
    )
    def test_a_key_that_does_not_fit_is_found_at_start(self, chain, key):
        with pytest.raises(Misconfigured, match="cannot be signed"):
            ContentCredentials(chain[0].read_bytes(), key)


def test_a_worker_does_not_start_with_a_pair_that_cannot_sign(tmp_path, redis_url):
    for name in ("chain.pem", "key.pem"):
        (tmp_path / name).write_text("neither of them")
    environ = {
        "REDIS_URL": redis_url,
        "TRCE_DATA_DIR": str(tmp_path / "data"),
        "TRCE_C2PA_CERTIFICATES": str(tmp_path / "chain.pem"),
        "TRCE_C2PA_KEY": str(tmp_path / "key.pem"),
    }
    told = refused_start("inference", environ)

    assert "cannot start: content credentials cannot be signed" in told
