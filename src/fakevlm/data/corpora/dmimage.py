"""DMimage (Corvi et al., ICASSP 2023): 30 generators, about 1,000 images each. A benchmark only.

    <root>/real_coco_valid/…    <root>/real_imagenet_valid/…    <root>/real_ucid/…
    <root>/biggan_256/…    <root>/latent-diffusion_text2img_valid/…    <root>/stylegan3_r_ffhqu_256x256/…

A folder whose name starts with `real` is real, every other one a generator. Images may be in subfolders.
"""

from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import Drawn, images, load, need_folder
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError

WHERE = (
    "get DMimage's test set from https://github.com/grip-unina/DMimageDetection "
    "and put the real images beside it"
)


def read(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream folder by folder; `generator` is the folder's name, None for real images.

    Raises:
        UserError: the folder is missing, or lacks real or generated images altogether.
    """
    need_folder(root, "DMimage", WHERE)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    real = [p for p in folders if p.name.startswith("real")]
    if not real or len(real) == len(folders):
        missing = "generator" if real else "real_*"
        raise UserError(f"DMimage: no {missing} folder in {root}", WHERE)
    for folder in folders:
        label, kind, generator = (REAL, "real", None) if folder in real else (FAKE, "fake", folder.name)
        for file in images(folder):
            path = f"dmimage/{kind}/{folder.name}/{file.relative_to(folder).as_posix()}"
            fields = {"label": label, "source": "dmimage", "generator": generator, "split": "test"}
            yield from load(file, path, drawn, **fields)
