"""Pictures go out with their origin and come back to be read."""

import io
import random

import pytest
from PIL import Image

from core.errors import PictureUnreadable
from core.picture_files import (
    DRAWN_BY_A_MODEL,
    FORMATS,
    LARGEST_PX,
    as_decoded,
    digest_of,
    encode,
    read,
)
from core.provenance import Provenance, pixel_digest, text_digest
from core.signing import Signer, Verifier

TEXT = 'a red äpfel 🍎, with "quotes" & <tags>\nNegative prompt: ]]>\nSteps: 4'
RECORD = "QUJD" * 100


@pytest.fixture
def picture():
    """Noise and a gradient: what a lossy format changes most, and least."""
    dice = random.Random(0)
    pixels = [(dice.randrange(256), y * 4, x * 4) for y in range(64) for x in range(64)]
    picture = Image.new("RGB", (64, 64))
    picture.putdata(pixels)
    return picture


@pytest.mark.parametrize("quality", [1, 90, 100])
@pytest.mark.parametrize("image_format", FORMATS)
def test_what_is_sent_out_can_be_read_back(picture, image_format, quality):
    data = encode(picture, image_format, quality, parameters=TEXT, record=RECORD)
    found = read(data)

    assert (found.format, found.width, found.height) == (image_format, 64, 64)
    assert found.parameters == TEXT
    assert found.record == RECORD
    assert found.pixels == digest_of(as_decoded(picture, image_format, quality))
    assert DRAWN_BY_A_MODEL.encode() in data


def test_png_keeps_every_bit(picture):
    assert read(encode(picture, "png", 1, parameters="", record="A")).pixels == digest_of(picture)


def test_the_digest_knows_the_shape():
    assert pixel_digest(2, 1, b"abcdef") != pixel_digest(1, 2, b"abcdef")


def test_a_picture_saved_again_without_loss_has_the_same_digest(picture):
    again = io.BytesIO()
    Image.open(io.BytesIO(encode(picture, "png", 1, parameters=TEXT, record=RECORD))).save(
        again, "WEBP", lossless=True
    )

    assert read(again.getvalue()).pixels == digest_of(picture)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_of_others_has_no_record(picture, image_format):
    file = io.BytesIO()
    picture.save(file, image_format)

    found = read(file.getvalue())
    assert (found.record, found.parameters) == (None, None)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no picture at all", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 50, id="a PNG's beginning"),
        pytest.param(b"GIF89a" + b"\0" * 50, id="GIF"),
        pytest.param(b"\xff\xd8\xff\xe1\xff\xff" + b"\0" * 50, id="a JPEG's beginning"),
    ],
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(PictureUnreadable):
        read(data)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_broken_picture_is_refused_or_read_but_never_an_error_without_a_name(
    picture, image_format
):
    whole = encode(picture, image_format, 90, parameters=TEXT, record=RECORD)
    dice, refused = random.Random(1), 0
    for _ in range(150):
        data = bytearray(whole[: dice.randrange(len(whole))] if dice.random() < 0.3 else whole)
        for _ in range(3):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            read(bytes(data))
        except PictureUnreadable:
            refused += 1
    assert 0 < refused < 150, "it does not tell broken pictures from those that can be read"


def test_a_picture_of_a_size_that_is_never_drawn_is_not_unpacked():
    file = io.BytesIO()
    Image.new("1", (LARGEST_PX + 1, 1)).save(file, "PNG")

    with pytest.raises(PictureUnreadable, match="larger"):
        read(file.getvalue())


class TestProvenance:
    @pytest.fixture
    def record(self):
        return Provenance(
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
            parameters=text_digest("x"),
        )

    def test_a_signed_record_survives_its_journey(self, record, tmp_path):
        signed = record.signed(Signer.load_or_create(tmp_path))
        arrived = Provenance.decoded(signed.encoded())

        assert arrived == signed
        assert arrived.is_signed_by_one_of(Verifier.load(tmp_path))

    def test_a_changed_record_or_another_key_is_noticed(self, record, tmp_path):
        signed = record.signed(Signer.load_or_create(tmp_path / "ours"))
        Signer.load_or_create(tmp_path / "theirs")

        ours = Verifier.load(tmp_path / "ours")
        assert not signed.is_signed_by_one_of(Verifier.load(tmp_path / "theirs"))
        assert not signed.model_copy(update={"model": "raw"}).is_signed_by_one_of(ours)
        assert not record.is_signed_by_one_of(ours)

    @pytest.mark.parametrize("text", ["", "!", "QUJD", "e30=", "A" * 9000])
    def test_what_is_no_record_is_none(self, text):
        assert Provenance.decoded(text) is None
