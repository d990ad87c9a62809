"""Denoising diffusion: one network that learns to see the image behind any amount of noise."""

import functools
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.losses import diffusion as losses
from gm_jax.models.keywords import accepted, check_keywords
from gm_jax.models.unet import UNet
from gm_jax.samplers import diffusion as samplers
from gm_jax.samplers.likelihood import bits_by_flow
from gm_jax.samplers.plans import Plan
from gm_jax.samplers.processes import Chain, Level
from gm_jax.stages import Phase, Result
from gm_jax.tasks import diffusion_editing as editing
from gm_jax.tasks import diffusion_figures as figures
from gm_jax.tasks.diffusion_inversion import draw_interpolation
from gm_jax.tasks.diffusion_settings import (
    check_interval,
    check_variance,
    combinations,
    make_plan,
    make_process,
    sampling_steps,
)
from gm_jax.tasks.task import DataSpec, Task, check_label

LEVEL_BINS = 10  # of the evaluated loss
BOUND_WEIGHT = 0.001  # of the bound in the loss of a model that learns the variance
GOLDEN_RATIO = 0.6180339887


class Diffusion(Task):
    """One phase on the network "denoiser", which sees images in [-1, 1] and noise."""

    units = {  # noqa: RUF012  (never changed)
        "bits_per_dimension": "bits per 8-bit pixel and channel, an upper bound",
        "bits_by_flow": "bits per 8-bit pixel and channel, by the probability-flow equation",
    }

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        if config.diffusion.attributes:
            self.class_names = combinations(spec, config.diffusion.attributes)
        self.classes = len(self.class_names) if config.diffusion.conditional else 0
        check_keywords("unet", config.model, accepted([UNet], given=("classes", "outputs")))
        self.learned = config.diffusion.variance == "learned"
        self.network = UNet(classes=self.classes, outputs=1 + self.learned, **config.model)
        self.network.check((1, *spec.image_shape))
        self.process = make_process(config.diffusion)
        self.prediction, self.objective = config.diffusion.prediction, config.diffusion.objective
        check_variance(config.diffusion, self.process)
        self.plan = make_plan(self.process, config.sampling)
        self.sampling_steps = sampling_steps(self.process, config.sampling)
        check_label(config, self.classes)
        check_interval(config.sampling.guidance_interval)
        self.asked()

    def init(self, key):
        x = jnp.zeros((1, *self.spec.image_shape))
        return {"denoiser": self.network.init(key, x, jnp.ones((1,), jnp.int32))}

    def networks(self, variables):
        return {"denoiser": (self.network, variables.of("denoiser"))}

    def phases(self, stage=0):
        return [Phase("denoiser", ("denoiser",), self.loss)]

    def loss(self, variables, batch, context):
        """Mean over noise levels and noise of the squared error of the objective.

        With a chain and objective "noise" it is eq. (4) of the report, ||epsilon - epsilon_theta(x_t, t)||^2 (DDPM eq.
        14). Some labels are hidden, so that one network learns both p(x | label) and p(x) (Ho & Salimans 2022). The
        bound trains a learned variance, and nothing else; 1/1000 of it is added (Nichol & Dhariwal 2021, eq. 16).
        """
        level_key, noise_key, dropout_key, label_key = jax.random.split(context.key, 4)
        position = batch["position"]
        level = self.process.draw(random.stratified(level_key, position, self.config.batch_size))
        noise_keys = random.example_keys(noise_key, position)
        dropout_keys = random.example_keys(dropout_key, position)
        label = None
        if self.classes:
            hidden = random.uniform(random.example_keys(label_key, position)) < self.config.diffusion.label_dropout
            label = jnp.where(hidden, self.classes, self.classes_of(batch))
        x0 = images.to_model(batch["image"])
        error, (x0_hat, w) = self.predict(variables.params, x0, level, noise_keys, label, dropout_keys)
        loss = jnp.mean(error)
        if not self.learned:
            return loss, Result({"loss": loss})
        schedule, fixed = self.process.schedule, jax.lax.stop_gradient(x0_hat)
        bits = schedule.T * jnp.mean(losses.term_bits(schedule, x0, fixed, level.time, w))
        return loss + BOUND_WEIGHT * bits, Result({"loss": loss, "bits_chain": bits})

    def predict(self, params, x0, level, noise_keys, label=None, dropout_keys=None):
        """Noise x0 up to levels [B]; return the loss per example [B] and what is seen behind the noise.

        What the network predicts and what its error is measured in (the objective) may differ: the first decides what
        is easy for it, the second how much each level counts.
        """
        epsilon = random.normal(noise_keys, x0.shape[1:])
        x = samplers.diffuse(level, x0, epsilon)
        output, w = self.ask(params, x, level, label, dropout_keys)
        error = losses.squared_error(losses.target(self.prediction, level, x0, epsilon), output)
        if self.objective != self.prediction:
            weights = [losses.error_weight(name, level) for name in (self.objective, self.prediction)]
            error = error * weights[0] / weights[1]
        return error, samplers.Answer(losses.to_x0(self.prediction, level, x, output), w)

    def ask(self, params, x, level, label=None, dropout_keys=None):
        """Return what the network says of noisy images x [B, ...] at levels [B], and of the variance of a step."""
        seen = losses.to_input(self.prediction, level, x)
        said = self.network.apply({"params": params["denoiser"]}, seen, level.time, dropout_keys, label)
        if not self.learned:
            return said, 0.0
        output, variance = jnp.split(said, 2, axis=-1)
        return output, (variance + 1) / 2  # about 0 to 1, from values that are about -1 to 1, as in the authors' code

    def validate(self, variables, batch, keys):
        # Multiples of the golden ratio spread the levels of any number of examples evenly.
        level = self.process.draw(batch["position"] * GOLDEN_RATIO % 1.0)
        x0, label = images.to_model(batch["image"]), self.seen_label(batch)
        return {"loss": self.predict(variables.params, x0, level, keys, label)[0]}

    def classes_of(self, batch):
        """Return the classes of examples: their labels, or the numbers of their combinations of attributes."""
        names = self.config.diffusion.attributes
        sizes = [len(self.spec.attribute_names[name]) for name in names]
        return (
            sum(batch[name] * math.prod(sizes[i + 1 :]) for i, name in enumerate(names))
            if names
            else batch.get("label")
        )

    def seen_label(self, batch):
        """Return the classes of examples; None if the network does not see them."""
        return self.classes_of(batch) if self.classes else None

    def asked(self):
        """Return the class of `sampling.label` or `sampling.words`; UserError if there is none of these words."""
        words = self.config.sampling.words
        if words is None:
            return self.config.sampling.label
        found = [
            i for i, name in enumerate(self.class_names[: self.classes]) if set(name.split()) == set(words.split())
        ]
        if not found:
            known = ", ".join(self.class_names[: self.classes]) or "none"
            raise UserError(f"sampling.words={words!r} are those of no class; there are: {known}")
        return found[0]

    def bounds(self) -> bool:
        """Return whether the variational bound says something of this model: a chain, trained on little noise too."""
        return isinstance(self.process, Chain) and self.objective in losses.BOUNDING

    def evaluate(self, variables, batch, keys):
        """Return the loss by bins of the level and, where it means something, the variational bound (DDPM eq. 5).

        One random level stands for each bin, which estimates the sum over t = 2 ... T without bias; L_0 (t = 1) and L_T
        are computed for every example.
        """
        x0, label = images.to_model(batch["image"]), self.seen_label(batch)

        def one_bin(_, number):
            bin_keys = random.fold_in(keys, number)
            level = self.process.draw((number + random.uniform(random.fold_in(bin_keys, 0))) / LEVEL_BINS)
            error, seen = self.predict(variables.params, x0, level, random.fold_in(bin_keys, 1), label)
            return None, (error, self.chain_bits(x0, seen, level))

        _, (errors, chain) = jax.lax.scan(one_bin, None, jnp.arange(LEVEL_BINS))
        by_level = {"loss": jnp.mean(errors, 0), "loss_by_timestep": errors.T}
        if self.config.evaluation.ode_steps and self.objective in losses.BOUNDING:
            see = functools.partial(self.see, variables.params, label)
            keys_of_flow = random.fold_in(keys, LEVEL_BINS + 1)
            steps = self.config.evaluation.ode_steps
            by_level["bits_by_flow"] = bits_by_flow(see, self.process, x0, keys_of_flow, steps)
        if not self.bounds():
            return by_level
        first, own = jnp.ones(len(x0), jnp.int32), random.fold_in(keys, LEVEL_BINS)
        parts = {
            "bits_prior": losses.prior_bits(self.process.schedule, x0),
            "bits_chain": jnp.sum(chain, 0),
            "bits_decoder": self.bound_at(variables.params, x0, first, own, label),
        }
        return {**by_level, "bits_per_dimension": sum(parts.values()), **parts}

    def bound_at(self, params, x0, t, keys, label=None):
        """Return the bound's terms at the steps t [B], for predictions clipped as the sampler does: bits [B]."""
        _, seen = self.predict(params, x0, self.process.at_step(t), keys, label)
        return losses.term_bits(self.process.schedule, x0, jnp.clip(seen.x0, -1.0, 1.0), t, seen.w)

    def chain_bits(self, x0, seen, level):
        """Return a bin's share of the bound, for the prediction clipped as the sampler does; 0 where there is none."""
        if not self.bounds():
            return jnp.zeros(len(x0))
        schedule = self.process.schedule
        bits = losses.chain_bits(schedule, x0, jnp.clip(seen.x0, -1.0, 1.0), level.time, seen.w)
        return schedule.T / LEVEL_BINS * bits

    def denoise(self, params, label, x, level):
        """Return what is seen behind the noise at a level of numbers, with guidance if there are labels.

        x0 = x0(any) + guidance (x0(label) - x0(any)) (Ho & Salimans 2022, eq. 6): 1 is the plain conditional model, 0
        the unconditional one. Outside of `sampling.guidance_interval`, ratios of noise to signal, the conditional model
        is asked alone (Kynkäänniemi et al. 2024), which costs half.
        """

        def guided(x):
            both = jnp.concatenate([label, jnp.full_like(label, self.classes)])
            x0, w = self.see(params, both, jnp.tile(x, (2, 1, 1, 1)), level)
            given, free = jnp.split(x0, 2)
            return samplers.Answer(free + guidance * (given - free), jnp.split(w, 2)[0] if self.learned else w)

        guidance, interval = self.config.sampling.guidance, tuple(self.config.sampling.guidance_interval)
        if not self.classes or guidance == 1.0:
            return self.see(params, label, x, level)
        if not interval:
            return guided(x)
        inside = (level.noise > interval[0] * level.signal) & (level.noise <= interval[1] * level.signal)
        return jax.lax.cond(inside, guided, lambda x: self.see(params, label, x, level), x)

    def see(self, params, label, x, level):
        """Return what is seen at a level of numbers by the conditional model alone, if there are labels."""
        levels = Level(*(jnp.broadcast_to(column, len(x)) for column in level))
        output, w = self.ask(params, x, levels, label)
        return samplers.Answer(losses.to_x0(self.prediction, levels, x, output), w)

    def generate(self, variables, batch, keys):
        """Run the reverse process."""
        return {"images": images.to_uint8(self.reverse(variables, batch, keys, self.plan).x)}

    def reverse(self, variables, batch, keys, plan: Plan, keep: int = 0) -> samplers.Samples:
        """Return what a plan makes of noise."""
        x = samplers.prior(plan, random.fold_in(keys, 0), self.spec.image_shape)
        denoise = functools.partial(self.denoise, variables.params, batch.get("label"))
        return samplers.sample(denoise, plan, random.fold_in(keys, 1), x, keep=keep)

    def figures(self):
        inversions = self.config.sampling.inversions
        return {
            "samples": self.draw_samples,
            "reverse_chain": functools.partial(figures.draw_reverse_chain, self),
            "forward_chain": functools.partial(figures.draw_forward_chain, self),
            "loss": figures.draw_loss,
            **({"bound": functools.partial(figures.draw_bound, self)} if self.bounds() else {}),
            **({"interpolation": functools.partial(draw_interpolation, self)} if inversions else {}),
        }

    def modes(self):
        return {"inpaint": functools.partial(editing.inpaint, self), "vary": functools.partial(editing.vary, self)}

    def describe_samples(self):
        sampling = self.config.sampling
        steps = f"{sampling.sampler}, {self.sampling_steps} steps"
        guidance = [f"guidance {sampling.guidance}"] if self.classes else []
        if guidance and sampling.guidance_interval:
            guidance[0] += " at noise {:g} to {:g} of the signal".format(*sampling.guidance_interval)
        return [steps, *super().describe_samples(), *guidance]
