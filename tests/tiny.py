"""Every shipped config, shrunk until it runs in seconds: the same code, fewer and smaller arrays."""

import atexit
import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from gm_jax.run import Run, open_training
from gm_jax.train import train
from gm_jax.workdir import Workdir

ROOT = Path(__file__).parent.parent
CONFIGS = {path.stem: path for path in sorted((ROOT / "configs").glob("*.py"))}

EVERY_CONFIG = {
    "steps": 4,
    "batch_size": 8,
    "steps_per_call": 1,
    "log_every": 2,
    "evaluate_every": 4,
    "checkpoint_every": 2,
    "optim.warmup_steps": 2,
    "optim.decay_steps": 20,
    "evaluation.n": 10,
    "evaluation.batch_size": 8,
    "evaluation.samples": 9,
    "sampling.n": 4,
}
# Configs that differ in numbers alone have the same here: then one compiled program serves them all. Their own numbers
# are met by `test_every_config_updates_by_its_own_optimisers`, in test_optim.py.
BY_TASK = {
    "autoencoder": {"dataset.name": "digits", "model.latent_dim": 6, "sampling.batch_size": 40},
    "classifier": {"dataset.name": "digits", "classifier.mean": (0.5,), "classifier.std": (0.5,)},
    "cyclegan": {
        "dataset.name": "shapes",
        "dataset.image_size": 16,
        "dataset.validation": 50,
        **{f"domains.{name}.split": "train" for name in "ab"},
        **{f"domains.{name}.test": "test" for name in "ab"},
        **{f"domains.{name}.attribute": "shape" for name in "ab"},
        "domains.a.value": "circle",
        "domains.b.value": "square",
        "model.generator.width": 2,
        "model.generator.blocks": 1,
        "model.discriminator.width": 2,
        "model.discriminator.layers": 1,
        "cyclegan.crop": 12,
        "cyclegan.pool": 10,
        "optim.hold_steps": 4,
        "optim.learning_rate": 5e-4,
        **{f"optim.{network}.ema_decay": 0.99 for network in ("ab", "ba")},
        "sampling.batch_size": 4,  # one program draws any number
    },
    "diffusion": {
        "dataset.name": "digits",
        "model.width": 8,
        "model.multipliers": (1,),
        "model.blocks": 1,
        "model.attention": (),
        "model.dense": 16,
        "model.space_to_depth": 4,
        "diffusion.timesteps": 20,
        "sampling.steps": 5,
        "sampling.inversions": 0,
        "sampling.batch_size": 4,
        "optim.learning_rate": 1e-3,
        "optim.decay": "cosine",
        "optim.beta2": 0.99,
        "optim.ema_decay": 0.99,
    },
    "gan": {
        "dataset.name": "digits",
        "dataset.image_size": 16,
        "model.latent_dim": 4,
        "sampling.batch_size": 40,
    },
    "gaussian_mixture": {"dataset.name": "digits", "model.components": 3, "model.dimensions": 4},
    "naive_bayes": {"dataset.name": "digits"},
    "stylegan": {
        "optim.hold_steps": 4,
        "dataset.name": "shapes",
        "dataset.image_size": 16,
        "model.latent_dim": 8,
        "model.mapping_layers": 2,
        "model.mapping_rate": 0.01,
        "model.channels": (4, 4, 4),
        "growth.first": 4,
        "growth.batch_sizes": (),
        "project.steps": 30,
        "sampling.batch_size": 40,
    },
    "vae": {"dataset.name": "digits", "evaluation.importance_samples": 4, "sampling.batch_size": 40},
}
GAN = ("generator", "discriminator")
TWO_LAYERS = {"width": 4, "multipliers": (1, 2), "strides": (2, 2), "kernels": (4, 4)}
BY_MODEL = {  # model.name
    "mlp": {"model.hidden": (8, 8)},
    "conv": {"model.features": (4, 4)},
    "dense": {"model.generator.hidden": (8, 8), "model.discriminator.hidden": (8,)},
    "dcgan": {f"model.{net}.{key}": value for net in GAN for key, value in TWO_LAYERS.items()},
    "residual": {"model.width": 8, "model.blocks": 1},
    "cnn": {"model.features": (4, 4, 4), "model.dense": 8},
    "lenet": {"model.features": (4, 4), "model.dense": 8},
    "speednet": {"model.widths": (8, 8, 8), "model.depth": 1},
    "alexnet": {"model.features": (4, 4, 4, 4, 4)},
    "resnet": {"model.stages": (1, 1), "model.width": 4},
    "resnet9": {"model.widths": (4, 4, 4)},
}
SMALL_SHAPES = {"dataset.name": "shapes", "dataset.image_size": 16}
BY_DATASET = {  # in place of what is not at hand
    "celeb_a": SMALL_SHAPES,
    "cats": {**SMALL_SHAPES, "dataset.split": "train", "evaluation.split": "test"},
    "faces64": SMALL_SHAPES,
}


