"""How much of what a convolutional diffusion model creates does a closed-form theory predict?

The public names stand in `__init__.pyi`, which type checkers read as it is; each is loaded from its room when it is
first asked for (PEP 562), so that importing the package is quick.

>>> import elslightning as els
>>> images = els.MACHINES["bbels"].__name__, els.ddim.__name__
>>> images
('BoundaryBrokenScoreMachine', 'ddim')
"""

import ast
import importlib
from importlib.resources import files
from typing import Any

__version__ = "0.2.0"


def _listed() -> dict[str, str]:
    """The module of every public name; a room stands for itself."""
    tree = ast.parse(files(__name__).joinpath("__init__.pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or __name__ for node in imports for alias in node.names}


_MODULES = _listed()
__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    """A public name, from the room where it lives; or the class of a machine that only the registry names."""
    module = _MODULES.get(name)
    if module == __name__:
        return importlib.import_module(f"{__name__}.{name}")
    if module is not None:
        return getattr(importlib.import_module(module), name)
    if not name.startswith("_"):
        machines = importlib.import_module(f"{__name__}.machines.registry").MACHINES.values()
        for machine in machines:
            if machine.__name__ == name:
                return machine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
