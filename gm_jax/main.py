"""Train, sample, evaluate and draw: `python -m gm_jax.main --config=configs/ddpm_mnist.py [--mode=...]`."""

import sys
import time
import traceback

BEGAN = time.time()

from absl import app, logging  # noqa: E402

from gm_jax import cli  # noqa: E402
from gm_jax.errors import UserError, is_full_disk  # noqa: E402


def main(_) -> int:
    """Dispatch on the mode. What takes long to import comes only after the command line has proved sound."""
    if cli.FLAGS.processes and cli.FLAGS.process is None and cli.FLAGS.coordinator is None:
        from gm_jax import launcher

        return launcher.launch(cli.FLAGS.processes)

    from gm_jax import backend, cluster, joining, run
    from gm_jax.workdir import Workdir

    if not cli.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax and JAX tell their every move otherwise
    backend.configure()
    joining.initialize(cli.FLAGS.coordinator, cli.FLAGS.processes, cli.FLAGS.process)
    name = cli.experiment_name()
    workdir = Workdir(cli.FLAGS.workdir or f"runs/{name}", cluster.is_writer())
    if cli.FLAGS.mode == "train":
        from gm_jax.train import train

        workdir.create()
        return train(run.open_training(name, cli.CONFIG.value, workdir, cli.overrides()), cli.this_command(), BEGAN)

    from gm_jax import evaluate, export, sample

    opened, mode = run.open_trained(name, cli.overrides(), workdir), cli.FLAGS.mode
    modes = {"sample": sample.sample, "evaluate": evaluate.evaluate, "figures": sample.figures}
    modes["export"] = export.export
    if mode in modes:
        return modes[mode](opened, cli.FLAGS.checkpoint)
    return opened.task.modes()[mode](opened.restore(cli.FLAGS.checkpoint))


def run_main(function=main) -> None:
    """Run, and tell a mistake of the user in one line with exit status 2 (a traceback with -v 1)."""
    from gm_jax import cluster

    try:
        app.run(function, flags_parser=cli.parse)
    except UserError as error:
        if logging.get_verbosity() > 0 or any(a in ("-v", "-v=1", "--v=1", "--verbosity=1") for a in sys.argv):
            traceback.print_exc()
        cluster.leave(2, str(error))
    except Exception as error:
        if is_full_disk(error):
            todo = "make some, and start the same command again, to go on from the last checkpoint, which is intact"
            cluster.leave(2, f"there is no room left where the run is written: {todo}", orderly=False)
        if cluster.count() == 1:
            raise
        if cluster.lost_another(error):
            cluster.leave(1, "another process of this job has ended: start all anew, to go on from the last checkpoint")
        traceback.print_exc()
        cluster.leave(1, f"{type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    run_main()
