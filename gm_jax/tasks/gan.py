"""Generative adversarial networks (Goodfellow et al. 2014): a generator against a discriminator, called a critic, too.

A step updates the discriminator `critic_steps` times, each on fresh images and noise, and then the generator once. The
generator sees the updated discriminator, and the same noise as its first update: where that is the only one, samples
are drawn once for both. Images are in [-1, 1].
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gm_jax import images, parallel, random
from gm_jax.layers import diff_augment
from gm_jax.layers.norm import standing_statistics
from gm_jax.losses import penalties
from gm_jax.losses.adversarial import make_adversarial
from gm_jax.metrics import diversity
from gm_jax.models.gans import make_gan
from gm_jax.optim import ema_decays
from gm_jax.program import IMAGES, Program, latent_input
from gm_jax.stages import Phase, Result
from gm_jax.state import Tree, Variables
from gm_jax.step import AXIS
from gm_jax.tasks.collapse import CollapseAlarm
from gm_jax.tasks.gan_figures import GANFigures
from gm_jax.tasks.gan_settings import check_settings, check_slope
from gm_jax.tasks.task import DataSpec, check_labels

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class GAN(GANFigures):
    """Two networks with an optimiser each, and up to three phases: discriminator, generator, lazy R1 penalty.

    Real and generated images are normalised apart where the discriminator has batch norm, as DCGAN does it. A phase
    keeps the batch statistics and spectral vectors of its own network alone.

    The best checkpoint is that of the lowest energy score: no loss of a GAN says how good its samples are.
    """

    monitor = ("energy_score", "min")
    watched = ("similarity",)

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings = config.gan
        self.classes = len(spec.label_names) if config.gan.conditional else 0
        self.game = make_adversarial(config.gan.loss)
        self.alarm = CollapseAlarm(config.gan.collapse_alarm, bool(self.classes))
        check_settings(config, self.classes)
        self.generator, self.discriminator = make_gan(
            image_shape=spec.image_shape, classes=self.classes, axis_name=AXIS, **config.model
        )
        check_slope(config, getattr(self.discriminator, "batch_norm", False))

    def check_data(self, split, data):
        if self.classes:
            check_labels(split, data, self.classes)

    def init(self, key):
        keys = jax.random.split(key)
        label = jnp.zeros(1, jnp.int32)
        z, x = jnp.zeros((1, self.config.model.latent_dim)), jnp.zeros((1, *self.spec.image_shape))
        return {
            GENERATOR: self.generator.init(keys[0], z, label),
            DISCRIMINATOR: self.discriminator.init(keys[1], x, label),
        }

    def networks(self, variables):
        modules = {GENERATOR: self.generator, DISCRIMINATOR: self.discriminator}
        return {net: (module, variables.of(net)) for net, module in modules.items()}

    def phases(self, stage=0):
        own, settings, generated = (DISCRIMINATOR,), self.settings, {"make": self.generated, "makers": (GENERATOR,)}
        lazy = [Phase("r1", own, self.r1_loss, every=settings.r1_every)] if settings.r1 else []
        return [
            Phase(DISCRIMINATOR, own, self.discriminator_loss, repeats=settings.critic_steps, **generated),
            Phase(GENERATOR, (GENERATOR,), self.generator_loss, noise_of=DISCRIMINATOR, **generated),
            *lazy,
        ]

    def generated(self, variables, batch, context):
        """Return a sample for each example of a batch, and the generator's new state."""
        z = self.latents(random.fold_in(random.example_keys(context.key, batch["position"]), 0))
        x, after = self.fake(variables, z, self.label_of(batch), train=True)
        return x, after.model_state[GENERATOR]

    def standing(self, variables):
        """Give a generator whose parameters are averaged the batch statistics of its own samples.

        The average of many generators' statistics is not that of their averaged parameters, by which activations vary
        less: samples came out grey and alike. These are the standing statistics of BigGAN (Brock et al. 2019).
        """
        averaged = ema_decays(self.config, [GENERATOR], self.config.batch_size)[GENERATOR] is not None
        if not averaged or "batch_stats" not in variables.model_state[GENERATOR]:
            return variables
        return variables._replace(model_state=self.measure_statistics(variables))

    @functools.cached_property
    def measure_statistics(self):
        """variables -> model_state whose batch statistics are those of STANDING batches of samples."""
        return jax.jit(self.standing_state, out_shardings=parallel.replicated())

    def standing_state(self, variables):
        """Return the model_state of `measure_statistics`."""
        n, generator = self.config.batch_size, self.generator.clone(axis_name=None)
        label = jnp.arange(n) % self.classes if self.classes else None

        def draw(statistics, key):
            z = jax.random.normal(key, (n, self.config.model.latent_dim))
            tree = {"params": variables.params[GENERATOR], "batch_stats": statistics}
            return generator.apply(tree, z, label, train=True, mutable=["batch_stats"])[1]["batch_stats"]

        own = variables.model_state[GENERATOR]
        statistics = standing_statistics(draw, own["batch_stats"])
        return {**variables.model_state, GENERATOR: {**own, "batch_stats": statistics}}

    def latents(self, keys):
        """Return z ~ N(0, I) of each key: [B, D]."""
        return random.normal(keys, (self.config.model.latent_dim,))

    def label_of(self, batch):
        """Return the labels of a batch, None if the networks do not see them."""
        return batch["label"] if self.classes else None

    def fake(self, variables, z, label, train=False):
        """Return images [B, H, W, C] in [-1, 1], and the variables with the generator's new state, if in training."""
        own = variables.model_state[GENERATOR]
        tree = {"params": variables.params[GENERATOR], **own}
        x, new = self.generator.apply(tree, z, label, train=train, mutable=list(own) if train else [])
        return x, with_state(variables, GENERATOR, new) if train else variables

    def discriminate(self, variables, x, label, keys):
        """Return logits [B] for images x, which are augmented, and the variables with the discriminator's new state."""
        own = variables.model_state[DISCRIMINATOR]
        tree = {"params": variables.params[DISCRIMINATOR], **own}
        x = diff_augment.augment(x, random.fold_in(keys, 0), self.settings.augment)
        logits, new = self.discriminator.apply(tree, x, label, True, keys, mutable=list(own))
        return logits, with_state(variables, DISCRIMINATOR, new)

    def discriminator_loss(self, variables, batch, context):
        """Tell real images from generated ones and, with `wrong_labels`, from real ones under a wrong label.

        The metrics have the loss without the gradient penalty.
        """
        settings, game, label = self.settings, self.game, self.label_of(batch)
        keys = [random.fold_in(random.example_keys(context.key, batch["position"]), i) for i in range(6)]
        real = images.to_model(batch["image"])
        fake, _ = context.made
        on_real, after = self.discriminate(variables, real, label, keys[1])
        on_fake, after = self.discriminate(after, fake, label, keys[2])
        rejected = jnp.mean(game.fake(on_fake))
        if settings.wrong_labels:  # Reed et al. 2016, algorithm 1: half of what is to be rejected
            wrong = (label + random.randint(keys[3], (), 1, self.classes)) % self.classes
            on_wrong, after = self.discriminate(after, real, wrong, keys[4])
            rejected = 0.5 * (rejected + jnp.mean(game.fake(on_wrong)))
        loss = jnp.mean(game.real(on_real, 1.0 - settings.label_smoothing)) + rejected
        metrics = {"discriminator_loss": loss, **self.opinion(on_real, on_fake)}
        if settings.gradient_penalty:
            share = random.uniform(keys[5])
            critic = self.critic(variables, label, keys[1])
            penalty = jnp.mean(penalties.gradient_penalty(critic, real, fake, share))
            loss, metrics["penalty"] = loss + settings.gradient_penalty * penalty, penalty
        return loss, result(jax.tree.map(jnp.mean, metrics), DISCRIMINATOR, after)

    def generator_loss(self, variables, batch, context):
        """Make the discriminator, as it is after its update, take generated images for real."""
        label = self.label_of(batch)
        keys = random.example_keys(context.key, batch["position"])
        fake, state = context.made
        logits, _ = self.discriminate(variables, fake, label, random.fold_in(keys, 1))
        loss = jnp.mean(self.game.generator(logits))
        return loss, Result({"generator_loss": loss}, {GENERATOR: state})

    def r1_loss(self, variables, batch, context):
        """R1 (Mescheder et al. 2018) at every `r1_every`-th step, so much stronger: an update of its own.

        The lazy penalty of StyleGAN2 (Karras et al. 2020, section 3.1); `optim.discriminator.lazy_correction` makes its
        changes to Adam's settings, too.
        """
        keys = random.example_keys(context.key, batch["position"])
        critic = self.critic(variables, self.label_of(batch), keys)
        penalty = jnp.mean(penalties.r1(critic, images.to_model(batch["image"])))
        return self.settings.r1 * self.settings.r1_every * penalty, Result({"r1": penalty})

    def critic(self, variables, label, keys):
        """Return the discriminator as a function of the images alone, whose slope is to be penalised."""
        return lambda x: self.discriminate(variables, x, label, keys)[0]

    def opinion(self, on_real, on_fake):
        """Return D(x) and D(G(z)), per example: probabilities where the loss knows them, else what the critic says."""
        squash = jax.nn.sigmoid if self.game.probability else lambda logits: logits
        return {"d_real": squash(on_real), "d_fake": squash(on_fake)}

    def validate(self, variables, batch, keys):
        """Return what the discriminator makes of held-out images and of samples, and how alike samples are.

        "similarity" is the cosine similarity of two samples, "energy_score" also weighs how unlike the image they are.
        """
        real, label = images.to_model(batch["image"]), self.label_of(batch)
        first, second = (self.fake(variables, self.latents(random.fold_in(keys, i)), label)[0] for i in range(2))
        tree = {"params": variables.params[DISCRIMINATOR], **variables.model_state[DISCRIMINATOR]}
        on_real, on_fake = (self.discriminator.apply(tree, x, label) for x in (real, first))
        return {
            "discriminator_loss": self.game.real(on_real, 1.0) + self.game.fake(on_fake),
            "generator_loss": self.game.generator(on_fake),
            **self.opinion(on_real, on_fake),
            "similarity": diversity.cosine_similarity(first, second),
            "energy_score": diversity.energy_score(real, first, second),
        }

    def warnings(self, scores, held_out):
        return self.alarm(scores["similarity"], held_out)

    def render(self, variables, batch, keys):
        """Return the images of the latents "z" of a batch, under its labels."""
        return images.to_uint8(self.fake(variables, batch["z"], self.label_of(batch))[0])

    def generate(self, variables, batch, keys):
        return {"images": self.render(variables, {**batch, "z": self.latents(keys)}, keys)}

    def programs(self):
        def generate(variables, batch, keys):
            return {"images": self.render(variables, batch, keys)}

        sampler = super().programs()
        inputs = {"z": latent_input(self.config.model.latent_dim, "latents z ~ N(0, I)"), **sampler["sample"].inputs}
        return {**sampler, GENERATOR: Program(generate, inputs, {"images": IMAGES})}


def with_state(variables: Variables, net: str, state: Tree) -> Variables:
    """Return the variables with a new state of one network."""
    return variables._replace(model_state={**variables.model_state, net: state})


def result(metrics: dict[str, jax.Array], net: str, after: Variables) -> Result:
    """Return a phase's result, which keeps the new state of one network alone."""
    return Result(metrics, {net: after.model_state[net]})
