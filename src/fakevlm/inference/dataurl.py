"""An image as a `data:` URL, so that a server sees what a model in this process sees (`records.decode`).

Servers turn images upright by their EXIF orientation and lay transparent ones over white (vLLM does both),
and 16 bits a channel become white in Pillow. None of that is in a benchmark's pixels as everybody else reads
them. Nearly all images have nothing of the kind and are sent byte for byte; the others are sent as a PNG of
the decoded pixels.
"""

import base64
import io

from PIL import Image

from fakevlm.data.records import decode

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TURNED = (
    b"Exif\0\0",
    b"eXIf",
    b"Raw profile type exif",
    b"tiff:Orientation",
)  # where an orientation may be told
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
_ALIKE = ("RGB", "L", "1", "P", "CMYK", "YCbCr")  # modes that everybody turns into RGB in the same way


def data_url(image: bytes) -> bytes:
    """An encoded image as a `data:` URL.

    Raises:
        ValueError: the bytes are no image.
    """
    mime = _mime(image)
    if mime is None:
        try:
            mime, image = _looked_at(image)
        except OSError as error:
            raise ValueError(f"not an image: {error}") from error
    return b"".join([b"data:", mime.encode(), b";base64,", base64.b64encode(image)])


def _mime(image: bytes) -> str | None:
    """The type of an image that is plain by its bytes; opening it would take half the client's time. None: it has to be."""
    if image.startswith(_JPEG):
        return None if any(mark in image for mark in _TURNED) else "image/jpeg"
    if image.startswith(_PNG):
        head = image[: max(image.find(b"IDAT"), 0)]
        plain = head[24:26] in (b"\x08\x00", b"\x08\x02")  # eight bits of grey or of three colours
        return (
            "image/png"
            if plain and b"tRNS" not in head and not any(mark in image for mark in _TURNED)
            else None
        )
    return None


def _looked_at(image: bytes) -> tuple[str, bytes]:
    with Image.open(io.BytesIO(image)) as opened:
        upright = opened.getexif().get(_ORIENTATION, 1) == 1
        if opened.mode in _ALIKE and not opened.has_transparency_data and upright:
            # A photograph with a second picture behind it is "MPO" to Pillow, and a JPEG to everybody else.
            kind = "image/jpeg" if image.startswith(_JPEG) else opened.get_format_mimetype()
            return kind or f"image/{(opened.format or 'unknown').lower()}", image
    pixels, png = decode(image), io.BytesIO()
    pixels.info = {}  # a transparent colour, which would be saved again
    pixels.save(png, "PNG", compress_level=1)
    return "image/png", png.getvalue()
