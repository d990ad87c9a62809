"""Two virtual CPU devices, and one compilation cache for all tests and the processes that they start.

Programs are compiled without optimisation: compiling is most of the time that tests take, and what they prove does not
depend on it. `XLA_LEVEL=3 launch/test.sh` compiles as a user's run does.
"""

import os
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
LEVEL = f"--xla_backend_optimization_level={os.environ.get('XLA_LEVEL', '0')}"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=2 {LEVEL}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"gm_jax_tests_{os.getuid()}"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
for name in ("TFDS_DATA_DIR", "GM_JAX_CACHE"):
    os.environ.pop(name, None)
