"""gm_jax: the classic generative models in JAX and Flax, resumable bit for bit.

From Python: `gm_jax.load`, `gm_jax.train_run`, `gm_jax.read_config`, `gm_jax.load_export` (docs/python.md). They are
imported when they are first used, so that `import gm_jax` does not import JAX.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

LAZY = {
    "UserError": "gm_jax.errors",
    "load": "gm_jax.api",
    "load_export": "gm_jax.exported",
    "read_config": "gm_jax.api",
    "train_run": "gm_jax.api",
}


def __getattr__(name: str) -> Any:
    """Import what stands in LAZY."""
    if name not in LAZY:
        raise AttributeError(f"module 'gm_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *LAZY])
