"""DeepSpeed's configuration from params.yaml: ZeRO-2 (optimizer and gradients spread over the ranks) or ZeRO-3 (weights too).

Values that the Trainer knows stay "auto" and are filled in by it: they cannot disagree. The optimizer is torch's, also where
its state is offloaded, so that no rank has to compile DeepSpeed's own at its first start.
"""

from typing import Any

from fakevlm.config.params import DeepSpeed

_ON_CPU = {"device": "cpu", "pin_memory": True}


def config(section: DeepSpeed, *, overlap: bool) -> dict[str, Any]:
    """What DeepSpeed is told.

    Args:
        section: of params.yaml.
        overlap: gradients travel while others are still being computed; needs a GPU's streams.
    """
    zero: dict[str, Any] = {
        "stage": section.stage,
        "overlap_comm": overlap,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if section.stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            # Every checkpoint holds whole weights in 16 bit beside the ranks' parts: what is exported in the end.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if section.offload is not None:
        zero["offload_optimizer"] = dict(_ON_CPU)
    if section.offload == "parameters":
        zero["offload_param"] = dict(_ON_CPU)
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
    }
