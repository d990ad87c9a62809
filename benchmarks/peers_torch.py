"""One training step and one sampling step in PyTorch, written as one would by hand, to be as fast as eager mode is.

Channels-last memory, all cores, fused optimisers, the data on the device, no waiting for the device inside a step.
Each peer does the work of the task of its name in gm_jax: augmentation, noise, loss, metrics, optimiser, average.
"""

import itertools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import Way
from benchmarks.torch_networks import CLASSIFIERS, UNet
from gm_jax.losses.diffusion import error_weight
from gm_jax.run import Run
from gm_jax.samplers.diffusion import timesteps
from gm_jax.samplers.schedules import make_schedule


def configure(device: str) -> None:
    """Use the whole machine, and on a GPU the arithmetic that JAX uses by default."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = device == "cuda"


class Classifier:
    """The peer of gm_jax.tasks.classifier."""

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        self.config, self.smoothing = config, config.classifier.label_smoothing
        fields = {key: value for key, value in config.model.items() if key not in ("name", "dtype")}
        self.network = CLASSIFIERS[config.model.name](image_shape, classes, **fields)
        self.mean, self.std = (
            torch.tensor(tuple(config.classifier[name]), device=device).view(1, -1, 1, 1) for name in ("mean", "std")
        )

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective and the metrics for images uint8 [B, H, W, C]."""
        logits = network(self.standardise(augment(images, self.config.augment))).float()
        objective = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        with torch.no_grad():
            plain = F.cross_entropy(logits, labels) if self.smoothing else objective.detach()
            return objective, {"loss": plain, "accuracy": (logits.argmax(1) == labels).float().mean()}

    def standardise(self, images: Tensor) -> Tensor:
        """Map uint8 [B, H, W, C] to float32 [B, C, H, W] in channels-last memory."""
        return (images.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std

    def sample(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the logits of one batch."""
        x = self.standardise(images)
        logits = network(x)
        return (logits + network(x.flip(3))) / 2 if self.config.classifier.flip_at_test else logits

    sampling_steps = 1


class Diffusion:
    """The peer of gm_jax.tasks.diffusion; it knows the sampler "ddim" with eta = 0."""

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        if config.sampling.sampler != "ddim" or config.sampling.eta:
            raise NotImplementedError("the PyTorch peer of diffusion knows ddim with eta=0 only")
        fields = {key: value for key, value in config.model.items() if key != "dtype"}
        self.config, self.shape, self.device = config, image_shape, device
        self.network = UNet(image_shape, **fields)
        schedule = make_schedule(config.diffusion.schedule, config.diffusion.timesteps)
        self.T = schedule.T
        self.sampling_steps = config.sampling.steps or min(50, self.T)
        self.prediction = config.diffusion.prediction
        t = np.maximum(np.arange(self.T + 1), 1)  # step 0 is never asked for
        weights = [error_weight(name, schedule, t) for name in (config.diffusion.objective, self.prediction)]
        self.weight = torch.from_numpy(np.array(weights[0] / weights[1])).to(device)
        self.signal, self.noise = (
            torch.from_numpy(np.array(x)).to(device).view(-1, 1, 1, 1) for x in (schedule.signal, schedule.noise)
        )

    def target(self, x0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Return what the network shall predict."""
        if self.prediction == "velocity":
            return self.signal[t] * epsilon - self.noise[t] * x0
        return {"noise": epsilon, "image": x0}[self.prediction]

    def to_x0(self, x: Tensor, t: int, output: Tensor) -> Tensor:
        """Return the prediction of x_0 that the network's output amounts to."""
        signal, noise = self.signal[t], self.noise[t]
        if self.prediction == "velocity":
            return (signal * x - noise * output) / (signal**2 + noise**2)
        return output if self.prediction == "image" else (x - noise * output) / signal

    def loss(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective and the metrics for images uint8 [B, H, W, C]."""
        x0 = images.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        position = torch.arange(len(x0), device=x0.device)
        u = (torch.rand((), device=x0.device) + position / len(x0)) % 1.0
        t = 1 + (u * self.T).floor().long()
        epsilon = torch.randn_like(x0)
        output = network(self.signal[t] * x0 + self.noise[t] * epsilon, t).float()
        error = (output - self.target(x0, t, epsilon)).square().mean((1, 2, 3))
        loss = (error * self.weight[t]).mean()
        return loss, {"loss": loss.detach()}

    def sample(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return `sampling.n` samples, uint8 [n, C, H, W]; the images are not used."""
        height, width, channels = self.shape
        n = self.config.sampling.n
        x = torch.randn(n, channels, height, width, device=self.device).contiguous(memory_format=torch.channels_last)
        plan = timesteps(self.T, self.sampling_steps).tolist()
        for t, s in itertools.pairwise(plan):
            output = network(x, torch.full((n,), t, device=self.device)).float()
            x0 = self.to_x0(x, t, output).clamp(-1.0, 1.0)
            x = self.signal[s] * x0 + self.noise[s] * (x - self.signal[t] * x0) / self.noise[t]
        return ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


PEERS = {"classifier": Classifier, "diffusion": Diffusion}  # by config.task


def augment(images: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Crop, flip and cut out of images uint8 [B, H, W, C], as gm_jax.data.augment does."""
    batch, height, width, _ = images.shape
    device = images.device
    every = torch.arange(batch, device=device)[:, None, None]
    if settings["crop"] or settings["flip"]:
        rows = torch.arange(height, device=device).expand(batch, height)
        columns = torch.arange(width, device=device).expand(batch, width)
        if settings["crop"]:
            shift = torch.randint(-settings["crop"], settings["crop"] + 1, (2, batch, 1), device=device)
            rows, columns = reflected(rows + shift[0], height), reflected(columns + shift[1], width)
        if settings["flip"]:
            columns = torch.where(torch.rand(batch, 1, device=device) < 0.5, columns.flip(1), columns)
        images = images[every, rows[:, :, None], columns[:, None, :]]
    if settings["cutout"]:
        size = settings["cutout"]
        inside = [
            ((torch.arange(n, device=device) - torch.randint(n, (batch, 1), device=device) + size // 2) // size == 0)
            for n in (height, width)
        ]
        hole = (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
        mean = images.float().mean((1, 2), keepdim=True).to(torch.uint8)
        images = torch.where(hole, mean, images)
    return images


def reflected(places: Tensor, size: int) -> Tensor:
    """Bring places back into [0, size) by mirroring at the first and the last pixel."""
    places = places.abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)


def make_optimizer(network: nn.Module, optim: ConfigDict) -> torch.optim.Optimizer:
    """Return the optimiser of a config; weight decay shrinks kernels only."""
    parameters = trainable(network)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, betas = optim.learning_rate, (optim.beta1, optim.beta2)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, rate, momentum=optim.beta1, nesterov=True, fused=True)
    if optim.name == "rmsprop":
        return torch.optim.RMSprop(groups, rate, alpha=optim.beta2, eps=optim.epsilon, foreach=True)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optim.name](
        groups, rate, betas, optim.epsilon, fused=True
    )


def rate_factor(optim: ConfigDict) -> Callable[[int], float]:
    """Return the learning rate as a share of its peak at each step: warm-up, then constant or a decay to 0."""

    def factor(step: int) -> float:
        warmup = optim.warmup_steps
        if step < warmup:
            return (1 + step) / warmup
        if optim.decay == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / (optim.decay_steps - warmup))
        return 1.0 - done if optim.decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes."""
    return [p for p in network.parameters() if p.requires_grad]


class Torch:
    """The peer of one experiment: its training step and its sampling step.

    Attributes:
        parameters: the number of trainable parameters.
    """

    def __init__(self, run: Run, data: dict[str, np.ndarray], device: str):
        config = self.config = run.config
        if config.task not in PEERS:
            raise NotImplementedError(f"no PyTorch peer of the task {config.task} is written yet")
        configure(device)
        self.device = device
        self.peer = PEERS[config.task](config, run.spec.image_shape, len(run.spec.label_names), device)
        self.network = self.peer.network.to(device, memory_format=torch.channels_last)
        self.images = torch.from_numpy(data["image"]).to(device)
        self.labels = torch.from_numpy(data["label"]).long().to(device)
        self.index = torch.randint(len(self.images), (config.batch_size,), device=device)
        self.parameters = sum(p.numel() for p in trainable(self.network))

    def precision(self) -> torch.autocast:
        """Return the context of the computation: that of `config.model.dtype`."""
        dtype = getattr(torch, self.config.model.get("dtype") or "float32")
        return torch.autocast(self.device, dtype, enabled=dtype != torch.float32)

    def wait(self, _: Any) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def training(self, name: str, compiled: bool = False) -> Way:
        """Return the training step, eager or with a network that `torch.compile` compiles at its first call."""
        optim = self.config.optim
        parameters = trainable(self.network)
        optimizer = make_optimizer(self.network, optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(optim))
        average = [p.detach().clone() for p in parameters] if optim.ema_decay is not None else None
        network = torch.compile(self.network) if compiled else self.network

        def step() -> dict[str, Tensor]:
            network.train()
            optimizer.zero_grad(set_to_none=True)
            with self.precision():
                loss, metrics = self.peer.loss(network, self.images[self.index], self.labels[self.index])
            loss.backward()
            if optim.clip_norm is not None:
                metrics["grad_norm"] = nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
            optimizer.step()
            schedule.step()
            if average is not None:
                torch._foreach_lerp_(average, [p.detach() for p in parameters], 1.0 - optim.ema_decay)
            return metrics

        return Way(name, step, self.wait)

    def sampling(self, name: str, compiled: bool = False) -> Way:
        """Return the drawing of samples (or of the logits of a batch), eager or compiled."""
        network = torch.compile(self.network) if compiled else self.network
        images = self.images[: self.config.batch_size]

        def draw() -> Tensor:
            network.eval()
            with torch.inference_mode(), self.precision():
                return self.peer.sample(network, images)

        return Way(name, draw, self.wait, steps=self.peer.sampling_steps)


def copy_weights(variables: Mapping[str, Any], network: nn.Module) -> None:
    """Copy Flax variables {"params", and perhaps "batch_stats"} into the network of the same names."""
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    state = network.state_dict()

    def copy(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                copy(value, (*path, name))
                continue
            target = state[".".join((*path, names.get(name, name)))]
            value = np.asarray(value)
            if name == "kernel":
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            target.copy_(torch.tensor(value).view(target.shape))

    for collection in variables.values():
        copy(collection, ())
