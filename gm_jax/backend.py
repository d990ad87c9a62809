"""Set JAX up: the compilation cache. Called before anything is compiled."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def configure() -> None:
    """Keep compiled programs, so that a second start is fast: in $JAX_COMPILATION_CACHE_DIR or ~/.cache/gm_jax/xla.

    The default folder has a part of its own for every kind of CPU: a program compiled for one may crash on another.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = Path(os.environ.get("GM_JAX_CACHE", Path.home() / ".cache" / "gm_jax"))
        jax.config.update("jax_compilation_cache_dir", str(root / "xla" / _cpu()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cpu() -> str:
    """Return a short name of this machine's CPU and its instruction set."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    kinds = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{hashlib.sha256(''.join(kinds).encode()).hexdigest()[:8]}"
