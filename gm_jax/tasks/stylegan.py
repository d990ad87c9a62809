"""StyleGAN (Karras et al. 2019), which grows: networks begin with small images, and further blocks fade in.

A step updates the discriminator and then the generator, which sees the updated discriminator and has the same samples,
drawn once for both. With `gan.r1_every` above 1 a third phase has the R1 penalty. Images are about in [-1, 1].
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.layers import diff_augment
from gm_jax.layers.resample import double, halve
from gm_jax.losses import penalties
from gm_jax.losses.adversarial import make_adversarial
from gm_jax.metrics import diversity
from gm_jax.models.stylegan import GROUP, Discriminator, Mapping, Synthesis, blocks_of
from gm_jax.program import IMAGES, Input, Program, latent_input
from gm_jax.stages import Phase, Result, Stage
from gm_jax.step import gather
from gm_jax.tasks.collapse import CollapseAlarm
from gm_jax.tasks.gan_settings import check_arithmetic
from gm_jax.tasks.growth import Span, spans
from gm_jax.tasks.stylegan_figures import GROWN, StyleGANFigures
from gm_jax.tasks.stylegan_project import project_images
from gm_jax.tasks.task import DataSpec

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
KEPT = 0.995  # of the mean of w, in a step


class StyleGAN(StyleGANFigures):
    """A generator of mapping and synthesis against a discriminator, both growing.

    The memory has the mean of w, the level up to which the networks have grown (`gm_jax.models.stylegan`), and samples
    of the same latents at the border behind every span.
    """

    monitor = ("energy_score", "min")
    watched = ("similarity",)

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings, self.game = config.gan, make_adversarial("non_saturating")
        self.blocks = blocks_of(spec.image_shape, config.model.channels)
        self.mapping = Mapping(config.model.mapping_layers, config.model.mapping_rate)
        self.synthesis = Synthesis(config.model.channels, spec.image_shape[2])
        self.discriminator = Discriminator(config.model.channels)
        self.alarm = CollapseAlarm(config.gan.collapse_alarm)
        self.spans = spans(config, self.blocks)
        check_batches(self.spans)
        diff_augment.check(config.gan.augment)
        if config.sampling.arithmetic is not None:
            check_arithmetic(config)

    @property
    def every_block(self) -> tuple[int, ...]:
        """The blocks that show images at some time."""
        return tuple(range(self.spans[0].block, self.blocks))

    def init(self, key):
        keys = jax.random.split(key, 3)
        z, shown = jnp.zeros((1, self.config.model.latent_dim)), self.every_block
        x = jnp.zeros((1, *self.spec.image_shape))
        w = jnp.zeros((1, 2 * self.blocks, z.shape[1]))
        generator = {
            "mapping": self.mapping.init(keys[0], z).get("params", {}),
            "synthesis": self.synthesis.init(keys[1], w, keys[:1], jnp.float32(0), shown)["params"],
        }
        return {
            GENERATOR: {"params": generator},
            DISCRIMINATOR: self.discriminator.init(keys[2], x, jnp.float32(0), shown),
        }

    def networks(self, variables):
        parts = variables.params[GENERATOR]
        return {
            "mapping": (self.mapping, {"params": parts["mapping"]}),
            "synthesis": (self.synthesis, {"params": parts["synthesis"]}),
            DISCRIMINATOR: (self.discriminator, variables.of(DISCRIMINATOR)),
        }

    def init_memory(self, key):
        return {
            "mean_w": jnp.zeros(self.config.model.latent_dim),
            "level": jnp.float32(self.spans[0].block),
            "grown": jnp.zeros((len(self.spans) - 1, GROWN, *self.spec.image_shape), jnp.uint8),
        }

    def stages(self):
        both = (GENERATOR, DISCRIMINATOR)
        return [
            Stage(span.begin, self.phases(i), span.batch_size, fresh=both if i else (), rate=span.rate)
            for i, span in enumerate(self.spans)
        ]

    def phases(self, stage=0):
        span, every = self.spans[stage], self.settings.r1_every
        lazy = Phase("r1", (DISCRIMINATOR,), functools.partial(self.r1_loss, span), every=every)
        generated = {"make": functools.partial(self.generated, span), "makers": (GENERATOR,)}
        return [
            Phase(DISCRIMINATOR, (DISCRIMINATOR,), functools.partial(self.discriminator_loss, span), **generated),
            Phase(
                GENERATOR,
                (GENERATOR,),
                functools.partial(self.generator_loss, span),
                noise_of=DISCRIMINATOR,
                **generated,
            ),
            *([lazy] if self.settings.r1 and every > 1 else []),
        ]

    def generated(self, span, variables, batch, context):
        """Return what `fake` draws for a batch."""
        keys = random.example_keys(context.key, batch["position"])
        return self.fake(variables, keys, span, span.level(context.step))

    def remember(self, stage, variables):
        grown = variables.memory["grown"].at[stage - 1].set(self.draw_grown(variables))
        return {**variables.memory, "grown": grown}

    def latents(self, keys):
        """Return z ~ N(0, I) of each key: [B, D]."""
        return random.normal(keys, (self.config.model.latent_dim,))

    def styles(self, variables, z):
        """Return w [B, D] of latents z [B, D]."""
        return self.mapping.apply({"params": variables.params[GENERATOR]["mapping"]}, z)

    def draw(self, variables, w, keys, level, shown):
        """Return images of w [B, layers, D], with the noise of keys [B]."""
        return self.synthesis.apply({"params": variables.params[GENERATOR]["synthesis"]}, w, keys, level, shown)

    def fake(self, variables, keys, span, level):
        """Return training's samples, some of which mix the styles of two latents, and the w of all first latents."""
        first, second = (self.styles(variables, self.latents(random.fold_in(keys, i))) for i in (0, 1))
        layers = 2 * (span.block + 1)
        cut = random.randint(random.fold_in(keys, 2), (), 1, layers)
        mixed = random.uniform(random.fold_in(keys, 3)) < self.settings.mixing
        cut = jnp.where(mixed, cut, layers)  # the layer from which the second latent rules
        w = jnp.where((jnp.arange(layers) < cut[:, None])[..., None], first[:, None], second[:, None])
        return self.draw(variables, w, random.fold_in(keys, 4), level, span.shown), first

    def real(self, batch, span, level):
        """Return a batch's images as the discriminator sees them in a span: smaller, and fading in, too."""
        x = images.to_model(batch["image"])
        for _ in range(self.blocks - 1 - span.block):
            x = halve(x)
        return x + (span.block - level) * (double(halve(x)) - x) if span.fades else x

    def discriminate(self, variables, x, keys, span, level):
        """Return logits [B] for images x, which are augmented."""
        x = diff_augment.augment(x, keys, self.settings.augment)
        return self.discriminator.apply({"params": variables.params[DISCRIMINATOR]}, x, level, span.shown)

    def discriminator_loss(self, span, variables, batch, context):
        """Tell real images from generated ones; the metrics have the loss without the penalty."""
        level, game, settings = span.level(context.step), self.game, self.settings
        keys = random.example_keys(context.key, batch["position"])
        real, (fake, _) = self.real(batch, span, level), context.made
        on_real = self.discriminate(variables, real, random.fold_in(keys, 5), span, level)
        on_fake = self.discriminate(variables, fake, random.fold_in(keys, 6), span, level)
        loss = jnp.mean(game.real(on_real, 1.0)) + jnp.mean(game.fake(on_fake))
        opinion = {"d_real": jnp.mean(jax.nn.sigmoid(on_real)), "d_fake": jnp.mean(jax.nn.sigmoid(on_fake))}
        metrics = {"discriminator_loss": loss, **opinion}
        if settings.r1 and settings.r1_every == 1:
            metrics["r1"] = self.slope(variables, real, random.fold_in(keys, 5), span, level)
            loss = loss + settings.r1 * metrics["r1"]
        return loss, Result(metrics)

    def generator_loss(self, span, variables, batch, context):
        """Make the discriminator, as it is after its update, take generated images for real."""
        level = span.level(context.step)
        keys = random.example_keys(context.key, batch["position"])
        fake, w = context.made
        logits = self.discriminate(variables, fake, random.fold_in(keys, 6), span, level)
        loss = jnp.mean(self.game.generator(logits))
        mean_w = jnp.mean(gather(w, batch["position"]), axis=0)
        mean_w = mean_w + KEPT * (variables.memory["mean_w"] - mean_w)
        memory = {**variables.memory, "mean_w": jax.lax.stop_gradient(mean_w), "level": level}
        return loss, Result({"generator_loss": loss, "level": level}, memory=memory)

    def r1_loss(self, span, variables, batch, context):
        """R1 at every `r1_every`-th step, so much stronger (Karras et al. 2020, section 3.1)."""
        level = span.level(context.step)
        keys = random.example_keys(context.key, batch["position"])
        penalty = self.slope(variables, self.real(batch, span, level), keys, span, level)
        return self.settings.r1 * self.settings.r1_every * penalty, Result({"r1": penalty})

    def slope(self, variables, real, keys, span, level):
        """Return the mean of half the discriminator's squared slope at real images of the span's resolution.

        In the original these are of full size, each pixel repeated, where slopes are less steep: there the penalty of
        small images is weaker, in proportion to their pixels.
        """
        return jnp.mean(penalties.r1(lambda x: self.discriminate(variables, x, keys, span, level), real))

    def validate(self, variables, batch, keys):
        """Return how alike two samples are and, weighed with that, how unlike held-out images of full size."""
        first, second = (
            self.show(variables, self.styles(variables, self.latents(k))[:, None], random.fold_in(k, 1))
            for k in (random.fold_in(keys, i) for i in range(2))
        )
        return {
            "similarity": diversity.cosine_similarity(first, second),
            "energy_score": diversity.energy_score(images.to_model(batch["image"]), first, second),
        }

    def warnings(self, scores, held_out):
        return self.alarm(scores["similarity"], held_out)

    def show(self, variables, w, keys):
        """Return images of full size, at the level reached, of w [B, layers or 1, D]."""
        w = jnp.broadcast_to(w, (len(w), 2 * self.blocks, w.shape[-1]))
        return self.draw(variables, w, keys, variables.memory["level"], self.every_block)

    def generate(self, variables, batch, keys):
        mean, w = variables.memory["mean_w"], self.styles(variables, self.latents(keys))
        w = mean + self.config.sampling.truncation * (w - mean)
        return {"images": images.to_uint8(self.show(variables, w[:, None], random.fold_in(keys, 1)))}

    def programs(self):
        def mapping(variables, batch, keys):
            return {"w": self.map(variables, batch, keys)}

        def synthesis(variables, batch, keys):
            return {"images": self.render(variables, batch, keys)}

        layers, width = 2 * self.blocks, self.config.model.latent_dim
        z, w = latent_input(width, "latents z ~ N(0, I)"), Input((layers, width), "float32", "styles w of every layer")
        return {
            **super().programs(),
            "mapping": Program(mapping, {"z": z}, {"w": "styles w, the same for all layers"}),
            "synthesis": Program(synthesis, {"w": w}, {"images": IMAGES}),
        }

    def modes(self):
        return {"project": functools.partial(project_images, self)}


def check_batches(planned: Sequence[Span]) -> None:
    """Raise UserError unless every batch gives each device whole groups, in which images are compared."""
    devices = jax.device_count()
    for span in planned:
        if span.batch_size % (GROUP * devices):
            raise UserError(
                f"a batch of {span.batch_size} images of {span.side} pixels does not give each of {devices} devices "
                f"groups of {GROUP}: set growth.batch_sizes, or batch_size, to multiples of {GROUP * devices}"
            )
