"""How long nnU-Net takes to predict a case: passes of the network, and the file of labels."""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.training.prediction import ready_to_predict
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.timing import in_turn

MOST_LOOKED_AT = 25  # cases, to find one of median size


def seconds_of_case(trainer: SemiTrainer) -> float:
    """The time to predict a labelled case of median size, with mirrored images.

    One pass is timed and multiplied by the tiles and mirrored images, as a whole volume may take
    hours on a CPU; the resampling and writing of its labels are timed as a whole. nnU-Net does them
    beside the passes where it has processes for that, so that this is rather too much.

    Args:
        trainer: that :func:`~semi_nnunet.benchmarking.work.ready` made, of fold "all".
    """
    shape, properties = case_of_median_size(trainer)
    network, axes = trainer.bare_network, trainer.inference_allowed_mirroring_axes or ()
    predictor = trainer.predictor.nnunet_predictor(network, mirror=bool(axes))
    patch = trainer.configuration_manager.patch_size
    padded = [*shape[: -len(patch)], *map(max, shape[-len(patch) :], patch)]
    tiles = len(predictor._internal_get_sliding_window_slicers(tuple(padded)))
    x = torch.zeros((1, trainer.num_input_channels, *patch), device=trainer.device)
    half = torch.autocast("cuda") if trainer.device.type == "cuda" else nullcontext()
    with ready_to_predict(network), torch.inference_mode(), half:
        taken = in_turn({"pass": partial(network, x)}, 2, trainer.device, uncounted=1)
    return taken["pass"].median * tiles * 2 ** len(axes) + seconds_of_file(
        trainer, shape, properties
    )


def case_of_median_size(trainer: SemiTrainer) -> tuple[list[int], dict[str, Any]]:
    """Shape in voxels and nnU-Net's properties of one of its labelled cases."""
    names = trainer.labelled_identifiers()
    names = names[:: math.ceil(len(names) / MOST_LOOKED_AT)]
    cases = trainer.dataset_class(trainer.preprocessed_dataset_folder, names)
    shapes = {name: list(cases.load_case(name)[0].shape[1:]) for name in names}
    middle = sorted(names, key=lambda name: math.prod(shapes[name]))[len(names) // 2]
    return shapes[middle], cases.load_case(middle)[3]


def seconds_of_file(trainer: SemiTrainer, shape: list[int], properties: dict[str, Any]) -> float:
    """The time to resample logits of a case to its image and to write its labels."""
    from nnunetv2.inference.export_prediction import export_prediction_from_logits

    logits = torch.zeros((trainer.label_manager.num_segmentation_heads, *shape))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        export_prediction_from_logits(
            logits, properties, trainer.configuration_manager, trainer.plans_manager,
            trainer.dataset_json, str(Path(folder) / "case"),
        )  # fmt: skip
        return time.perf_counter() - began
