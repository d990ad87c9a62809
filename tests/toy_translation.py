"""A config and its task in one file: two sources, two networks with a joint gradient, a memory, and two stages."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import images
from gm_jax.defaults import base_config
from gm_jax.figures.grid import save_grid
from gm_jax.stages import Phase, Result, Stage
from gm_jax.step import gather
from gm_jax.tasks import TASKS
from gm_jax.tasks.task import Source, Task

TASKS["toy_translation"] = "tests.toy_translation:Translation"
POOL = 6  # translated images that the memory keeps


def get_config():
    config = base_config("toy_translation")
    config.dataset.name = "digits"
    config.steps, config.log_every, config.checkpoint_every, config.evaluate_every = 12, 4, 6, 6
    config.steps_per_call = 2
    config.batch_size = 4
    config.border = 6  # where the second stage begins
    config.evaluation.n = 10
    config.sampling.n = 4
    return config


class Translation(Task):
    """Linear maps between zeros (a) and ones (b); the second stage learns to be even on the pool's mean image, too."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.network = nn.Dense(28 * 28)

    def sources(self):
        data, test = self.config.dataset, self.config.evaluation.split
        return {name: Source(data.split, test, {"label": number}) for number, name in enumerate("ab")}

    def init(self, key):
        keys = jax.random.split(key)
        return {net: self.network.init(k, jnp.zeros((1, 28 * 28))) for net, k in zip(("ab", "ba"), keys, strict=True)}

    def init_memory(self, key):
        return {"pool": jnp.zeros((POOL, *self.spec.image_shape), jnp.uint8), "seen": jnp.int32(0)}

    def phases(self, stage=0):
        cycle = Phase("cycle", ("ab", "ba"), self.cycle_loss)
        return [cycle, Phase("pool", ("ba",), self.pool_loss, every=2)] if stage else [cycle]

    def stages(self):
        size = self.config.batch_size
        return [Stage(0, self.phases(0), size), Stage(self.config.border, self.phases(1), 2 * size, fresh=("ab",))]

    def translate(self, params, net, image):
        x = images.to_unit(image).reshape(len(image), -1)
        return jax.nn.sigmoid(self.network.apply({"params": params[net]}, x)).reshape(image.shape)

    def cycle_loss(self, variables, batch, context):
        """There and back again, both ways; what "ab" makes goes into the pool, the newest first."""
        loss, made = 0.0, {}
        for source, there, back in (("a", "ab", "ba"), ("b", "ba", "ab")):
            image = batch[source]["image"]
            made[source] = self.translate(variables.params, there, image)
            again = self.translate(variables.params, back, 255.0 * made[source])
            loss = loss + jnp.mean(jnp.square(again - images.to_unit(image)))
        new = gather(images.unit_to_uint8(made["a"]), batch["a"]["position"])
        pool = jnp.concatenate([new, variables.memory["pool"]])[:POOL]
        return loss, Result({"cycle": loss}, memory={"pool": pool, "seen": variables.memory["seen"] + len(new)})

    def pool_loss(self, variables, batch, context):
        old = self.translate(variables.params, "ba", variables.memory["pool"])
        loss = jnp.var(jnp.mean(old, 0)) * (1.0 + 0.1 * context.step)
        return loss, Result({"unevenness": loss})

    def validate(self, variables, batch, keys):
        errors = {}
        for source, there in (("a", "ab"), ("b", "ba")):
            made = self.translate(variables.params, there, batch[source]["image"])
            errors[f"changed_{source}"] = jnp.mean(jnp.abs(made - images.to_unit(batch[source]["image"])), (1, 2, 3))
        return {"loss": errors["changed_a"] + errors["changed_b"], **errors}

    def figures(self):
        return {"translated": self.draw_translated}

    def draw_translated(self, trained):
        made = self.translate(trained.variables.params, "ab", trained.examples(8)["a"]["image"])
        save_grid(trained.workdir.figures / "translated.png", images.unit_to_uint8(made), 8, trained.caption)
