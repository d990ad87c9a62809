"""Set JAX up: memory, XLA's flags and the compilation cache. Called before JAX looks for devices."""

import ctypes
import hashlib
import os
import platform
from pathlib import Path

import jax

# On CPUs XLA gives convolutions to YNNPACK, which computes those of few channels half as fast as Eigen does.
YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
WITHOUT_CONVOLUTIONS = f"{YNNPACK}=-individual_convolution"
VERSIONS_WITH_YNNPACK = (0, 10), (0, 12)  # of JAX, first and last: another might not know the flag and stop

# glibc's malloc.h: settings of `mallopt`, and the values that make it keep what is freed.
KEEP_FREED_MEMORY = {
    "M_TRIM_THRESHOLD": (-1, -1),  # give nothing back to the kernel, however much it is
    "M_TOP_PAD": (-2, 2**26),  # ask it for 64 MiB at once
    "M_MMAP_MAX": (-4, 0),  # take large blocks from the heap, too
    "M_ARENA_MAX": (-8, 1),  # one heap for all threads: those of the others do not hold large blocks
}


def configure() -> None:
    """Set memory, flags and the compilation cache."""
    keep_freed_memory()
    set_xla_flags()
    set_cache()


def keep_freed_memory() -> None:
    """Let a step on a CPU find the memory of the last step, where the C library is glibc.

    Otherwise every call of a compiled function gets its buffers as fresh pages, which the kernel clears one by one:
    that took up to 40 % of a step.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "gnu_get_libc_version"):
        for option, value in KEEP_FREED_MEMORY.values():
            libc.mallopt(option, value)


def set_xla_flags() -> None:
    """Let Eigen compute convolutions on CPUs, unless XLA_FLAGS says something else about it."""
    flags = os.environ.get("XLA_FLAGS", "")
    first, last = VERSIONS_WITH_YNNPACK
    if YNNPACK not in flags and first <= jax.__version_info__[:2] <= last:
        os.environ["XLA_FLAGS"] = f"{flags} {WITHOUT_CONVOLUTIONS}".strip()


def set_cache() -> None:
    """Keep compiled programs, so that a second start is fast: in $JAX_COMPILATION_CACHE_DIR or ~/.cache/gm_jax/xla.

    The default folder has a part of its own for every kind of CPU: a program compiled for one may crash on another.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla" / _cpu()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_root() -> Path:
    """Return the folder of all that can be computed again: $GM_JAX_CACHE or ~/.cache/gm_jax."""
    return Path(os.environ.get("GM_JAX_CACHE", Path.home() / ".cache" / "gm_jax")).expanduser()


def _cpu() -> str:
    """Return a short name of this machine's CPU and its instruction set."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    kinds = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{hashlib.sha256(''.join(kinds).encode()).hexdigest()[:8]}"
