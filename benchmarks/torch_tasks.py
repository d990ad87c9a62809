"""What each task of gm_jax does in a step, in PyTorch, written as one would by hand: networks, phases, samples.

A peer has `networks` by name; `phases(stage)`, whose losses map (networks, images uint8 [B, H, W, C], labels [B]) to an
objective and metrics; `sample`, which draws `sampling.n` samples or does what else it says, in `sampling_steps`
evaluations. All is done with NCHW images in channels-last memory.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_augment import augment, diff_augment
from benchmarks.torch_generative import CODERS, GANS, VAENetwork
from benchmarks.torch_networks import CLASSIFIERS, UNet
from benchmarks.torch_stylegan import Discriminator, Generator, Synthesis, double, halve
from benchmarks.torch_stylegan import Mapping as StyleMapping
from benchmarks.torch_translation import PatchGAN, ResidualGenerator
from gm_jax.losses.diffusion import DATA_DEVIATION, PREDICTIONS, error_weight
from gm_jax.models.stylegan import blocks_of
from gm_jax.samplers.processes import Chain, Level, LogNormal
from gm_jax.stages import Phase
from gm_jax.tasks.diffusion_settings import make_plan, make_process
from gm_jax.tasks.growth import Span, spans
from gm_jax.tasks.stylegan import KEPT

Networks = Mapping[str, nn.Module]
Result = tuple[Tensor, dict[str, Tensor]]  # the objective and the metrics


class Classifier:
    """The peer of gm_jax.tasks.classifier."""

    sampling_steps = 1

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        self.config, self.smoothing = config, config.classifier.label_smoothing
        fields = {key: value for key, value in config.model.items() if key not in ("name", "dtype")}
        self.networks = {"classifier": CLASSIFIERS[config.model.name](image_shape, classes, **fields)}
        self.mean, self.std = (
            torch.tensor(tuple(config.classifier[name]), device=device).view(1, -1, 1, 1) for name in ("mean", "std")
        )

    def phases(self, stage: int) -> list[Phase]:
        """Return the phases of a step."""
        return [Phase("classifier", ("classifier",), self.loss)]

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

    def features(self, networks: Networks, images: Tensor) -> Tensor:
        """Return what the last layer reads, and the logits behind it."""
        seen = []
        hook = networks["classifier"].head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits = self.sample(networks, images)
        hook.remove()
        return torch.cat([*seen, logits], 1)


class Diffusion:
    """The peer of gm_jax.tasks.diffusion; it knows chains and EDM, and samplers that draw no noise on the way."""

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        settings, process = config.diffusion, make_process(config.diffusion)
        self.plan, self.edm = make_plan(process, config.sampling), isinstance(process, LogNormal)
        said = settings.prediction == "edm", settings.objective == "edm"
        if not isinstance(process, (Chain, LogNormal)) or said != (self.edm, self.edm) or self.plan.noise.any():
            raise NotImplementedError(
                "the PyTorch peer of diffusion knows chains, EDM, and samplers without noise, only"
            )
        fields = {key: value for key, value in config.model.items() if key != "dtype"}
        self.config, self.shape, self.device, self.process = config, image_shape, device, process
        self.networks = {"denoiser": UNet(image_shape, **fields)}
        self.sampling_steps = len(self.plan.base)
        if not self.edm:
            self.tabulate(process)

    def tabulate(self, process: Chain) -> None:
        """Work out for every step of a chain how images are mixed, what the network says, and how its error counts."""
        settings, self.T = self.config.diffusion, process.schedule.T
        t = np.maximum(np.arange(self.T + 1), 1)  # step 0 is never asked for
        level = Level(process.schedule.signal[t], process.schedule.noise[t], t)
        weight = np.array(error_weight(settings.objective, level) / error_weight(settings.prediction, level))
        self.weight = torch.from_numpy(weight).float().to(self.device)
        self.signal, self.noise, self.p, self.q = (
            torch.from_numpy(np.broadcast_to(x, t.shape).copy()).float().to(self.device).view(-1, 1, 1, 1)
            for x in (*level[:2], *PREDICTIONS[settings.prediction](level))
        )

    def phases(self, stage: int) -> list[Phase]:
        """Return the phases of a step."""
        return [Phase("denoiser", ("denoiser",), self.edm_loss if self.edm else self.chain_loss)]

    def uniform(self, n: int) -> Tensor:
        """Return n numbers in [0, 1) that are evenly spread."""
        return (torch.rand((), device=self.device) + torch.arange(n, device=self.device) / n) % 1.0

    def chain_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Return the objective and the metrics."""
        x0 = to_model(images)
        t = 1 + (self.uniform(len(x0)) * self.T).floor().long()
        epsilon = torch.randn_like(x0)
        output = networks["denoiser"](self.signal[t] * x0 + self.noise[t] * epsilon, t).float()
        error = (output - self.p[t] * x0 - self.q[t] * epsilon).square().mean((1, 2, 3))
        loss = (error * self.weight[t]).mean()
        return loss, {"loss": loss.detach()}

    def edm_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Return the objective and the metrics (Karras et al. 2022, table 1)."""
        x0, process = to_model(images), self.process
        u = self.uniform(len(x0)).clamp(1e-6, 1 - 1e-6)
        log_sigma = process.mean + process.deviation * torch.special.ndtri(u)
        sigma, epsilon = log_sigma.exp().view(-1, 1, 1, 1), torch.randn_like(x0)
        scale = (sigma.square() + DATA_DEVIATION**2).sqrt()
        output = networks["denoiser"]((x0 + sigma * epsilon) / scale, log_sigma / 4).float()
        target = (sigma / DATA_DEVIATION * x0 - DATA_DEVIATION * epsilon) / scale
        loss = F.mse_loss(output, target)
        return loss, {"loss": loss.detach()}

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return `sampling.n` samples, uint8 [n, C, H, W]; the images are not used."""
        (height, width, channels), n, plan = self.shape, self.config.sampling.n, self.plan
        shape = (n, channels, height, width)
        x = plan.scale * torch.randn(shape, device=self.device).contiguous(memory_format=torch.channels_last)
        final, before = x, torch.zeros_like(x)
        for i, level in enumerate(map(Level._make, np.transpose(plan.level).tolist())):
            seen = x / math.hypot(DATA_DEVIATION, level.noise) if self.edm else x
            output = networks["denoiser"](seen, torch.full((n,), level.time, device=self.device)).float()
            signal, noise, _ = level
            p, q = map(float, PREDICTIONS[self.config.diffusion.prediction](level))
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

    def phases(self, stage: int) -> list[Phase]:
        """Return the phases of a step."""
        return [Phase("vae", ("vae",), self.loss)]

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
                **{f"gan.{key}": settings[key] for key in ("label_smoothing", "conditional", "wrong_labels")},
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

    def phases(self, stage: int) -> list[Phase]:
        """Return the phases of a step."""
        settings = self.settings
        lazy = [Phase("r1", ("discriminator",), self.r1_loss, every=settings.r1_every)] if settings.r1 else []
        return [
            Phase("discriminator", ("discriminator",), self.discriminator_loss, repeats=settings.critic_steps),
            Phase("generator", ("generator",), self.generator_loss),
            *lazy,
        ]

    def latents(self, n: int) -> Tensor:
        """Return n draws of z."""
        return torch.randn(n, self.config.model.latent_dim, device=self.device)

    def augmented(self, x: Tensor) -> Tensor:
        """Return images as the discriminator sees them."""
        return diff_augment(x, self.settings.augment)

    def discriminator_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Tell real images from generated ones, perhaps with a penalty on the slope between them."""
        real, discriminator = to_model(images), networks["discriminator"]
        with torch.no_grad():
            fake = networks["generator"](self.latents(len(real)))
        on_real, on_fake = (discriminator(self.augmented(x)) for x in (real, fake))
        loss = self.real(on_real).mean() + self.fake(on_fake).mean()
        metrics = {"discriminator_loss": loss.detach()}
        with torch.no_grad():
            for name, logits in (("d_real", on_real), ("d_fake", on_fake)):
                metrics[name] = (logits.sigmoid() if self.probability else logits).mean()
        if self.settings.gradient_penalty:
            share = torch.rand(len(real), 1, 1, 1, device=self.device)
            slope = torch.sqrt(squared_slope(self.critic(discriminator), torch.lerp(fake, real, share)) + 1e-12)
            penalty = (slope - 1.0).square().mean()
            loss, metrics["penalty"] = loss + self.settings.gradient_penalty * penalty, penalty.detach()
        return loss, metrics

    def generator_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Make the discriminator take generated images for real."""
        fake = networks["generator"](self.latents(len(images)))
        loss = self.generator(networks["discriminator"](self.augmented(fake))).mean()
        return loss, {"generator_loss": loss.detach()}

    def r1_loss(self, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Penalise the discriminator's slope at real images."""
        penalty = 0.5 * squared_slope(self.critic(networks["discriminator"]), to_model(images)).mean()
        return self.settings.r1 * self.settings.r1_every * penalty, {"r1": penalty.detach()}

    def critic(self, discriminator: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the discriminator as a function whose slope is penalised."""
        # Not discriminator(x): what torch.compile makes has no second derivatives.
        return lambda x: discriminator.forward(self.augmented(x))

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return `sampling.n` samples, uint8 [n, C, H, W]; the images are not used."""
        return to_uint8(networks["generator"](self.latents(self.config.sampling.n)))


def squared_slope(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return ||d critic(x) / dx||^2 for each of the images x [B, C, H, W]: [B], to be differentiated again."""
    x.requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return slope.square().sum((1, 2, 3))


class StyleGAN:
    """The peer of gm_jax.tasks.stylegan; samples are those of the last stage."""

    sampling_steps = 1

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        model, colours = config.model, image_shape[2]
        self.config, self.settings, self.device = config, config.gan, device
        self.blocks = blocks_of(image_shape, model.channels)
        self.spans = spans(config, self.blocks)
        every_block = range(self.spans[0].block, self.blocks)
        mapping = StyleMapping(model.latent_dim, model.mapping_layers, model.mapping_rate)
        synthesis = Synthesis(colours, model.channels, model.latent_dim, every_block)
        self.networks = {
            "generator": Generator(mapping, synthesis),
            "discriminator": Discriminator(colours, model.channels, every_block),
        }
        self.mean_w = torch.zeros(model.latent_dim, device=device)
        self.step = -1  # of the stage; each begins with the discriminator's phase

    def phases(self, stage: int) -> list[Phase]:
        """Return the phases of a step of a stage."""
        span, every = self.spans[stage], self.settings.r1_every
        lazy = Phase("r1", ("discriminator",), functools.partial(self.r1_loss, span), every=every)
        return [
            Phase("discriminator", ("discriminator",), functools.partial(self.discriminator_loss, span)),
            Phase("generator", ("generator",), functools.partial(self.generator_loss, span)),
            *([lazy] if self.settings.r1 and every > 1 else []),
        ]

    def level(self, span: Span) -> float:
        """Return the level at a step of a stage."""
        return span.block - 1.0 + min(self.step / (span.end - span.begin), 1.0) if span.fades else float(span.block)

    def styles(self, network: nn.Module, n: int) -> Tensor:
        """Return n draws of w."""
        return network.mapping(torch.randn(n, self.config.model.latent_dim, device=self.device))

    def fake(self, network: nn.Module, n: int, span: Span) -> tuple[Tensor, Tensor]:
        """Return samples, some of which mix two styles, and the w of their first."""
        (first, second), layers = (self.styles(network, n) for _ in range(2)), 2 * (span.block + 1)
        cut = torch.randint(1, layers, (n,), device=self.device)
        cut = cut.masked_fill(torch.rand(n, device=self.device) >= self.settings.mixing, layers)
        before = torch.arange(layers, device=self.device) < cut[:, None]
        w = torch.where(before[:, :, None], first[:, None], second[:, None])
        return network.synthesis(w, self.level(span), span.shown), first

    def real(self, images: Tensor, span: Span) -> Tensor:
        """Return images as the discriminator sees them at a stage: smaller, and fading in, too."""
        x = to_model(images)
        for _ in range(self.blocks - 1 - span.block):
            x = halve(x)
        return torch.lerp(x, double(halve(x)), span.block - self.level(span)) if span.fades else x

    def critic(self, network: Callable[..., Tensor], span: Span) -> Callable[[Tensor], Tensor]:
        """Return the discriminator, or what it does, as a function of images, which it augments."""
        return lambda x: network(diff_augment(x, self.settings.augment), self.level(span), span.shown)

    def penalty(self, network: nn.Module, real: Tensor, span: Span) -> Tensor:
        """Return half the discriminator's squared slope at real images."""
        # Its forward: what torch.compile makes has no second derivatives.
        return 0.5 * squared_slope(self.critic(network.forward, span), real).mean()

    def discriminator_loss(self, span: Span, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Tell real images from generated ones, perhaps with R1."""
        self.step += 1
        real, critic = self.real(images, span), self.critic(networks["discriminator"], span)
        with torch.no_grad():
            fake, _ = self.fake(networks["generator"], len(real), span)
        on_real, on_fake = critic(real), critic(fake)
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        opinion = {"d_real": on_real.detach().sigmoid().mean(), "d_fake": on_fake.detach().sigmoid().mean()}
        metrics = {"discriminator_loss": loss.detach(), **opinion}
        if self.settings.r1 and self.settings.r1_every == 1:
            penalty = self.penalty(networks["discriminator"], real, span)
            loss, metrics["r1"] = loss + self.settings.r1 * penalty, penalty.detach()
        return loss, metrics

    def generator_loss(self, span: Span, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """Make the discriminator take generated images for real; follow the mean of w."""
        fake, w = self.fake(networks["generator"], len(images), span)
        loss = F.softplus(-self.critic(networks["discriminator"], span)(fake)).mean()
        self.mean_w.lerp_(w.detach().mean(0), 1.0 - KEPT)
        return loss, {"generator_loss": loss.detach()}

    def r1_loss(self, span: Span, networks: Networks, images: Tensor, labels: Tensor) -> Result:
        """R1 at every `r1_every`-th step, so much stronger."""
        penalty = self.penalty(networks["discriminator"], self.real(images, span), span)
        return self.settings.r1 * self.settings.r1_every * penalty, {"r1": penalty.detach()}

    def sample(self, networks: Networks, images: Tensor) -> Tensor:
        """Return `sampling.n` samples, uint8 [n, C, H, W]; the images are not used."""
        generator, sampling, last = networks["generator"], self.config.sampling, self.blocks - 1
        w = torch.lerp(self.mean_w, self.styles(generator, sampling.n), sampling.truncation)
        w = w[:, None].expand(-1, 2 * self.blocks, -1)
        return to_uint8(generator.synthesis(w, float(last), (last,)))


class CycleGAN:
    """The peer of gm_jax.tasks.cyclegan; one half of the images it is given is of each domain."""

    sources = 2

    def __init__(self, config: ConfigDict, image_shape: tuple[int, int, int], classes: int, device: str):
        self.settings, model = config.cyclegan, config.model
        refuse("CycleGAN", {f"cyclegan.loss={self.settings.loss}": self.settings.loss != "least_squares"})
        self.networks = {net: ResidualGenerator(image_shape[2], **model.generator) for net in ("ab", "ba")}
        self.networks |= {net: PatchGAN(image_shape[2], **model.discriminator) for net in ("a", "b")}
        self.pools: dict[str, list[Tensor]] = {"a": [], "b": []}

    def phases(self, stage: int) -> list[Phase]:
        """Return the phases of a step."""
        return [
            Phase("generators", ("ab", "ba"), self.generators_loss),
            Phase("discriminators", ("a", "b"), self.discriminators_loss),
        ]

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
    "stylegan": StyleGAN,
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
