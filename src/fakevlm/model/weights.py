"""Load weights from folders and from the Hugging Face hub: every parameter is read, or it is an error."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import logging

from fakevlm import paths
from fakevlm.cache import damage, digests
from fakevlm.errors import UserError

logging.disable_progress_bar()
logging.set_verbosity_error()  # what it would warn of is an error here: see `load_weights`

SUMS = "sha256.json"  # in a model's folder: the digests of its files, as they were written

AnyModel = TypeVar("AnyModel")


def device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def multiplies_16_bits() -> bool:
    """Return whether products of bfloat16 are faster here than those of 32 bits."""
    if device().type == "cuda":
        return True
    has = torch.cpu.get_capabilities()
    # The first is PyTorch's own choice, which ATEN_CPU_CAPABILITY can lower.
    used = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return used and (has.get("avx512_bf16", False) or has.get("amx_bf16", False))


def locate(name: str | Path) -> str:
    """Return the path of a folder, taken from the repository's root, or else the name, for the hub."""
    folder = paths.resolve(name)
    return str(folder) if folder.is_dir() else str(name)


def cannot_load(what: str, name: str | Path, error: Exception | str) -> UserError:
    """Return the error of a model that does not load."""
    return UserError(
        f"no {what} could be loaded from {str(name)!r}: {error}",
        "name a folder in Hugging Face format with weights in safetensors, or such a model of the hub; "
        "pointers of Git LFS become files by `git lfs pull`",
    )


def load_weights(
    kind: type[AnyModel], name: str | Path, *, new: Sequence[str] = (), whole: bool = True, **options: Any
) -> AnyModel:
    """Return a model of transformers in evaluation mode, with every parameter read from its files.

    Args:
        new: parameters that the files need not hold, because training begins with them.
        whole: whether the files must not hold other parameters.
        options: of `from_pretrained`.

    Raises:
        UserError: there is no such model, its parameters are not those in the files, or they are no numbers;
            or see `check_sums`.
    """
    check_sums(paths.resolve(name))
    options |= {"trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    try:
        model, report = kind.from_pretrained(locate(name), ignore_mismatched_sizes=True, **options)
    except (OSError, ValueError, ImportError, AttributeError, SafetensorError) as error:
        raise cannot_load("model", name, error) from error
    problems = {
        "missing": sorted(set(report["missing_keys"]) - set(new)),
        "unexpected": sorted(report["unexpected_keys"]) if whole else [],
        "of another shape": sorted(str(key[0]) for key in report["mismatched_keys"]),
    }
    if listed := [
        f"{len(k)} {what} ({', '.join(k[:3])}{', …' * (len(k) > 3)})" for what, k in problems.items() if k
    ]:
        raise UserError(
            f"the weights in {str(name)!r} do not fit the model: {'; '.join(listed)}",
            "the folder is damaged or holds another kind of model: make or fetch it again",
        )
    if not is_deepspeed_zero3_enabled():  # else each rank has a part of them
        check_numbers(name, dict(model.named_parameters()))
    return model.eval()


def write_sums(folder: Path) -> None:
    """Write `SUMS` of a model's finished folder."""
    (folder / SUMS).unlink(missing_ok=True)
    (folder / SUMS).write_text(json.dumps(digests(folder), indent=1) + "\n", encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Raise `UserError` if a folder has `SUMS`, and a file is not as it says."""
    if (folder / SUMS).is_file() and (file := damage(folder, folder / SUMS)):
        cure = f"bring it back (`dvc checkout`) or make it again; if you mean the change, remove {SUMS}"
        raise UserError(f"{folder / file} is not as it was written", cure)


def check_numbers(source: str | Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise `UserError` if tensors hold inf or nan, or a matrix nothing but zeros."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all() or (tensor.ndim > 1 and tensor.numel() > 1 and not tensor.any()):
            what = f"{name} in {str(source)!r} holds inf, nan or nothing but zeros"
            raise UserError(what, "the training diverged, or the file is damaged: make or fetch it again")
