"""CycleGAN (Zhu et al. 2017): translation between two sets of images, a and b, without pairs.

Networks: generators "ab" and "ba", discriminators "a" and "b", each with an optimiser of its own. A step first updates
both generators by one joint gradient, against the discriminators of the step before; then both discriminators, which
see the translations that the generators made before their update, after these have passed through a pool. Images are
in [-1, 1].
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gm_jax import images, random
from gm_jax.data.augment import flip, window
from gm_jax.errors import UserError, nearest
from gm_jax.losses.adversarial import make_adversarial
from gm_jax.losses.diffusion import per_example
from gm_jax.metrics import diversity
from gm_jax.models.cyclegan import PatchGAN, ResidualGenerator
from gm_jax.models.keywords import accepted, check_keywords
from gm_jax.program import IMAGES, Program, image_input
from gm_jax.stages import Phase, Result
from gm_jax.step import gather
from gm_jax.tasks.cyclegan_figures import TranslationFigures
from gm_jax.tasks.pool import empty_pool, query
from gm_jax.tasks.task import DataSpec, Source

DIRECTIONS = {"ab": ("a", "b"), "ba": ("b", "a")}  # generator: from, to


class CycleGAN(TranslationFigures):
    """Two sources, four networks, two phases, and a pool of translations for each domain."""

    monitor = ("energy_score", "min")

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings = config.cyclegan
        self.game = make_adversarial(config.cyclegan.loss)
        # The paper's least squares are not halved, as those of Mao et al. are.
        self.scale = 2.0 if config.cyclegan.loss == "least_squares" else 1.0
        for group, module in (("generator", ResidualGenerator), ("discriminator", PatchGAN)):
            check_keywords("cyclegan", config.model[group], accepted([module], ("channels",)), group=f"{group}.")
        self.generator = ResidualGenerator(channels=spec.image_shape[2], **config.model.generator)
        self.discriminator = PatchGAN(**config.model.discriminator)
        self.size = (self.settings.crop,) * 2 if self.settings.crop else spec.image_shape[:2]
        check_size(self.size, spec.image_shape, self.settings.crop, self.discriminator.layers)
        self.members = {name: membership(config.domains[name], spec) for name in "ab"}

    def sources(self):
        return {
            name: Source(domain.split, domain.test, self.members[name])
            for name, domain in ((name, self.config.domains[name]) for name in "ab")
        }

    def init(self, key):
        x = jnp.zeros((1, *self.size, self.spec.image_shape[2]))
        networks = {"ab": self.generator, "ba": self.generator, "a": self.discriminator, "b": self.discriminator}
        keys = jax.random.split(key, len(networks))
        return {name: network.init(k, x) for (name, network), k in zip(networks.items(), keys, strict=True)}

    def networks(self, variables):
        modules = {"ab": self.generator, "ba": self.generator, "a": self.discriminator, "b": self.discriminator}
        return {net: (module, variables.of(net)) for net, module in modules.items()}

    def init_memory(self, key):
        shape = (*self.size, self.spec.image_shape[2])
        shown = jnp.zeros((self.config.batch_size, *shape))
        return {name: {"pool": empty_pool(self.settings.pool, shape), "shown": shown} for name in "ab"}

    def phases(self, stage=0):
        return [
            Phase("generators", ("ab", "ba"), self.generators_loss),
            Phase("discriminators", ("a", "b"), self.discriminators_loss, noise_of="generators"),
        ]

    def inputs(self, batch, key):
        """Return the images of both domains as the networks see them in training: cut out and mirrored at random."""
        keys = jax.random.split(key, 2)
        return {name: self.augmented(batch[name], k) for name, k in zip("ab", keys, strict=True)}

    def augmented(self, batch, key):
        keys, x = random.example_keys(key, batch["position"]), batch["image"]
        if self.settings.crop:
            x = window(x, random.fold_in(keys, 0), self.settings.crop)
        if self.settings.flip:
            x = flip(x, random.fold_in(keys, 1))
        return images.to_model(x)

    def translate(self, params, net, x):
        """Return what a generator makes of images [B, H, W, C]."""
        return self.generator.apply({"params": params[net]}, x)

    def discriminate(self, params, net, x):
        """Return the logits [B, H', W'] of a discriminator."""
        return self.discriminator.apply({"params": params[net]}, x)

    def generators_loss(self, variables, batch, context):
        """The paper's eq. (3), and the identity loss of its section 5.2, both ways; translations go into the pools."""
        input_key, pool_key = jax.random.split(context.key)
        real, params = self.inputs(batch, input_key), variables.params
        cycle, identity = self.settings.cycle, self.settings.identity * self.settings.cycle
        loss, metrics, memory = 0.0, {}, {}
        for net, (source, target) in DIRECTIONS.items():
            # One pass for both: no layer mixes examples.
            given = [real[source], real[target]] if identity else [real[source]]
            made, *same = jnp.split(self.translate(params, net, jnp.concatenate(given)), len(given))
            again = self.translate(params, net[::-1], made)
            terms = {
                f"gan_{net}": self.scale * jnp.mean(self.game.generator(self.discriminate(params, target, made))),
                f"cycle_{source}": cycle * jnp.mean(jnp.abs(again - real[source])),
                **{f"identity_{target}": identity * jnp.mean(jnp.abs(x - real[target])) for x in same},
            }
            loss = loss + sum(terms.values())
            metrics |= terms
            whole = gather(jax.lax.stop_gradient(made), batch[source]["position"])
            key = jax.random.fold_in(pool_key, ord(target))
            shown, pool = query(variables.memory[target]["pool"], whole, key)
            memory[target] = {"pool": pool, "shown": shown}
        return loss, Result(metrics, memory=memory)

    def discriminators_loss(self, variables, batch, context):
        """Half of what each discriminator loses on real images and on those that the pool has shown it."""
        real = self.inputs(batch, jax.random.split(context.key)[0])
        loss, metrics = 0.0, {}
        for name in "ab":
            shown = variables.memory[name]["shown"][batch[name]["position"]]
            on_real, on_fake = jnp.split(
                self.discriminate(variables.params, name, jnp.concatenate([real[name], shown])), 2
            )
            term = 0.5 * self.scale * jnp.mean(self.game.real(on_real, 1.0) + self.game.fake(on_fake))
            loss = loss + term
            metrics[f"discriminator_{name}"] = term
        return loss, Result(metrics)

    def validate(self, variables, batch, keys):
        """Return by domain how far images are from coming back, how far those of the domain already are changed, and
        the energy score of the translations into it.

        Distances are means of absolute differences in [-1, 1]. The second translation that an energy score needs is the
        neighbour's on the same device, so the score depends a little on how examples are dealt out to the devices.
        """
        real = {name: self.centre(batch[name]["image"]) for name in "ab"}
        scores = {}
        for net, (source, target) in DIRECTIONS.items():
            made = self.translate(variables.params, net, real[source])
            again = self.translate(variables.params, net[::-1], made)
            same = self.translate(variables.params, net, real[target])
            scores[f"cycle_{source}"] = per_example(jnp.abs(again - real[source]))
            scores[f"identity_{target}"] = per_example(jnp.abs(same - real[target]))
            scores[f"energy_{net}"] = diversity.energy_score(real[target], made, jnp.roll(made, 1, 0))
        return {"energy_score": scores["energy_ab"] + scores["energy_ba"], **scores}

    def centre(self, x):
        """Return the middle of images, as large as the networks were trained on, in [-1, 1]."""
        top, left = ((whole - part) // 2 for whole, part in zip(x.shape[1:3], self.size, strict=True))
        return images.to_model(x[:, top : top + self.size[0], left : left + self.size[1]])

    def render(self, net, variables, batch, keys):
        """Return what a generator makes of images of any size that it takes, uint8."""
        return images.to_uint8(self.translate(variables.params, net, images.to_model(batch["image"])))

    def there_and_back(self, net, variables, batch, keys):
        """Return "input", "made" and "again" of images, uint8, for a generator."""
        x = self.centre(batch["image"])
        made = self.translate(variables.params, net, x)
        again = self.translate(variables.params, net[::-1], made)
        return {"input": images.to_uint8(x), "made": images.to_uint8(made), "again": images.to_uint8(again)}

    def programs(self):
        def translator(net):
            def translate(variables, batch, keys):
                return {"images": self.render(net, variables, batch, keys)}

            source, target = (self.describe_domain(name) for name in DIRECTIONS[net])
            inputs = {"image": image_input((*self.size, self.spec.image_shape[2]))}
            return Program(translate, inputs, {"images": f"{source} as {target}: {IMAGES}"})

        return {f"translate_{net}": translator(net) for net in DIRECTIONS}

    def modes(self):
        from gm_jax.translate import translate

        return {"translate": functools.partial(translate, self)}


def membership(domain: ConfigDict, spec: DataSpec) -> dict[str, int]:
    """Return which examples belong to a domain, as `Source.where`.

    Raises:
        UserError: the data have no such attribute or no such value of it.
    """
    if domain.attribute is None:
        return {}
    known = {"label": spec.label_names, **spec.attribute_names}
    if domain.attribute not in known:
        raise UserError(
            f"domains: the data have no attribute {domain.attribute!r}{nearest(domain.attribute, known)}: "
            f"{', '.join(known)}"
        )
    values = known[domain.attribute]
    if domain.value not in values:
        raise UserError(
            f"domains: {domain.attribute} is never {domain.value!r}{nearest(str(domain.value), values)}: "
            f"{', '.join(values)}"
        )
    return {domain.attribute: values.index(domain.value)}


def check_size(size: tuple[int, int], image_shape: tuple[int, int, int], crop: int | None, layers: int) -> None:
    """Raise UserError if the networks cannot take images of that size, or images cannot give such parts."""
    if crop is not None and crop > min(image_shape[:2]):
        raise UserError(f"cyclegan.crop={crop} is larger than the images of {image_shape[0]}x{image_shape[1]}")
    if any(side % 4 for side in size) or min(size) < max(8, 2 ** (layers + 2)):
        raise UserError(
            f"CycleGAN's networks take sides divisible by 4, of {max(8, 2 ** (layers + 2))} pixels at least, not "
            f"{size[0]}x{size[1]}: set dataset.image_size, cyclegan.crop or model.discriminator.layers"
        )
