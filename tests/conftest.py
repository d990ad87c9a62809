"""Two virtual CPU devices, and one compilation cache for all tests and the processes that they start.

Programs are compiled without optimisation: compiling is most of the time that tests take, and what they prove does not
depend on it. `XLA_LEVEL=3 launch/test.sh` compiles as a user's run does.
"""

import gc
import os
import stat
import tempfile
from importlib import metadata
from pathlib import Path

# The first halves the time; the second spares a small program the work of cutting it up for many threads. A flag that
# XLA does not know would stop it.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
VERSIONS_THAT_KNOW_IT = ("0.10.",)


def compiler_flags(level: str) -> str:
    """Return the flags of XLA that compile fast at level 0, and as well as a user's run does at level 3."""
    quick = level == "0" and metadata.version("jaxlib").startswith(VERSIONS_THAT_KNOW_IT)
    return f"--xla_backend_optimization_level={level} {QUICK if quick else ''}".strip()


def private_folder(path: Path) -> str:
    """Make a folder that this user alone can write: a program found in it is run."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} is open to others: remove it, or name another with JAX_COMPILATION_CACHE_DIR")
    return str(path)


if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = private_folder(Path(tempfile.gettempdir()) / f"gm_jax_{os.getuid()}_compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
os.environ["JAX_PLATFORMS"] = "cpu"
flags = compiler_flags(os.environ.get("XLA_LEVEL", "0"))
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=2 {flags}"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # nobody reads where in Python an operation came from
for name in ("TFDS_DATA_DIR", "GM_JAX_CACHE"):
    os.environ.pop(name, None)


def pytest_configure() -> None:
    """Set the flags that every process of gm_jax sets: with the same flags they share compiled programs."""
    from gm_jax import backend  # here: JAX reads some of the above when it is imported

    backend.set_xla_flags()


def pytest_collection_finish() -> None:
    """Look for garbage less often, and never in what has been imported: tracing makes much that lives long."""
    gc.freeze()
    gc.set_threshold(50_000)
