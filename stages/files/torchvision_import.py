"""torchvision's data sets and transforms, also beside a torch without CUDA.

The wheel of torchvision in the package registry is built for CUDA. Beside a CPU build of torch its
compiled operators cannot be loaded, and `import torchvision` ends with "operator torchvision::nms
does not exist", because it attaches shape rules to operators nobody has declared. Declaring the two
signatures is enough for all that is written in Python: data sets, transforms and picture grids.
Calling the operators (object detection) still fails, and we never do.

Import torchvision through this module only: the declarations must come first. And import it when it
is needed: it takes seconds, and every stage loads the data set's module to check its options.
"""

import importlib
import sys
from functools import cache
from types import ModuleType

from torch.library import Library

__all__ = ["import_torchvision"]

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# Declarations live as long as this object.
_DECLARATIONS: list[Library] = []


def import_torchvision(part: str = "") -> ModuleType:
    """torchvision, or a part of it: `datasets`, `transforms.v2`."""
    _declared()
    return importlib.import_module(f"torchvision.{part}" if part else "torchvision")


@cache
def _declared() -> None:
    """Import torchvision, with the declarations where they are missing."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return
    library = Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + _SIGNATURE)
    _DECLARATIONS.append(library)
    # The failed attempt leaves some of its modules behind.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
