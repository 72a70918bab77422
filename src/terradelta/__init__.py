"""terradelta: what changed between two images of a place, from what to what, where and how much.

The public API, on one screen. Names load on first use (PEP 562), so that importing the package
imports no torch.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terradelta import losses as losses
    from terradelta.classes import BINARY as BINARY
    from terradelta.classes import SENSEEARTH as SENSEEARTH
    from terradelta.classes import ClassTable as ClassTable
    from terradelta.data.composite import compose_pairs as compose_pairs
    from terradelta.data.synthetic import draw_pair as draw_pair
    from terradelta.demo import demo as demo
    from terradelta.errors import TerradeltaError as TerradeltaError
    from terradelta.evaluate.area_estimation.assessment import assess as assess
    from terradelta.evaluate.area_estimation.design import SampleDesign as SampleDesign
    from terradelta.evaluate.area_estimation.sampling import sample as sample
    from terradelta.evaluate.area_estimation.zonal import stats as stats
    from terradelta.evaluate.model_scores import compare_models as compare_models
    from terradelta.evaluate.model_scores import evaluate as evaluate
    from terradelta.evaluate.scoring import compare as compare
    from terradelta.evaluate.scoring import score as score
    from terradelta.evaluate.temperatures import calibrate as calibrate
    from terradelta.export import export as export
    from terradelta.models.bundle import convert as convert
    from terradelta.models.bundle import load_model as load_model
    from terradelta.models.bundle import save_model as save_model
    from terradelta.models.registry import create_model as create_model
    from terradelta.models.registry import list_encoders as list_encoders
    from terradelta.models.registry import list_models as list_models
    from terradelta.predict.backends.quantization import quantize as quantize
    from terradelta.predict.planning import plan_area as plan_area
    from terradelta.predict.planning import plan_pair as plan_pair
    from terradelta.predict.prediction import open_prediction as open_prediction
    from terradelta.predict.preflight import check as check
    from terradelta.predict.run import merge as merge
    from terradelta.predict.run import predict as predict
    from terradelta.report.page import report as report
    from terradelta.report.viewer.server import view as view
    from terradelta.train.comparison import compare_runs as compare_runs
    from terradelta.train.config import TrainConfig as TrainConfig
    from terradelta.train.loop import train as train
    from terradelta.train.pseudo_labels import label_unchanged as label_unchanged
    from terradelta.train.rounds import pseudo_label as pseudo_label

__version__ = version("terradelta")

_HOMES = {
    "BINARY": "terradelta.classes",
    "SENSEEARTH": "terradelta.classes",
    "ClassTable": "terradelta.classes",
    "SampleDesign": "terradelta.evaluate.area_estimation.design",
    "TerradeltaError": "terradelta.errors",
    "TrainConfig": "terradelta.train.config",
    "assess": "terradelta.evaluate.area_estimation.assessment",
    "calibrate": "terradelta.evaluate.temperatures",
    "check": "terradelta.predict.preflight",
    "compare": "terradelta.evaluate.scoring",
    "compare_models": "terradelta.evaluate.model_scores",
    "compare_runs": "terradelta.train.comparison",
    "compose_pairs": "terradelta.data.composite",
    "convert": "terradelta.models.bundle",
    "create_model": "terradelta.models.registry",
    "demo": "terradelta.demo",
    "draw_pair": "terradelta.data.synthetic",
    "evaluate": "terradelta.evaluate.model_scores",
    "export": "terradelta.export",
    "label_unchanged": "terradelta.train.pseudo_labels",
    "list_encoders": "terradelta.models.registry",
    "list_models": "terradelta.models.registry",
    "load_model": "terradelta.models.bundle",
    "merge": "terradelta.predict.run",
    "open_prediction": "terradelta.predict.prediction",
    "plan_area": "terradelta.predict.planning",
    "plan_pair": "terradelta.predict.planning",
    "predict": "terradelta.predict.run",
    "pseudo_label": "terradelta.train.rounds",
    "quantize": "terradelta.predict.backends.quantization",
    "report": "terradelta.report.page",
    "sample": "terradelta.evaluate.area_estimation.sampling",
    "save_model": "terradelta.models.bundle",
    "score": "terradelta.evaluate.scoring",
    "stats": "terradelta.evaluate.area_estimation.zonal",
    "train": "terradelta.train.loop",
    "view": "terradelta.report.viewer.server",
}
__all__ = [*_HOMES, "losses"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("terradelta.losses")
    if name not in _HOMES:
        raise AttributeError(f"module 'terradelta' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """Keeps `td.predict`, `td.train` and `td.evaluate` the functions.

    Importing a sub-package binds its name here, and some of them are named like a verb. The
    packages are there for `from terradelta.predict.engine import Predictor`.
    """

    def __setattr__(self, name: str, value: Any):
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
