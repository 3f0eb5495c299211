"""Profile, cache and probe frozen encoders: compute each feature once, serve it from the GPU.

cache = fovcache.open("features/")
cache.build("train=shards/train-*.tar", encoder="encoder.py:make", layers=["layer3"], pool="mean")
x, y = cache.features(layer="layer3", split="train").tensors(device="cuda")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .builder.report import BuildReport
    from .cache import Cache
    from .cache import open_cache as open
    from .decode.clip import read_clip
    from .errors import FovcacheError
    from .keys.recipe import Feature, Recipe
    from .loaders.feature_set import FeatureSet
    from .loaders.joined import JoinedSet
    from .loaders.loader import Loader, dataloader_kwargs

__all__ = [
    "BuildReport",
    "Cache",
    "Feature",
    "FeatureSet",
    "FovcacheError",
    "JoinedSet",
    "Loader",
    "Recipe",
    "__version__",
    "dataloader_kwargs",
    "open",
    "read_clip",
]

# Imported when first used, so that `import fovcache` and `--help` do not wait for torch.
_HOMES = {
    "BuildReport": ".builder.report:BuildReport",
    "Cache": ".cache:Cache",
    "Feature": ".keys.recipe:Feature",
    "FeatureSet": ".loaders.feature_set:FeatureSet",
    "FovcacheError": ".errors:FovcacheError",
    "JoinedSet": ".loaders.joined:JoinedSet",
    "Loader": ".loaders.loader:Loader",
    "Recipe": ".keys.recipe:Recipe",
    "dataloader_kwargs": ".loaders.loader:dataloader_kwargs",
    "open": ".cache:open_cache",
    "read_clip": ".decode.clip:read_clip",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module, __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
