"""DMimage (Corvi et al., ICASSP 2023): 30 generators, about 1,000 images each. A benchmark only.

The fakes and a list of the processing come from https://github.com/grip-unina/DMimageDetection
(non-commercial); the real images are taken from COCO (validation), ImageNet (validation) and UCID and put
beside them.

Layout, one folder a generator::

    <root>/real_coco_valid/…    <root>/real_imagenet_valid/…    <root>/real_ucid/…
    <root>/biggan_256/…    <root>/latent-diffusion_text2img_valid/…    <root>/stylegan3_r_ffhqu_256x256/…

A folder whose name starts with `real` is real, every other one a generator (`FAMILIES` sorts the 30 that the
authors' evaluation names). Images may lie in subfolders.
"""

from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import images_below, need_folder
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError

WHERE = (
    "get DMimage's test set from https://github.com/grip-unina/DMimageDetection "
    "and put the real images beside it"
)

REAL_SETS = ("real_coco_valid", "real_imagenet_valid", "real_ucid")
# The folders as the authors' evaluation groups them.
FAMILIES: dict[str, tuple[str, ...]] = {
    "ProGAN": ("progan_lsun",),
    "StyleGAN2": (
        "stylegan2_ffhq_256x256",
        "stylegan2_lsundog_256x256",
        "stylegan2_afhqv2_512x512",
        "stylegan2_ffhq_1024x1024",
    ),
    "StyleGAN3": (
        "stylegan3_r_ffhqu_256x256",
        "stylegan3_t_ffhqu_256x256",
        "stylegan3_r_afhqv2_512x512",
        "stylegan3_t_afhqv2_512x512",
        "stylegan3_r_ffhqu_1024x1024",
        "stylegan3_t_ffhqu_1024x1024",
    ),
    "BigGAN": ("biggan_256", "biggan_512"),
    "EG3D": ("eg3d",),
    "Taming Transformers": (
        "taming-transformers_class2image_ImageNet",
        "taming-transformers_noise2image_FFHQ",
        "taming-transformers_segm2image_valid",
    ),
    "DALL·E Mini": ("dalle-mini_valid",),
    "DALL·E 2": ("dalle_2",),
    "GLIDE": ("glide_text2img_valid",),
    "Latent Diffusion": (
        "latent-diffusion_class2image_ImageNet",
        "latent-diffusion_noise2image_FFHQ",
        "latent-diffusion_noise2image_LSUNbedrooms",
        "latent-diffusion_noise2image_LSUNchurches",
        "latent-diffusion_text2img_valid",
    ),
    "Stable Diffusion": ("stable_diffusion_256",),
    "ADM": (
        "guided-diffusion_class2image_ImageNet",
        "guided-diffusion_noise2image_LSUNbedrooms",
        "guided-diffusion_noise2image_LSUNcats",
        "guided-diffusion_noise2image_LSUNhorses",
    ),
}


def read(root: Path) -> Iterator[Record]:
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
        label, kind = (REAL, "real") if folder in real else (FAKE, "fake")
        for file in images_below(folder):
            path = f"dmimage/{kind}/{folder.name}/{file.relative_to(folder).as_posix()}"
            yield Record(
                id=path,
                image=file.read_bytes(),
                label=label,
                source="dmimage",
                item=path,
                generator=folder.name if label == FAKE else None,
                split="test",
            )