EVERY_GAN_OPTION = {  # of those that fit together
    "model__discriminator__spectral_norm": True,
    "model__discriminator__projection": True,
    "model__discriminator__dropout": 0.2,
    "model__discriminator__batch_norm": False,
    "gan__critic_steps": 2,
    "gan__label_smoothing": 0.1,
    "gan__wrong_labels": True,
    "gan__r1": 1.0,
    "gan__r1_every": 2,
    "gan__augment": ("colour", "translation", "cutout"),
    "optim__generator__ema_decay": 0.9,
    "optim__discriminator__learning_rate": 4e-4,
}


def load_module(path: Path) -> ModuleType:
    """Import a config file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXPERIMENTS = [  # every config, and "config:variant" for all its variants
    f"{name}:{variant}" if variant else name
    for name, path in CONFIGS.items()
    for variant in ("", *getattr(load_module(path), "VARIANTS", ()))
]


def load(experiment: str) -> ConfigDict:
    """Load "config" or "config:variant" as it is shipped."""
    name, *variant = experiment.split(":")
    return load_module(CONFIGS[name]).get_config(*variant)


def shrinking(config: ConfigDict, changes: dict) -> dict:
    """Return the dotted keys, with values, that shrink a config; `changes` have dots written as double underscores."""
    by_model = {**BY_MODEL.get(config.model.get("name"), {}), **BY_DATASET.get(config.dataset.name, {})}
    if config.task == "diffusion" and config.diffusion.schedule == "linear":
        by_model["diffusion.beta_end"] = 0.5  # so that 20 steps end in noise
    if config.task == "diffusion" and config.model.dropout:
        by_model["model.dropout"] = 0.1
    if config.task == "diffusion" and (config.diffusion.attributes or not config.diffusion.conditional):
        by_model |= SMALL_SHAPES  # the digits are for what wants labels
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return {**EVERY_CONFIG, **BY_TASK[config.task], **by_model, **changes}


def shrunk(experiment: str, if_embedded: dict | None = None, **changes) -> ConfigDict:
    """Load "config" or "config:variant" and shrink it; `changes` have dots written as double underscores."""
    config = load(experiment)
    config.if_embedded = ConfigDict(if_embedded or {})
    config.epochs = ConfigDict()
    config.update_from_flattened_dict(shrinking(config, changes))
    return config


def open_tiny(workdir: Path, name: str = "ddpm_mnist", **changes) -> Run:
    """Open a shrunk config for training in `workdir`."""
    folder = Workdir(workdir)
    folder.create()
    return open_training(name, shrunk(name, **changes), folder)


def train_tiny(workdir: Path, name: str = "ddpm_mnist", **changes) -> Run:
    """Train a shrunk config through the real loop."""
    run = open_tiny(workdir, name, **changes)
    assert train(run, "command", began=0.0) == 0
    return run


def flags(name: str, workdir: Path, **changes) -> list[str]:
    """Return the command line of a shrunk config."""
    config, (file, *variant) = shrinking(load(name), changes), name.split(":")
    path = ":".join([str(CONFIGS[file]), *variant])
    return [f"--config={path}", f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in config.items())]


@functools.cache
def fork_server() -> subprocess.Popen:
    """Start the server whose forks `gm_jax` uses; it ends with this process."""
    command = [sys.executable, "-m", "tests.forks"]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def fork(commands: list[list[str]], environment: dict[str, str]) -> list[subprocess.CompletedProcess]:
    """Run what follows `python -m`, beside each other, in forks of a process that has imported everything."""
    for command in commands:
        sys.audit("subprocess.Popen", sys.executable, command, ROOT, environment)  # what listens shall know of it
    server = fork_server()
    with tempfile.TemporaryDirectory() as folder:
        files = [{name: f"{folder}/{name}{i}" for name in ("stdout", "stderr")} for i in range(len(commands))]
        request = zip(commands, files, strict=True)
        json.dump([{"command": c, "environment": environment, **own} for c, own in request], server.stdin)
        print(file=server.stdin, flush=True)
        answer = server.stdout.readline()
        assert answer, "the server of forks has died"
        outputs = [[Path(file).read_text() for file in own.values()] for own in files]
        results = zip(commands, json.loads(answer), outputs, strict=True)
        return [subprocess.CompletedProcess(command, status, *output) for command, status, output in results]


def gm_jax_processes(
    *arguments: str, scripts: Sequence[str] = ("gm_jax.main", "gm_jax.main"), own: Sequence[str] = ("", ""), **env
) -> list[subprocess.CompletedProcess]:
    """Run the command line in several processes with one device each, which find each other by the flags.

    Each has a script, and may have arguments of its `own`.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = [f"--coordinator=localhost:{free.getsockname()[1]}", f"--processes={len(scripts)}"]
    commands = [
        [*script.split(), *arguments, *place, f"--process={i}", *own[i].split()] for i, script in enumerate(scripts)
    ]
    flags = os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=1")
    return fork(commands, {**os.environ, "XLA_FLAGS": flags, **env})


def gm_jax(
    *arguments: str, script: str = "-m gm_jax.main", devices: int = 1, fresh: bool = False, **env
) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, as a user does; `fresh`: in a new interpreter, which is slow."""
    flags = os.environ["XLA_FLAGS"].replace("device_count=2", f"device_count={devices}")
    command, environment = [*script.split(), *arguments], {**os.environ, "XLA_FLAGS": flags, **env}
    if not fresh:
        return fork([command[1:]], environment)[0]
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
