"""Images on their way to a server."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from fakevlm.data.records import decode
from fakevlm.inference.dataurl import data_url


def _encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def _sent(image: bytes) -> tuple[str, bytes]:
    head, _, body = data_url(image).decode().partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body)


def test_an_image_is_sent_byte_for_byte_under_its_type() -> None:
    for kind, mime in {
        "PNG": "image/png",
        "JPEG": "image/jpeg",
        "WEBP": "image/webp",
        "GIF": "image/gif",
    }.items():
        for mode in ("L", "RGB"):
            image = _encoded(Image.new(mode, (8, 8), 90 if mode == "L" else (90, 0, 9)), kind)
            assert _sent(image) == (mime, image)
    exif = Image.Exif()
    exif[0x010F] = "a camera's name"
    second = _encoded(
        Image.new("RGB", (8, 8)), "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))], exif=exif
    )
    assert Image.open(io.BytesIO(second)).format == "MPO"
    assert _sent(second) == ("image/jpeg", second), "two pictures in a file, as some cameras write them"
    photograph = _encoded(Image.new("RGB", (8, 8)), "JPEG", exif=exif)
    assert _sent(photograph) == ("image/jpeg", photograph)
    with pytest.raises(ValueError, match="not an image"):
        data_url(b"GIF? no")


def test_a_server_sees_the_pixels_that_a_model_here_sees() -> None:
    """A server's own reading would turn the first upright, lay the next ones over white, and make the last one white."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    flat, clear = Image.fromarray(colours[..., :3]), Image.fromarray(colours)
    palette = flat.quantize(8)
    deep = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    for image in (
        _encoded(flat, "JPEG", exif=exif),
        _encoded(flat, "PNG", exif=exif),
        _encoded(
            flat, "JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
        ),
        _encoded(flat, "PNG", transparency=(0, 0, 0)),
        _encoded(palette, "PNG", transparency=3),
        _encoded(clear, "PNG"),
        _encoded(clear, "WEBP", lossless=True),
        _encoded(clear.convert("LA"), "PNG"),
        _encoded(deep, "PNG"),
    ):
        mime, sent = _sent(image)
        assert mime == "image/png"
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(sent)))
        assert theirs.mode == "RGB"
        assert not theirs.has_transparency_data
        assert np.array_equal(np.asarray(theirs), np.asarray(decode(image)))
