import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Misconfigured, UntrustedModel
from core.signing import Signature, Signer, Verifier, canonical

DOCUMENT = {"id": "m", "files": {"a": "1"}, "λ": 0.5}


def test_what_was_signed_is_accepted(tmp_path):
    signer = Signer.load_or_create(tmp_path)
    signature = signer.sign(DOCUMENT)

    assert signature.key_id == signer.key_id
    Verifier.load(tmp_path).check(DOCUMENT, signature)


def test_what_was_changed_is_not(tmp_path):
    signature = Signer.load_or_create(tmp_path).sign(DOCUMENT)

    with pytest.raises(UntrustedModel):
        Verifier.load(tmp_path).check(DOCUMENT | {"id": "n"}, signature)


@pytest.mark.parametrize("value", ["", "AAAA", "not base64 at all!"])
def test_a_value_that_is_no_signature_is_refused(tmp_path, value):
    signer = Signer.load_or_create(tmp_path)

    with pytest.raises(UntrustedModel):
        Verifier.load(tmp_path).check(DOCUMENT, Signature(key_id=signer.key_id, value=value))


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    first = Signer.load_or_create(tmp_path)

    assert Signer.load_or_create(tmp_path).key_id == first.key_id
    assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600


def test_missing_keys_are_said_to_be_missing(tmp_path):
    with pytest.raises(Misconfigured):
        Signer.load(tmp_path)
    with pytest.raises(Misconfigured):
        Verifier.load(tmp_path)


def test_a_trusted_file_that_is_no_key_stops_the_start(tmp_path):
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "x.pem").write_text("hello")

    with pytest.raises(Misconfigured, match=r"x\.pem"):
        Verifier.load(tmp_path)


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_the_canonical_form_does_not_depend_on_order(document):
    assert canonical(dict(reversed(document.items()))) == canonical(document)
