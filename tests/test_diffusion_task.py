"""The diffusion task: labels, guidance and the loss of eq. (4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import images, random
from gm_jax.errors import UserError
from gm_jax.samplers.schedules import diffuse
from gm_jax.tasks import DataSpec, make_task
from tests.tiny import shrunk

LABELLED = DataSpec((28, 28, 1), tuple("0123456789"))


def shaken(task):
    """Parameters without the zeros that networks start with."""
    leaves, tree = jax.tree.flatten(jax.jit(task.init)(jax.random.key(0))["denoiser"]["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return {"denoiser": jax.tree.unflatten(tree, noisy)}


def test_guidance_runs_from_unconditional_over_conditional_onwards():
    task = make_task(shrunk("ddpm_mnist"), LABELLED)
    params, label, t = shaken(task), jnp.array([3, 5]), jnp.array([9, 9])
    x_t = jax.random.normal(jax.random.key(2), (2, 28, 28, 1))

    def guided(guidance, label):
        task.config.sampling.guidance = guidance
        return np.asarray(jax.jit(task.denoise)(params, label, x_t, t))

    given, free = guided(1.0, label), guided(0.0, label)
    assert np.abs(given - free).max() > 1e-3
    np.testing.assert_allclose(free, guided(1.0, jnp.full(2, task.classes)), atol=1e-5)
    np.testing.assert_allclose(guided(2.5, label), free + 2.5 * (given - free), atol=1e-4)


def test_loss_is_equation_4():
    config = shrunk("ddpm_mnist", diffusion__prediction="noise", diffusion__objective="noise")
    task = make_task(config, DataSpec((28, 28, 1)))  # no labels: unconditional
    params, key = shaken(task), jax.random.key(3)
    batch = {"image": jnp.arange(8 * 784, dtype=jnp.uint8).reshape(8, 28, 28, 1), "position": jnp.arange(8)}
    loss, (metrics, _) = jax.jit(task.loss)(params, {}, batch, key)
    step_key, noise_key, *_ = jax.random.split(key, 4)
    t = 1 + np.floor(20 * np.asarray(random.stratified(step_key, batch["position"], 8))).astype(int)
    epsilon = random.normal(random.example_keys(noise_key, batch["position"]), (28, 28, 1))
    x_t = diffuse(task.schedule, images.to_model(batch["image"]), t, epsilon)
    output = jax.jit(task.network.apply)({"params": params["denoiser"]}, x_t, t)
    np.testing.assert_allclose(loss, np.mean((np.asarray(epsilon) - output) ** 2), rtol=1e-4)
    assert metrics["loss"] == loss


def test_data_without_labels_make_an_unconditional_model_and_a_label_a_mistake():
    assert make_task(shrunk("ddpm_mnist"), DataSpec((28, 28, 1))).classes == 0
    with pytest.raises(UserError, match=r"sampling.label=3 is not one of the 0 classes"):
        make_task(shrunk("ddpm_mnist", sampling__label=3), DataSpec((28, 28, 1)))
