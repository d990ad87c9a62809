"""What each task of gm_jax does in a step, in PyTorch, written as one would by hand: networks, phases, samples.

A peer has `networks` by name; `phases`, whose losses map (networks, images uint8 [B, H, W, C], labels [B]) to an
objective and metrics; `sample`, which draws `sampling.n` samples or does what else it says, in `sampling_steps`
evaluations. All is done with NCHW images in channels-last memory.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_generative import CODERS, GANS, VAENetwork
from benchmarks.torch_networks import CLASSIFIERS, UNet
from benchmarks.torch_translation import PatchGAN, ResidualGenerator
from gm_jax.losses.diffusion import PREDICTIONS, error_weight
from gm_jax.samplers.processes import Chain, Level
from gm_jax.stages import Phase
from gm_jax.tasks.diffusion_settings import make_plan, make_process

Networks = Mapping[str, nn.Module]
Result = tuple[Tensor, dict[str, Tensor]]  # the objective and the metrics


class Classifier:
    """The peer of gm_jax.tasks.classifier."""

    sampling_steps = 1

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        self.config, self.smoothing = config, config.classifier.label_smoothing
        fields = {key: value for key, value in config.model.items() if key not in ("name", "dtype")}
        self.networks = {"classifier": CLASSIFIERS[config.model.name](image_shape, classes, **fields)}
        self.phases = [Phase("classifier", ("classifier",), self.loss)]
        self.mean, self.std = (
            torch.tensor(tuple(config.classifier[name]), device=device).view(1, -1, 1, 1) for name in ("mean", "std")
        )

    def loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Return the objective and the metrics."""
        logits = networks["classifier"](self.standardise(augment(images, self.config.augment))).float()
        objective = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        with torch.no_grad():
            plain = F.cross_entropy(logits, labels) if self.smoothing else objective.detach()
            return objective, {"loss": plain, "accuracy": (logits.argmax(1) == labels).float().mean()}

    def standardise(self, images: Tensor) -> Tensor:
        """Map uint8 [B, H, W, C] to float32 [B, C, H, W] in channels-last memory."""
        return (images.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return the logits of one batch."""
        network, x = networks["classifier"], self.standardise(images)
        logits = network(x)
        return (logits + network(x.flip(3))) / 2 if self.config.classifier.flip_at_test else logits


class Diffusion:
    """The peer of gm_jax.tasks.diffusion; it knows chains of steps, and samplers that draw no noise on the way."""

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        process = make_process(config.diffusion)
        self.plan = make_plan(process, config.sampling)
        if not isinstance(process, Chain) or self.plan.noise.any() or config.diffusion.prediction == "edm":
            raise NotImplementedError("the PyTorch peer of diffusion knows chains, and samplers without noise, only")
        fields = {key: value for key, value in config.model.items() if key != "dtype"}
        self.config, self.shape, self.device = config, image_shape, device
        self.networks = {"denoiser": UNet(image_shape, **fields)}
        self.phases = [Phase("denoiser", ("denoiser",), self.loss)]
        self.T, self.sampling_steps = process.schedule.T, len(self.plan.base)
        t = np.maximum(np.arange(self.T + 1), 1)  # step 0 is never asked for
        level = Level(process.schedule.signal[t], process.schedule.noise[t], t)
        objective, prediction = config.diffusion.objective, config.diffusion.prediction
        weight = np.array(error_weight(objective, level) / error_weight(prediction, level))
        self.weight = torch.from_numpy(weight).float().to(device)
        self.signal, self.noise, self.p, self.q = (
            torch.from_numpy(np.broadcast_to(x, t.shape).copy()).float().to(device).view(-1, 1, 1, 1)
            for x in (*level[:2], *PREDICTIONS[prediction](level))
        )

    def loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Return the objective and the metrics."""
        x0 = to_model(images)
        position = torch.arange(len(x0), device=x0.device)
        u = (torch.rand((), device=x0.device) + position / len(x0)) % 1.0
        t = 1 + (u * self.T).floor().long()
        epsilon = torch.randn_like(x0)
        output = networks["denoiser"](self.signal[t] * x0 + self.noise[t] * epsilon, t).float()
        error = (output - self.p[t] * x0 - self.q[t] * epsilon).square().mean((1, 2, 3))
        loss = (error * self.weight[t]).mean()
        return loss, {"loss": loss.detach()}

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return `sampling.n` samples, uint8 [n, C, H, W]; the images are not used."""
        (height, width, channels), n, plan = self.shape, self.config.sampling.n, self.plan
        shape = (n, channels, height, width)
        x = plan.scale * torch.randn(shape, device=self.device).contiguous(memory_format=torch.channels_last)
        final, before = x, torch.zeros_like(x)
        for i, level in enumerate(map(Level._make, np.transpose(plan.level).tolist())):
            output = networks["denoiser"](x, torch.full((n,), level.time, device=self.device)).float()
            signal, noise, _ = level
            p, q = PREDICTIONS[self.config.diffusion.prediction](level)
            x0 = ((q * x - noise * output) / (q * signal - noise * p)).clamp(-1.0, 1.0)
            x = float(plan.base[i]) * final + float(plan.image[i]) * x0 + float(plan.previous[i]) * before
            final, before = (x if plan.final[i] else final), x0
        return to_uint8(x)


class VAE:
    """The peer of gm_jax.tasks.vae."""

    sampling_steps = 1

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        settings = self.settings = config.vae
        refuse(
            "VAE",
            {
                f"model.name={config.model.name}": config.model.name not in CODERS,
                "vae.binarise=threshold": settings.binarise == "threshold",
                "vae.scale": settings.scale,
                "vae.free_bits": settings.free_bits,
            },
        )
        self.config, self.device, self.updates = config, device, 0
        fields = {key: value for key, value in config.model.items() if key not in ("name", "latent_dim")}
        coders = CODERS[config.model.name](image_shape, config.model.latent_dim, **fields)
        self.networks = {"vae": VAENetwork(*coders, learned_scale=settings.likelihood == "gaussian")}
        self.phases = [Phase("vae", ("vae",), self.loss)]

    def pixels(self, images: Tensor) -> Tensor:
        """Return the images in [0, 1] that the network sees, perhaps drawn binary ones."""
        x = images.permute(0, 3, 1, 2).float() / 255.0
        return (torch.rand_like(x) < x).float() if self.settings.binarise == "dynamic" else x

    def log_likelihood(self, network: nn.Module, x: Tensor, logits: Tensor) -> Tensor:
        """Return log p(x|z) of each example [B], summed over the pixels."""
        if self.settings.likelihood == "bernoulli":
            return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
        log_scale, pixels = network.log_scale, x[0].numel()
        squared_error = F.mse_loss(logits.sigmoid(), x, reduction="none").flatten(1).sum(1)
        return -0.5 * squared_error * torch.exp(-2.0 * log_scale) - pixels * (log_scale + 0.5 * math.log(2 * math.pi))

    def loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Return minus the bound that is maximised, whose KL term is warmed up, and the metrics."""
        settings, network, x = self.settings, networks["vae"], self.pixels(images)
        mean, log_variance = network.encoder(x).chunk(2, 1)
        samples = settings.train_samples
        noise = torch.randn(len(x), samples, mean.shape[1], device=x.device)
        z = mean[:, None] + torch.exp(0.5 * log_variance)[:, None] * noise
        logits = network.decoder(z.flatten(0, 1))
        log_likelihood = self.log_likelihood(network, x.repeat_interleave(samples, 0), logits).view(-1, samples)
        reconstruction, kl = log_likelihood.mean(), kl_divergence(mean, log_variance)
        self.updates += 1
        beta = settings.beta * min(1.0, self.updates / max(settings.warmup_steps, 1))
        if samples == 1:
            loss = beta * kl - reconstruction
        else:
            log_ratio = 0.5 * (noise.square() + log_variance[:, None] - z.square()).sum(-1)
            weights = log_likelihood + beta * log_ratio
            loss = math.log(samples) - weights.logsumexp(1).mean()
        with torch.no_grad():
            metrics = {"loss": loss, "elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
            return loss, {name: value.detach() for name, value in metrics.items()}

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return the mean images of `sampling.n` latents, uint8 [n, C, H, W]; the images are not used."""
        z = torch.randn(self.config.sampling.n, self.config.model.latent_dim, device=self.device)
        return (networks["vae"].decoder(z).sigmoid() * 255.0).round().to(torch.uint8)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the latents and averaged over the batch."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum() / len(mean)


GAMES = {  # by gan.loss: of logits on real images, of those on generated ones, and the generator's
    "non_saturating": (lambda logits: F.softplus(-logits), F.softplus, lambda logits: F.softplus(-logits)),
    "wasserstein": (lambda logits: -logits, lambda logits: logits, lambda logits: -logits),
}


class GAN:
    """The peer of gm_jax.tasks.gan.

    As in most PyTorch code, the running statistics of a network also move while the other one learns.
    """

    sampling_steps = 1

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        settings, model = config.gan, config.model
        refuse(
            "GAN",
            {
                f"gan.loss={settings.loss}": settings.loss not in GAMES,
                **{
                    f"gan.{key}": settings[key] for key in ("label_smoothing", "conditional", "wrong_labels", "augment")
                },
                "model.discriminator.spectral_norm": model.discriminator.get("spectral_norm"),
                "optim.discriminator.clip_weights": config.optim.discriminator.clip_weights,
            },
        )
        self.config, self.settings, self.device = config, settings, device
        self.real, self.fake, self.generator = GAMES[settings.loss]
        self.probability = settings.loss == "non_saturating"
        generator, discriminator = GANS[model.name]
        self.networks = {
            "generator": generator(image_shape, model.latent_dim, **model.generator),
            "discriminator": discriminator(image_shape, **model.discriminator),
        }
        lazy = [Phase("r1", ("discriminator",), self.r1_loss, every=settings.r1_every)] if settings.r1 else []
        self.phases = [
            Phase("discriminator", ("discriminator",), self.discriminator_loss, repeats=settings.critic_steps),
            Phase("generator", ("generator",), self.generator_loss),
            *lazy,
        ]

    def latents(self, n: int) -> Tensor:
        """Return n draws of z."""
        return torch.randn(n, self.config.model.latent_dim, device=self.device)

    def discriminator_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Tell real images from generated ones, perhaps with a penalty on the slope between them."""
        real, discriminator = to_model(images), networks["discriminator"]
        with torch.no_grad():
            fake = networks["generator"](self.latents(len(real)))
        on_real, on_fake = discriminator(real), discriminator(fake)
        loss = self.real(on_real).mean() + self.fake(on_fake).mean()
        metrics = {"discriminator_loss": loss.detach()}
        with torch.no_grad():
            for name, logits in (("d_real", on_real), ("d_fake", on_fake)):
                metrics[name] = (logits.sigmoid() if self.probability else logits).mean()
        if self.settings.gradient_penalty:
            share = torch.rand(len(real), 1, 1, 1, device=self.device)
            slope = torch.sqrt(squared_slope(discriminator, torch.lerp(fake, real, share)) + 1e-12)
            penalty = (slope - 1.0).square().mean()
            loss, metrics["penalty"] = loss + self.settings.gradient_penalty * penalty, penalty.detach()
        return loss, metrics

    def generator_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Make the discriminator take generated images for real."""
        loss = self.generator(networks["discriminator"](networks["generator"](self.latents(len(images))))).mean()
        return loss, {"generator_loss": loss.detach()}

    def r1_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Penalise the discriminator's slope at real images."""
        penalty = 0.5 * squared_slope(networks["discriminator"], to_model(images)).mean()
        return self.settings.r1 * self.settings.r1_every * penalty, {"r1": penalty.detach()}

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return `sampling.n` samples, uint8 [n, C, H, W]; the images are not used."""
        return to_uint8(networks["generator"](self.latents(self.config.sampling.n)))


def squared_slope(critic: nn.Module, x: Tensor) -> Tensor:
    """Return ||d critic(x) / dx||^2 for each of the images x [B, C, H, W]: [B], to be differentiated again."""
    x.requires_grad_()
    # Not critic(x): what torch.compile makes has no second derivatives.
    (slope,) = torch.autograd.grad(critic.forward(x).sum(), x, create_graph=True)
    return slope.square().sum((1, 2, 3))


class CycleGAN:
    """The peer of gm_jax.tasks.cyclegan; one half of the images it is given is of each domain."""

    sources = 2

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        self.settings, model = config.cyclegan, config.model
        refuse("CycleGAN", {f"cyclegan.loss={self.settings.loss}": self.settings.loss != "least_squares"})
        self.networks = {net: ResidualGenerator(image_shape[2], **model.generator) for net in ("ab", "ba")}
        self.networks |= {net: PatchGAN(image_shape[2], **model.discriminator) for net in ("a", "b")}
        self.phases = [
            Phase("generators", ("ab", "ba"), self.generators_loss),
            Phase("discriminators", ("a", "b"), self.discriminators_loss),
        ]
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}

    def inputs(self, images: Tensor) -> dict[str, Tensor]:
        """Return the images of both domains, each cut out and mirrored at random."""
        side, parts = self.settings.crop, []
        for image in images:
            if side:
                top, left = (int(torch.randint(n - side + 1, ())) for n in image.shape[:2])
                image = image[top : top + side, left : left + side]
            parts.append(image.flip(1) if self.settings.flip and torch.rand(()) < 0.5 else image)
        a, b = to_model(torch.stack(parts)).chunk(2)
        return {"a": a, "b": b}

    def generators_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Translate, come back, and leave images of the target as they are."""
        self.real, self.made, metrics = self.inputs(images), {}, {}
        cycle, identity = self.settings.cycle, self.settings.cycle * self.settings.identity
        for net, source, target in (("ab", "a", "b"), ("ba", "b", "a")):
            real, other = self.real[source], self.real[target]
            made = networks[net](real)
            metrics[f"gan_{net}"] = (networks[target](made) - 1.0).square().mean()
            metrics[f"cycle_{source}"] = cycle * F.l1_loss(networks[net[::-1]](made), real)
            if identity:
                metrics[f"identity_{target}"] = identity * F.l1_loss(networks[net](other), other)
            self.made[target] = made.detach()
        return sum(metrics.values()), {name: term.detach() for name, term in metrics.items()}

    def discriminators_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Tell the real images of the same step from what the pools answer."""
        metrics = {}
        for name, made in self.made.items():
            on_real = networks[name](self.real[name])
            on_fake = networks[name](torch.stack([self.ask(self.pools[name], image) for image in made]))
            metrics[f"discriminator_{name}"] = 0.5 * ((on_real - 1.0).square().mean() + on_fake.square().mean())
        return sum(metrics.values()), {name: term.detach() for name, term in metrics.items()}

    def ask(self, pool: list[Tensor], image: Tensor) -> Tensor:
        """Return what a pool answers to an image."""
        if len(pool) < self.settings.pool:
            pool.append(image)
            return image
        if torch.rand(()) < 0.5:
            return image
        place = int(torch.randint(len(pool), ()))
        answer, pool[place] = pool[place], image
        return answer


PEERS = {  # by config.task
    "classifier": Classifier,
    "cyclegan": CycleGAN,
    "diffusion": Diffusion,
    "gan": GAN,
    "vae": VAE,
}


def refuse(peer: str, options: Mapping[str, Any]) -> None:
    """Raise NotImplementedError if any of these options, which a peer does not know, is asked for."""
    asked = [name for name, value in options.items() if value]
    if asked:
        raise NotImplementedError(f"the PyTorch peer of the {peer} does not know {', '.join(asked)}")


def to_model(images: Tensor) -> Tensor:
    """Map uint8 [B, H, W, C] to float32 [B, C, H, W] in [-1, 1], in channels-last memory."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """Map floats in [-1, 1], clipped, to uint8."""
    return ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


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
