"""One training step and one sampling step in PyTorch, written as one would by hand, to be as fast as eager mode is.

Channels-last memory, all cores, fused optimisers, the data on the device, no waiting for the device inside a step.
Like gm_jax's step it knows no task: it updates the networks that `torch_tasks` says with the losses that it says.
"""

import copy
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from benchmarks.jax_ways import RandomExperiment
from benchmarks.timing import Way
from benchmarks.torch_tasks import PEERS
from gm_jax.optim import ema_decays, lazy_share, settings
from gm_jax.stages import Phase


def configure(device: str) -> None:
    """Use the whole machine, and on a GPU the arithmetic that JAX uses by default."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = device == "cuda"


def make_optimizer(network: nn.Module, optim: ConfigDict) -> torch.optim.Optimizer:
    """Return the optimiser of a config; weight decay shrinks kernels only."""
    parameters = trainable(network)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, betas = optim.learning_rate, (optim.beta1, optim.beta2)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, rate, momentum=optim.beta1, nesterov=optim.nesterov, fused=True)
    if optim.name == "rmsprop":
        return torch.optim.RMSprop(groups, rate, alpha=optim.beta2, eps=optim.epsilon, foreach=True)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optim.name](
        groups, rate, betas, optim.epsilon, fused=True
    )


def optimizer_settings(run: RandomExperiment, net: str, phases: Sequence[Phase]) -> ConfigDict:
    """Return the settings of a network's optimiser at the run's stage, corrected for lazy phases as theirs."""
    optim = settings(run.config, net)
    share = lazy_share(phases, net) if optim.lazy_correction else 1.0
    optim.learning_rate *= run.stage.rate * share
    optim.beta1, optim.beta2 = optim.beta1**share, optim.beta2**share
    return optim


def rate_factor(optim: ConfigDict) -> Callable[[int], float]:
    """Return the learning rate as a share of its peak at each step: warm-up, then constant or a decay to 0."""

    def factor(step: int) -> float:
        warmup = optim.warmup_steps
        if step < warmup:
            return (1 + step) / warmup
        if optim.decay == "constant":
            return 1.0
        begin = max(warmup, optim.hold_steps)
        done = min(1.0, max(0.0, (step - begin) / (optim.decay_steps - begin)))
        return 1.0 - done if optim.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes."""
    return [p for p in network.parameters() if p.requires_grad]


