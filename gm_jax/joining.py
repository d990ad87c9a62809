"""How several processes find each other: by flags, or by the cluster that started them."""

import glob
import importlib.util
import os

import numpy as np

from gm_jax import cluster
from gm_jax.errors import UserError

JOIN = 300  # seconds to wait for all processes at the start
HEARTBEAT = 30  # seconds of silence after which a process counts as dead, and the job ends
LEAVE = 600  # seconds to wait for the others at the end


def initialize(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other processes, if there are any: those of the flags, or of the cluster in which this one was started.

    Raises:
        UserError: the flags do not fit each other, or the others do not come.
    """
    given = check_flags(coordinator, processes, process)
    method = None if given else detect(os.environ)
    if not given and not method:
        return
    import jax
    from jax._src import distributed  # JAX has no public name for its service of keys and values

    # Its handler of SIGTERM would take the place of ours, and it has none of Ctrl-C.
    jax.config.update("jax_enable_preemption_service", False)
    arguments = dict(cluster_detection_method="deactivate") if given else {}
    if method == "mpi4py":
        arguments = dict(cluster_detection_method=method)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=JOIN,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=LEAVE,
            **arguments,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this job do not find each other: {str(error).splitlines()[0]}") from error
    cluster.join(cluster.Member(jax.process_index(), jax.process_count(), distributed.global_state.client))
    cluster.check_same("a number of devices", jax.local_device_count())
    cluster.broadcast(np.zeros(1))  # connects them all, for which they have half a minute: later on some might be busy


def check_flags(coordinator: str | None, processes: int | None, process: int | None) -> bool:
    """Return whether the flags name the other processes; UserError if they do so in part."""
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return False
    if missing:
        raise UserError(
            f"--{missing[0]} is missing: several processes need --coordinator=HOST:PORT (of process 0), --processes=N "
            "and --process=0 ... N - 1 each; --processes=N alone starts N on this machine"
        )
    if processes < 1 or not 0 <= process < processes:
        raise UserError(f"--process={process} is not one of 0 ... {processes - 1}, the numbers of --processes")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT, such as node0:12345")
    return True


def detect(environment: dict[str, str]) -> str | None:
    """Return the kind of cluster that started this process as one of several, by JAX's names; None: it is alone.

    Raises:
        UserError: Open MPI 5 did, and mpi4py is missing.
    """

    def number(name: str) -> int:
        return int(environment.get(name, "1"))

    if "SLURM_STEP_NODELIST" in environment and number("SLURM_NTASKS") > 1:  # inside srun, not just in its allocation
        return "slurm"
    if number("OMPI_COMM_WORLD_SIZE") > 1:
        if "OMPI_MCA_orte_hnp_uri" in environment:  # up to Open MPI 4
            return "ompi"
        if importlib.util.find_spec("mpi4py") is None:
            raise UserError("Open MPI 5 tells its processes nothing by itself: pip install mpi4py")
        return "mpi4py"
    kubernetes = "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment
    if kubernetes and importlib.util.find_spec("kubernetes") is not None:
        return "k8s"
    tpu = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    if tpu and importlib.util.find_spec("libtpu") is not None:
        return "tpu"
    return None
