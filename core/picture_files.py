"""Picture files as they leave the service and as they come back to be verified.

Three things travel in a file beside its pixels: A1111's text (`parameters`), where its readers
look for it; an XMP packet that says by IPTC's vocabulary that a model made the picture; and in
that packet the signed record of `core.provenance`.

    PNG     iTXt `parameters`               iTXt `XML:com.adobe.xmp`
    JPEG    EXIF UserComment                APP1
    WebP    EXIF UserComment                XMP chunk
"""

import io
import re
from dataclasses import dataclass
from typing import Literal, get_args

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import PictureUnreadable
from core.provenance import pixel_digest
from core.version import CODE_VERSION

Format = Literal["png", "jpeg", "webp"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPE: dict[Format, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
}
XMP_KEY = "XML:com.adobe.xmp"
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
UTF_16 = b"UNICODE\0"
# https://cv.iptc.org/newscodes/digitalsourcetype/
DRAWN_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NAMESPACE = "urn:trce:provenance:1"
RECORD = re.compile(rb'trce:record="([A-Za-z0-9+/=]{1,8000})"')
LARGEST_PX = 4096
"""A side of a picture that is read here; larger ones would be a burden, and none are drawn."""


@dataclass(frozen=True)
class PictureFile:
    """What a file that somebody sent turns out to hold."""

    format: Format
    width: int
    height: int
    pixels: str
    """`pixel_digest`."""
    parameters: str | None
    record: str | None


def as_decoded(picture: Image.Image, image_format: Format, quality: int) -> Image.Image:
    """The picture as a reader will see it: JPEG and WebP lose a little."""
    if image_format == "png":
        return picture
    plain = io.BytesIO()
    picture.save(plain, image_format, quality=quality)
    return _rgb(Image.open(plain))


def digest_of(picture: Image.Image) -> str:
    return pixel_digest(picture.width, picture.height, picture.tobytes())


def encode(
    picture: Image.Image, image_format: Format, quality: int, *, parameters: str, record: str
) -> bytes:
    """The same pixels as `as_decoded`: what is added lies beside them.

    Args:
        quality: 1 to 100, for JPEG and WebP.
        record: `Provenance.encoded`.
    """
    file = io.BytesIO()
    packet = _packet(record)
    if image_format == "png":
        info = PngInfo()
        info.add_itxt("parameters", parameters)
        info.add_itxt(XMP_KEY, packet.decode())
        picture.save(file, "PNG", pnginfo=info)
    else:
        exif = Image.Exif()
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = UTF_16 + parameters.encode("utf-16-be")
        picture.save(file, image_format, quality=quality, exif=exif, xmp=packet)
    return file.getvalue()


def read(data: bytes) -> PictureFile:
    """Raises PictureUnreadable."""
    try:
        picture = Image.open(io.BytesIO(data), formats=[name.upper() for name in FORMATS])
        rgb = _rgb(picture) if max(picture.size) <= LARGEST_PX else None
    except Exception as error:
        # Its parsers raise all sorts of things at the files of strangers.
        raise PictureUnreadable("this is no PNG, JPEG or WebP picture that can be read") from error
    if rgb is None:
        raise PictureUnreadable(f"the picture is larger than {LARGEST_PX} x {LARGEST_PX} px")
    name = str(picture.format).lower()
    assert name in FORMATS
    return PictureFile(
        format=name,
        width=rgb.width,
        height=rgb.height,
        pixels=digest_of(rgb),
        parameters=_parameters(picture),
        record=_record(picture),
    )


def _rgb(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB")


def _parameters(picture: Image.Image) -> str | None:
    text = picture.info.get("parameters")
    if isinstance(text, str):
        return str(text)
    try:
        comment = picture.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    except Exception:  # noqa: BLE001  (EXIF of strangers breaks its parser in many ways)
        return None
    if isinstance(comment, bytes) and comment.startswith(UTF_16):
        return comment.removeprefix(UTF_16).decode("utf-16-be", errors="replace")
    return None


def _record(picture: Image.Image) -> str | None:
    packet = picture.info.get("xmp") or picture.info.get(XMP_KEY) or b""
    found = RECORD.search(packet.encode() if isinstance(packet, str) else packet)
    return found[1].decode() if found else None


def _packet(record: str) -> bytes:
    """XMP (ISO 16684-1) with attributes that need no escaping."""
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{rdf}">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'xmlns:trce="{NAMESPACE}" xmp:CreatorTool="TRCE service {CODE_VERSION}" '
        f'Iptc4xmpExt:DigitalSourceType="{DRAWN_BY_A_MODEL}" trce:record="{record}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
