"""Denoising diffusion (Ho et al. 2020; DDIM: Song et al. 2021): one network that learns to undo a little noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.figures.curves import save_curves
from gm_jax.figures.grid import save_strips
from gm_jax.losses import diffusion as losses
from gm_jax.models.keywords import accepted, check_keywords
from gm_jax.models.unet import UNet
from gm_jax.samplers import diffusion as samplers
from gm_jax.samplers.schedules import check_prior, diffuse, make_schedule
from gm_jax.stages import Phase, Result
from gm_jax.tasks.task import DataSpec, Task, Trained, check_label

CHAIN_STATES = 10  # pictures in a strip of the chain
CHAIN_IMAGES = 8  # strips in its figure
TIMESTEP_BINS = 10  # of the evaluated loss
GOLDEN_RATIO = 0.6180339887


class Diffusion(Task):
    """One phase on the network "denoiser", which sees images in [-1, 1]."""

    units = {"bits_per_dimension": "bits per 8-bit pixel and channel, an upper bound"}  # noqa: RUF012  (never changed)

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.classes = len(spec.label_names) if config.diffusion.conditional else 0
        check_keywords("unet", config.model, accepted([UNet], given=("classes",)))
        self.network = UNet(classes=self.classes, **config.model)
        self.network.check((1, *spec.image_shape))
        betas = {key: config.diffusion[key] for key in ("beta_start", "beta_end")}
        given = {key: beta for key, beta in betas.items() if beta is not None}
        self.schedule = make_schedule(config.diffusion.schedule, config.diffusion.timesteps, **given)
        check_prior(config.diffusion.schedule, self.schedule)
        self.prediction, self.objective = config.diffusion.prediction, config.diffusion.objective
        losses.check_objective(self.prediction)
        losses.check_objective(self.objective)
        self.sampling_steps, self.eta = sampling_plan(config.sampling, self.schedule.T)
        check_label(config, self.classes)

    def init(self, key):
        x = jnp.zeros((1, *self.spec.image_shape))
        return {"denoiser": self.network.init(key, x, jnp.ones((1,), jnp.int32))}

    def phases(self, stage=0):
        return [Phase("denoiser", ("denoiser",), self.loss)]

    def loss(self, variables, batch, context):
        """Mean over t and noise of the squared error of the objective.

        With objective "noise" it is eq. (4) of the report, ||epsilon - epsilon_theta(x_t, t)||^2 (DDPM eq. 14). Some
        labels are hidden, so that one network learns both p(x | label) and p(x) (Ho & Salimans 2022).
        """
        step_key, noise_key, dropout_key, label_key = jax.random.split(context.key, 4)
        position = batch["position"]
        u = random.stratified(step_key, position, self.config.batch_size)
        t = 1 + jnp.floor(u * self.schedule.T).astype(jnp.int32)
        noise_keys = random.example_keys(noise_key, position)
        dropout_keys = random.example_keys(dropout_key, position)
        label = None
        if self.classes:
            hidden = random.uniform(random.example_keys(label_key, position)) < self.config.diffusion.label_dropout
            label = jnp.where(hidden, self.classes, batch["label"])
        x0 = images.to_model(batch["image"])
        error = jnp.mean(self.predict(variables.params, x0, t, noise_keys, label, dropout_keys)[0])
        return error, Result({"loss": error})

    def predict(self, params, x0, t, noise_keys, label=None, dropout_keys=None):
        """Noise x0 up to steps t [B]; return the loss per example [B] and the prediction of x0.

        What the network predicts and what its error is measured in (the objective) may differ: the first decides what
        is easy for it, the second how much each step counts.
        """
        epsilon = random.normal(noise_keys, x0.shape[1:])
        x_t = diffuse(self.schedule, x0, t, epsilon)
        output = self.network.apply({"params": params["denoiser"]}, x_t, t, dropout_keys, label)
        error = losses.squared_error(losses.target(self.prediction, self.schedule, x0, t, epsilon), output)
        weights = [losses.error_weight(name, self.schedule, t) for name in (self.objective, self.prediction)]
        return error * weights[0] / weights[1], losses.to_x0(self.prediction, self.schedule, x_t, t, output)

    def validate(self, variables, batch, keys):
        # Multiples of the golden ratio spread the steps of any number of examples evenly.
        t = 1 + jnp.floor(self.schedule.T * (batch["position"] * GOLDEN_RATIO % 1.0)).astype(jnp.int32)
        x0, label = images.to_model(batch["image"]), self.label_of(batch)
        return {"loss": self.predict(variables.params, x0, t, keys, label)[0]}

    def label_of(self, batch):
        """Return the labels of a batch, None if the network does not see them."""
        return batch["label"] if self.classes else None

    def evaluate(self, variables, batch, keys):
        """Return the loss by bins of t and the variational bound in bits per dimension (DDPM eq. 5).

        One random step stands for each bin, which estimates the sum over t = 2 ... T without bias; L_0 (t = 1) and L_T
        are computed for every example.
        """
        x0, label = images.to_model(batch["image"]), self.label_of(batch)
        edges = np.round(np.linspace(1, self.schedule.T, TIMESTEP_BINS + 1)).astype(np.int32)

        def one_bin(_, limits):
            low, high = limits  # the steps low + 1 ... high
            bin_keys = random.fold_in(keys, high)
            t = low + 1 + jnp.floor(random.uniform(random.fold_in(bin_keys, 0)) * (high - low)).astype(jnp.int32)
            error, x0_hat = self.predict(variables.params, x0, t, random.fold_in(bin_keys, 1), label)
            return None, (error, (high - low) * self.bits(x0, x0_hat, t))

        _, (errors, chain) = jax.lax.scan(one_bin, None, (jnp.asarray(edges[:-1]), jnp.asarray(edges[1:])))
        first = jnp.ones(len(x0), jnp.int32)
        _, x0_hat = self.predict(variables.params, x0, first, random.fold_in(keys, 1), label)
        parts = {
            "bits_prior": losses.prior_bits(self.schedule, x0),
            "bits_chain": jnp.sum(chain, 0),
            "bits_decoder": self.bits(x0, x0_hat, first),
        }
        total = {"bits_per_dimension": sum(parts.values()), **parts}
        return {"loss": jnp.mean(errors, 0), "loss_by_timestep": errors.T, **total}

    def bits(self, x0, x0_hat, t):
        """Return the bound's term of step t for the clipped prediction, as the sampler clips it."""
        return losses.step_bits(self.schedule, x0, jnp.clip(x0_hat, -1.0, 1.0), t)

    def denoise(self, params, label, x_t, t):
        """Return the prediction of x0, with classifier-free guidance (Ho & Salimans 2022, eq. 6) if there are labels.

        x0 = x0(any) + guidance (x0(label) - x0(any)): 1 is the plain conditional model, 0 the unconditional one.
        """

        def predict_x0(x_t, t, label):
            output = self.network.apply({"params": params["denoiser"]}, x_t, t, None, label)
            return losses.to_x0(self.prediction, self.schedule, x_t, t, output)

        guidance = self.config.sampling.guidance
        if not self.classes or guidance == 1.0:
            return predict_x0(x_t, t, label)
        both = jnp.concatenate([label, jnp.full_like(label, self.classes)])
        given, free = jnp.split(predict_x0(jnp.tile(x_t, (2, 1, 1, 1)), jnp.tile(t, 2), both), 2)
        return free + guidance * (given - free)

    def generate(self, variables, batch, keys):
        """Run the reverse process."""
        return {"images": images.to_uint8(self.reverse(variables, batch, keys).x)}

    def generate_chain(self, variables, batch, keys):
        """Run the reverse process; return the "chain" [B, CHAIN_STATES + 1, H, W, C], too."""
        result = self.reverse(variables, batch, keys, keep=CHAIN_STATES)
        chain = jnp.concatenate([result.x_t, result.x[None]])
        return {"images": images.to_uint8(result.x), "chain": images.to_uint8(jnp.moveaxis(chain, 0, 1))}

    def reverse(self, variables, batch, keys, keep=0):
        """Return what `samplers.sample` makes of noise."""
        x_T = samplers.prior(self.schedule, random.fold_in(keys, 0), self.spec.image_shape)
        steps = samplers.timesteps(self.schedule.T, self.sampling_steps)
        denoise = functools.partial(self.denoise, variables.params, self.label_of(batch))
        return samplers.sample(denoise, self.schedule, random.fold_in(keys, 1), x_T, steps, self.eta, keep=keep)

    def figures(self):
        return {
            "samples": self.draw_samples,
            "reverse_chain": self.draw_reverse_chain,
            "forward_chain": self.draw_forward_chain,
            "loss": self.draw_loss,
        }

    def describe_samples(self):
        guidance = [f"guidance {self.config.sampling.guidance}"] if self.classes else []
        steps = f"{self.config.sampling.sampler}, {self.sampling_steps} steps"
        return [steps, *super().describe_samples(), *guidance]

    def draw_reverse_chain(self, trained: Trained) -> None:
        """Draw a few samples on their way from noise (left) to image (right)."""
        seed = self.config.sampling.seed
        strips = self.sample(trained.variables, CHAIN_IMAGES, seed, self.generate_chain)["chain"]
        caption = trained.caption.plus("reverse process, from x_T (left) to x_0 (right)")
        save_strips(trained.workdir.figures / "reverse_chain.png", strips, caption)

    def draw_forward_chain(self, trained: Trained) -> None:
        """Draw a few test images sinking into noise."""
        x0 = images.to_model(jnp.asarray(trained.examples(CHAIN_IMAGES)["image"]))
        keys = random.example_keys(jax.random.key(self.config.sampling.seed), jnp.arange(len(x0)))
        steps = np.round(np.linspace(0, self.schedule.T, CHAIN_STATES + 1)).astype(int)
        chain = images.to_uint8(samplers.forward_chain(self.schedule, keys, x0, steps))
        caption = trained.caption.plus(f"forward process, t = {', '.join(map(str, steps))}")
        save_strips(trained.workdir.figures / "forward_chain.png", np.moveaxis(np.asarray(chain), 0, 1), caption)

    def draw_loss(self, trained: Trained) -> None:
        """Plot the training and validation loss over the steps."""
        save_curves(trained.workdir.figures / "loss.png", trained.workdir.metrics, ["loss"], trained.caption)


def sampling_plan(sampling: ConfigDict, T: int) -> tuple[int, float]:
    """Return (number of steps, eta); by default DDIM takes 50 steps and the ancestral sampler all T.

    Raises:
        UserError: a number of steps that it cannot take.
    """
    ancestral = sampling.sampler == "ancestral"
    steps = sampling.steps if sampling.steps is not None else (T if ancestral else min(50, T))
    samplers.timesteps(T, steps)
    return steps, 1.0 if ancestral else sampling.eta
