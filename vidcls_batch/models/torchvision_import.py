"""Importing torchvision on any torch: its wheels are linked to CUDA and refuse a CPU-only torch of the same version."""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType

# The library that holds the stand-in schemas; dropping it would unregister them.
_stand_ins: list[object] = []


def import_torchvision() -> ModuleType:
    """torchvision, whether or not its compiled operators load; video models and transforms need none of them.

    transformers imports torchvision wherever it is installed, so this comes before any transformers import.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        # torchvision 0.28 registers fake kernels of `nms` at import and fails when the operator itself is not there.
        if "torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
    from torch.library import Library

    library = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(  # type: ignore[no-untyped-call]
            f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    _stand_ins.append(library)
    return importlib.import_module("torchvision")


def prepare_transformers() -> None:
    """Make transformers' vision code importable when a torchvision is installed that does not import by itself."""
    if find_spec("torchvision") is not None:
        import_torchvision()
