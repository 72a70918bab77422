"""terradelta: what changed between two images of a place, from what to what, where and how much.

The public API is in `__init__.pyi`, on one screen. Names load on first use (PEP 562), so that
importing the package imports no torch.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("terradelta")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
