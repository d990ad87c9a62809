"""CycleGAN (Zhu et al. 2017): translation between two kinds of images, "a" and "b", of which no two are a pair.

Networks "ab" and "ba" translate; "a" and "b" tell real images of their kind from translated ones. A step updates both
generators by one joint gradient and then both discriminators. The generators see the discriminators as they were before
their update of this step; the discriminators see what the generators made before theirs, mixed with earlier
translations by a pool. So it is in the authors' code. Images are in [-1, 1].
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.data import augment
from gm_jax.errors import UserError, nearest
from gm_jax.losses.adversarial import cross_entropy
from gm_jax.models.cyclegan import make_translation
from gm_jax.stages import Phase, Result, stable_hash
from gm_jax.step import gather
from gm_jax.tasks.cyclegan_figures import CycleGANFigures
from gm_jax.tasks.image_pool import empty_pool, exchange
from gm_jax.tasks.task import DataSpec, Source

DOMAINS = ("a", "b")
# (logits, target) -> loss. Unlike Mao et al. 2017 the squares have no 1/2: against it the cycle's weight is measured.
CRITERIA = {"least_squares": lambda logits, target: jnp.square(logits - target), "cross_entropy": cross_entropy}


class CycleGAN(CycleGANFigures):
    """Two generators and two discriminators, two phases, and a pool of translated images for each discriminator.

    The best checkpoint is that of the lowest `generator_loss`, which says little of how good translations are.
    """

    monitor = ("generator_loss", "min")
    watched = ("cycle_a", "cycle_b")
    units = dict.fromkeys([f"{kind}_{domain}" for kind in ("cycle", "identity") for domain in DOMAINS], "of [-1, 1]")
    directions = {"ab": ("a", "b"), "ba": ("b", "a")}  # noqa: RUF012  (never changed)

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings = config.cyclegan
        self.criterion = CRITERIA[self.settings.loss]
        self.generator, self.discriminator = make_translation(
            spec.image_shape, config.model.generator, config.model.discriminator
        )
        enlarged = config.augment.enlarge
        if enlarged is not None and enlarged < spec.image_shape[0]:
            raise UserError(f"augment.enlarge={enlarged} is less than the {spec.image_shape[0]} pixels of the images")
        self.sources()  # its names are checked

    def sources(self):
        data, test, names = self.config.dataset.split, self.config.evaluation.split, self.settings.classes
        if not names:
            return {domain: Source(data + domain.upper(), test + domain.upper()) for domain in DOMAINS}
        known = self.spec.label_names
        if len(names) != len(DOMAINS):
            raise UserError(f"cyclegan.classes={list(names)} should be two classes, such as {known[0]},{known[-1]}")
        for name in names:
            if name not in known:
                raise UserError(
                    f"cyclegan.classes: {name!r} is not a class of '{self.spec.name}'{nearest(name, known)}: it has "
                    f"{', '.join(known) or 'none'}"
                )
        where = zip(DOMAINS, names, strict=True)
        return {domain: Source(data, test, {"label": known.index(name)}) for domain, name in where}

    def init(self, key):
        x, keys = jnp.zeros((1, *self.spec.image_shape)), jax.random.split(key, 4)
        networks = dict.fromkeys(self.directions, self.generator) | dict.fromkeys(DOMAINS, self.discriminator)
        return {name: network.init(k, x) for (name, network), k in zip(networks.items(), keys, strict=True)}

    def init_memory(self, key):
        shape = self.spec.image_shape
        return {
            "pool": {domain: empty_pool(self.settings.pool, shape) for domain in DOMAINS},
            # What the discriminators are shown in this step, of all devices.
            "shown": {domain: jnp.zeros((self.config.batch_size, *shape)) for domain in DOMAINS},
        }

    def phases(self, stage=0):
        return [
            Phase("generators", tuple(self.directions), self.generator_loss),
            Phase("discriminators", DOMAINS, self.discriminator_loss, noise_of="generators"),
        ]

    def translate(self, variables, direction, x):
        """Return images x [B, H, W, C] in [-1, 1] as images of the other kind."""
        return self.generator.apply({"params": variables.params[direction]}, x)

    def discriminate(self, variables, domain, x):
        """Return logits [B, h, w] of the patches of images x [B, H, W, C] in [-1, 1]."""
        return self.discriminator.apply({"params": variables.params[domain]}, x)

    def real(self, batch, context):
        """Return the images of a training batch, augmented, by domain."""
        found = {}
        for number, domain in enumerate(DOMAINS):
            image = batch[domain]["image"]
            keys = random.fold_in(random.example_keys(context.key, batch[domain]["position"]), number)
            if self.config.augment.enlarge is not None:
                image = augment.enlarge(image, random.fold_in(keys, 0), self.config.augment.enlarge)
            if self.config.augment.flip:
                image = augment.flip(image, random.fold_in(keys, 1))
            found[domain] = images.to_model(image)
        return found

    def terms(self, variables, real):
        """Return translated images by domain, and the terms of the generators' loss, per example [B], by name."""
        fake, terms, n = {}, {}, len(real["a"])
        for direction, (source, target) in self.directions.items():
            # What an image of the target is made into tells how much is changed without need.
            made = self.translate(variables, direction, jnp.concatenate([real[source], real[target]]))
            fake[target] = made[:n]
            terms[f"identity_{target}"] = distance(made[n:], real[target])
        for direction, (source, target) in self.directions.items():
            again = self.translate(variables, target + source, fake[target])
            terms[f"cycle_{source}"] = distance(again, real[source])
            logits = self.discriminate(variables, target, fake[target])
            terms[f"adversarial_{direction}"] = jnp.mean(self.criterion(logits, 1.0), (1, 2))
        return fake, terms

    def total(self, terms):
        """Return the generators' loss, eq. (3) and section 5.2 of the paper, per example [B]."""
        weights = {"adversarial": 1.0, "cycle": self.settings.cycle_weight}
        weights["identity"] = self.settings.cycle_weight * self.settings.identity_weight
        return sum(weights[name.partition("_")[0]] * term for name, term in terms.items())

    def generator_loss(self, variables, batch, context):
        """Be taken for real, come back to the image, and leave images of the target as they are.

        Both pools see the translations; what they answer is left for the discriminators.
        """
        fake, terms = self.terms(variables, self.real(batch, context))
        pools, shown = {}, {}
        for domain in DOMAINS:
            made = gather(fake[domain], batch[domain]["position"])
            key = jax.random.fold_in(context.key, stable_hash(domain))
            pools[domain], shown[domain] = exchange(variables.memory["pool"][domain], made, key)
        metrics = jax.tree.map(jnp.mean, {"generator_loss": self.total(terms), **terms})
        return metrics["generator_loss"], Result(metrics, memory={"pool": pools, "shown": shown})

    def discriminator_loss(self, variables, batch, context):
        """Tell real images from those that the pools gave, half as fast: each loss is halved."""
        real, losses = self.real(batch, context), {}
        for domain in DOMAINS:
            shown = variables.memory["shown"][domain][batch[domain]["position"]]
            logits = self.discriminate(variables, domain, jnp.concatenate([real[domain], shown]))
            on_real, on_shown = jnp.split(logits, 2)
            loss = 0.5 * (self.criterion(on_real, 1.0) + self.criterion(on_shown, 0.0))
            losses[f"discriminator_{domain}"] = jnp.mean(loss)
        return sum(losses.values()), Result(losses)

    def validate(self, variables, batch, keys):
        _, terms = self.terms(variables, {domain: images.to_model(batch[domain]["image"]) for domain in DOMAINS})
        return {"generator_loss": self.total(terms), **terms}


def distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean absolute difference of images [B, H, W, C]: [B]."""
    return jnp.mean(jnp.abs(x - y), (1, 2, 3))