def average_of(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return what a moving average follows, parameters and running statistics, and where the average begins."""
    values = [*network.parameters(), *(buffer for buffer in network.buffers() if buffer.is_floating_point())]
    values = [value.detach() for value in values]
    return values, [value.clone() for value in values]


class Torch:
    """The peer of one experiment: its training step and its sampling step.

    Attributes:
        parameters: the number of trainable parameters of all networks.
    """

    def __init__(self, run: RandomExperiment, data: dict[str, np.ndarray], device: str):
        self.run, config = run, run.config
        self.config = config
        if config.task not in PEERS:
            raise NotImplementedError(f"no PyTorch peer of the task {config.task} is written yet")
        configure(device)
        self.device = device
        self.peer = PEERS[config.task](config, run.spec.image_shape, len(run.spec.label_names), device)
        self.networks = nn.ModuleDict(self.peer.networks).to(device, memory_format=torch.channels_last)
        self.images = torch.from_numpy(data["image"]).to(device)
        self.labels = torch.from_numpy(data["label"]).long().to(device)
        self.phases = self.peer.phases(run.number)
        batches = run.stage._replace(phases=self.phases).batches
        count = run.stage.batch_size * getattr(self.peer, "sources", 1)
        self.index = torch.randint(len(self.images), (batches, count), device=device)
        self.parameters = sum(p.numel() for p in trainable(self.networks))

    def precision(self) -> torch.autocast:
        """Return the context of the computation: that of `config.model.dtype`."""
        dtype = getattr(torch, self.config.model.get("dtype") or "float32")
        return torch.autocast(self.device, dtype, enabled=dtype != torch.float32)

    def wait(self, _: Any) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def own_networks(self, compiled: bool) -> nn.ModuleDict:
        """Return a copy of the networks, eager or to be compiled at their first call."""
        networks = copy.deepcopy(self.networks)
        if compiled:
            for network in networks.values():
                network.compile()
        return networks

    def training(self, name: str, compiled: bool = False) -> Way:
        """Return the training step, eager or with networks that `torch.compile` compiles."""
        networks, phases, numbers = self.own_networks(compiled).train(), self.phases, itertools.count()
        parameters = {net: trainable(network) for net, network in networks.items()}
        optim = {net: optimizer_settings(self.run, net, phases) for net in networks}
        optimizers = {net: make_optimizer(network, optim[net]) for net, network in networks.items()}
        schedules = {
            net: torch.optim.lr_scheduler.LambdaLR(optimizers[net], rate_factor(optim[net])) for net in networks
        }
        decays = ema_decays(self.config, networks, self.run.stage.batch_size)
        averages = [(*average_of(networks[net]), 1.0 - decay) for net, decay in decays.items() if decay is not None]

        def update(phase: Phase, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            for net, values in parameters.items():  # no gradients of the networks that stay as they are
                for value in values:
                    value.requires_grad_(net in phase.nets)
                optimizers[net].zero_grad(set_to_none=True)
            with self.precision():
                loss, metrics = phase.loss(networks, images, labels)
            loss.backward()
            for net in phase.nets:
                if optim[net].clip_norm is not None:
                    metrics["grad_norm"] = nn.utils.clip_grad_norm_(parameters[net], optim[net].clip_norm)
                optimizers[net].step()
                schedules[net].step()
            return metrics

        def step() -> dict[str, Tensor]:
            number, metrics = next(numbers), {}
            batches = [(self.images[index], self.labels[index]) for index in self.index]
            for phase in phases:
                if number % phase.every == 0:
                    for batch in batches[: phase.repeats]:
                        metrics |= update(phase, *batch)
            for values, average, share in averages:
                torch._foreach_lerp_(average, values, share)
            return metrics

        return Way(name, step, self.wait, cycle=math.lcm(*(phase.every for phase in phases)))

    def sampling(self, name: str, compiled: bool = False) -> Way:
        """Return the drawing of samples (or of the logits of a batch), eager or compiled."""
        images = self.images[: self.config.batch_size]
        return self.inference(name, self.peer.sample, images, compiled, self.peer.sampling_steps)

    def features(self, name: str, compiled: bool = False) -> Way:
        """Return what metrics read of a classifier, eager or compiled: features and logits."""
        return self.inference(name, self.peer.features, self.images[: self.config.evaluation.batch_size], compiled)

    def inference(self, name: str, function: Callable, images: Tensor, compiled: bool, steps: int = 1) -> Way:
        """Return a call of `function(networks, images)` that learns nothing."""
        networks = self.own_networks(compiled).eval()

        def call() -> Tensor:
            with torch.inference_mode(), self.precision():
                return function(networks, images)

        return Way(name, call, self.wait, steps=steps)


def copy_weights(variables: Mapping[str, Any], network: nn.Module) -> None:
    """Copy Flax variables {"params", and perhaps "batch_stats"} into the network of the same names."""
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state, turned = network.state_dict(), getattr(network, "turned", False)

    def copy_tree(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                copy_tree(value, (*path, name))
                continue
            layer = network.get_submodule(".".join(path))
            value = as_torch(layer, np.asarray(value), turned)
            target = state[".".join((*path, names.get(name, name)))]
            target.copy_(torch.tensor(np.ascontiguousarray(value)).view(target.shape))

    for collection in variables.values():
        copy_tree(collection, ())


def as_torch(layer: nn.Module, value: np.ndarray, turned: bool) -> np.ndarray:
    """Return one of Flax's arrays as PyTorch has it in a layer, in a network that is `turned` by 180 degrees."""
    if turned and hasattr(layer, "grid") and (value.ndim == 2 or layer.grid_axis == -1):  # a bias is of the outputs
        axis = range(value.ndim)[layer.grid_axis]
        grid = value.reshape(*value.shape[:axis], *layer.grid, *value.shape[axis + 1 :])
        value = np.flip(grid, (axis, axis + 1)).reshape(value.shape)
    if value.ndim == 4 and not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):  # an image
        return value.transpose(0, 3, 1, 2)
    if value.ndim == 4:
        transposed = isinstance(layer, nn.ConvTranspose2d)
        if transposed != turned:  # Flax's transposed kernels are PyTorch's, turned
            value = value[::-1, ::-1]
        return value.transpose(2, 3, 0, 1) if transposed else value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value
