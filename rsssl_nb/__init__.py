"""Self-supervised contrastive learning for segmenting remote-sensing images: taught, explored, run.

A plain import loads nothing heavy; each name below is loaded when it is first touched (PEP 562).
"""

from importlib import import_module

__version__ = "0.1.0"

_homes = {
    "Scene": "data.scenes",
    "make_scene": "data.scenes",
    "open_raster": "data.raster",
    "two_views": "views.pairs",
    "Encoder": "encoders",
    "SimCLR": "methods.simclr",
    "GLCNet": "methods.glcnet",
    "FALSE": "methods.false",
    "GraSS": "methods.grass",
    "SSCCL": "methods.ssccl",
    "pretrain": "training.pretrain",
    "finetune": "training.finetune",
    "segment": "mapping.segment",
    "embed": "mapping.embed",
    "scores": "evaluation.scores",
    "load": "weights",
    "export": "weights",
    "shipped": "weights",
    "explore_pair": "widgets.explorers",
    "explore_temperature": "widgets.explorers",
    "explore_regions": "widgets.explorers",
    "explore_negatives": "widgets.explorers",
    "explore_matches": "widgets.features",
    "explore_saliency": "widgets.features",
    "explore_labels": "widgets.features",
}
__all__ = list(_homes)


def __getattr__(name):
    if name not in _homes:
        raise AttributeError(f"module 'rsssl_nb' has no attribute {name!r}")
    return getattr(import_module(f"rsssl_nb.{_homes[name]}"), name)


def __dir__():
    return sorted(["__version__", *__all__])
