"""Optimisers against their papers' formulas in NumPy, and every key of `config.optim` by what its comment says."""

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from gm_jax.defaults import base_config, gan_config
from gm_jax.defaults.table import check_config, flatten, ranges
from gm_jax.errors import UserError
from gm_jax.optim import ema_decays, learning_rate, make_optimizers
from gm_jax.stages import Phase
from tests.tiny import EXPERIMENTS, load

RNG = np.random.default_rng(0)
PARAMS = {"kernel": RNG.normal(size=(2, 3)).astype(np.float32), "bias": RNG.normal(size=3).astype(np.float32)}
GRADS = [{name: RNG.normal(size=p.shape).astype(np.float32) for name, p in PARAMS.items()} for _ in range(4)]
RATE = 0.1


def assert_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def settings(**changes):
    """A config whose `optim` has a learning rate of 0.1 and these changes."""
    config = base_config("classifier")
    config.optim.update({"learning_rate": RATE, **changes})
    return config


def ours(grads=GRADS, config=None, network="net", phases=(), updates_per_step=1, **changes):
    """Return PARAMS after an update with each of the gradients, so many in a step."""
    config = config or settings(**changes)
    check_config(config, ranges(config.task))
    transformation = make_optimizers(config, [network], phases)[network]
    params, state = PARAMS, transformation.init(PARAMS)
    for number, grad in enumerate(grads):
        updates, state = transformation.update(grad, state, params, step=number // updates_per_step)
        params = optax.apply_updates(params, updates)
    return params


def adam(grads, beta1, beta2, epsilon, decay=0.0, rate=RATE):
    """Kingma & Ba 2015, algorithm 1; decoupled decay of kernels as in Loshchilov & Hutter 2019, algorithm 2."""
    params = dict(PARAMS)
    for name in params:
        m = v = 0.0
        for t, grad in enumerate(grads, 1):
            m = beta1 * m + (1 - beta1) * grad[name]
            v = beta2 * v + (1 - beta2) * grad[name] ** 2
            step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
            params[name] = params[name] - rate * (step + (decay if name == "kernel" else 0.0) * params[name])
    return params


def sgd(grads, momentum, nesterov=False, decay=0.0):
    """Sutskever et al. 2013, as PyTorch's SGD: v = momentum v + g; nesterov steps along g + momentum v."""
    params = dict(PARAMS)
    for name in params:
        v = 0.0
        for grad in grads:
            g = grad[name] + (decay if name == "kernel" else 0.0) * params[name]
            v = momentum * v + g
            params[name] = params[name] - RATE * (g + momentum * v if nesterov else v)
    return params


def rmsprop(grads, decay, epsilon):
    params = dict(PARAMS)
    for name in params:
        square = 0.0
        for grad in grads:
            square = decay * square + (1 - decay) * grad[name] ** 2
            params[name] = params[name] - RATE * grad[name] / (np.sqrt(square) + epsilon)
    return params


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(name="adam"), adam(GRADS, 0.9, 0.999, 1e-8)),
        (dict(name="adam", beta1=0.5, beta2=0.9, epsilon=0.3), adam(GRADS, 0.5, 0.9, 0.3)),
        (dict(name="adamw", beta1=0.8, beta2=0.95, epsilon=0.2), adam(GRADS, 0.8, 0.95, 0.2)),
        (dict(name="adamw", weight_decay=0.5), adam(GRADS, 0.9, 0.999, 1e-8, decay=0.5)),
        (dict(name="sgd"), sgd(GRADS, 0.9)),
        (dict(name="sgd", beta1=0.0), sgd(GRADS, 0.0)),
        (dict(name="sgd", beta1=0.7, weight_decay=0.3), sgd(GRADS, 0.7, decay=0.3)),
        (dict(name="sgd", nesterov=True), sgd(GRADS, 0.9, nesterov=True)),
        (dict(name="rmsprop", beta2=0.9, epsilon=0.1), rmsprop(GRADS, 0.9, 0.1)),
        (dict(name="none"), PARAMS),
    ],
    ids=lambda x: "-".join(f"{k}={v}" for k, v in x.items()) if "name" in x else "",
)
def test_optimisers_are_those_of_the_papers(changes, expected):
    assert_close(ours(**changes), expected)


def test_gradients_are_clipped_to_a_norm_over_all_parameters():
    norm = float(np.sqrt(sum(np.sum(g**2) for g in GRADS[0].values())))
    assert norm > 1.0
    shorter = jax.tree.map(lambda g: g / norm, GRADS[0])
    clipped = ours(GRADS[:1], name="sgd", beta1=0.0, clip_norm=1.0)
    assert_close(clipped, sgd([shorter], 0.0))
    untouched = ours(GRADS[:1], name="sgd", beta1=0.0, clip_norm=1.01 * norm)
    assert_close(untouched, sgd(GRADS[:1], 0.0))


def test_weights_are_clipped_after_the_update():
    config = gan_config()
    config.optim.update({"name": "sgd", "learning_rate": RATE, "beta1": 0.0})
    config.optim.discriminator.clip_weights = 0.2
    found = ours(GRADS[:1], config, "discriminator")
    expected = jax.tree.map(lambda p, g: np.clip(p - RATE * g, -0.2, 0.2), PARAMS, GRADS[0])
    assert_close(found, expected)
    assert_close(ours(GRADS[:1], config, "generator"), sgd(GRADS[:1], 0.0))


def test_a_network_may_have_settings_of_its_own():
    config = gan_config()
    config.optim.update({"name": "sgd", "learning_rate": RATE, "beta1": 0.0, "ema_decay": 0.9})
    config.optim.generator.update({"learning_rate": 2 * RATE, "ema_decay": 0.5})
    twice = jax.tree.map(lambda g: 2 * g, GRADS[0])
    assert_close(ours(GRADS[:1], config, "generator"), sgd([twice], 0.0))
    assert_close(ours(GRADS[:1], config, "discriminator"), sgd(GRADS[:1], 0.0))
    assert ema_decays(config, ["generator", "discriminator"], 8) == {"generator": 0.5, "discriminator": 0.9}


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        (dict(decay="constant"), {0: 1.0, 99: 1.0}),
        (dict(decay="constant", warmup_steps=4), {0: 1 / 4, 1: 7 / 16, 2: 10 / 16, 4: 1.0, 5: 1.0}),
        (dict(decay="linear", decay_steps=10), {0: 1.0, 3: 0.7, 9: 0.1, 10: 0.0, 11: 0.0}),
        (dict(decay="linear", decay_steps=10, warmup_steps=2), {0: 1 / 2, 2: 1.0, 4: 0.75, 10: 0.0}),
        (dict(decay="cosine", decay_steps=8), {0: 1.0, 2: (1 + np.sqrt(0.5)) / 2, 4: 0.5, 8: 0.0, 9: 0.0}),
        (dict(decay="linear", decay_steps=10, hold_steps=6), {0: 1.0, 6: 1.0, 7: 0.75, 9: 0.25, 10: 0.0}),
        (
            dict(decay="cosine", decay_steps=12, hold_steps=4, warmup_steps=2),
            {1: 3 / 4, 2: 1.0, 4: 1.0, 8: 0.5, 12: 0.0},
        ),
        (dict(decay="linear", decay_steps=10, hold_steps=1, warmup_steps=2), {0: 1 / 2, 2: 1.0, 4: 0.75, 10: 0.0}),
        (dict(decay="cosine", decay_steps=10, warmup_steps=2), {1: 3 / 4, 2: 1.0, 6: 0.5, 10: 0.0}),
    ],
)
def test_learning_rates_warm_up_and_decay(changes, rates):
    """Warm-up is linear from peak / warmup_steps; the decay begins at hold_steps and ends at decay_steps."""
    schedule = learning_rate(settings(**changes).optim)
    for step, share in rates.items():
        np.testing.assert_allclose(schedule(step), RATE * share, atol=1e-7)


@pytest.mark.parametrize(("updates_per_step", "shares"), [(1, (1, 3 / 4, 2 / 4, 1 / 4)), (2, (1, 1, 3 / 4, 3 / 4))])
def test_the_learning_rate_reaches_the_optimiser(updates_per_step, shares):
    """It decays within four steps, however many updates there are in each; all of a step have one rate."""
    found = ours(name="sgd", beta1=0.0, decay="linear", decay_steps=4, updates_per_step=updates_per_step)
    weighted = [jax.tree.map(lambda g, w=w: w * g, grad) for w, grad in zip(shares, GRADS, strict=True)]
    assert_close(found, sgd(weighted, 0.0))


@pytest.mark.parametrize(
    ("often", "lazy", "share"),
    [
        ({}, {"every": 4}, 4 / 5),  # k / (k + 1)
        ({"repeats": 2}, {"every": 4}, 8 / 9),  # eight regular updates in four steps, and one lazy one
        ({}, {"every": 4, "nets": ("other",)}, 1.0),
        ({}, {"every": 1}, 1.0),
        ({"every": 4}, {"every": 2}, 1.0),  # no regular updates to be corrected
    ],
)
def test_rate_and_betas_allow_for_lazy_phases(often, lazy, share):
    """Karras et al. 2020, appendix B: rate' = c rate, beta' = beta^c, so that k + 1 updates do what k did."""

    def phase(name, **settings):
        return Phase(**{"name": name, "nets": ("other", "net"), "loss": None, **settings})

    phases = [phase("often", **often), phase("lazy", **lazy)]
    changes = dict(name="adam", beta1=0.5, beta2=0.9)
    found = ours(phases=phases, lazy_correction=True, **changes)
    assert_close(found, adam(GRADS, 0.5**share, 0.9**share, 1e-8, rate=share * RATE))
    assert_close(ours(phases=phases, **changes), adam(GRADS, 0.5, 0.9, 1e-8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(name="adm"), r"optim.name='adm' is not one of adam.*\(did you mean 'adam'\?\)"),
        (dict(name="adam", weight_decay=0.1), "optim.name=adam ignores optim.weight_decay: use adamw or sgd"),
        (dict(decay="cosine"), "optim.decay=cosine needs optim.decay_steps above warmup_steps=0"),
        (dict(decay="linear", decay_steps=5, warmup_steps=5), "needs optim.decay_steps above warmup_steps=5"),
        (dict(decay="exponential", decay_steps=9), "optim.decay='exponential' is not one of constant, cosine, linear"),
    ],
)
def test_settings_that_cannot_be_are_told(changes, message):
    with pytest.raises(UserError, match=message):
        ours(**changes)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_of_the_average_is_below_one(decay):
    """That of all networks, and that of one."""
    config = gan_config()
    config.optim.ema_decay = config.optim.generator.ema_decay = 0.0
    check_config(config, ranges("gan"))
    assert ema_decays(config, ["generator"], 8) == {"generator": 0.0}
    for group, name in ((config.optim, "optim"), (config.optim.generator, "optim.generator")):
        group.ema_decay = decay
        with pytest.raises(UserError, match=rf"^{name}.ema_decay={decay} is not in \[0, 1\)"):
            check_config(config, ranges("gan"))
        group.ema_decay = None


def test_an_average_may_forget_a_half_in_so_many_images():
    """Whatever their batches: then it counts, and not the decay of a step."""
    config = gan_config()
    config.optim.ema_decay = 0.9
    config.optim.generator.ema_half_life = 1000.0
    for batch_size in (8, 125):
        decays = ema_decays(config, ["generator", "discriminator"], batch_size)
        assert decays["generator"] ** (1000 / batch_size) == pytest.approx(0.5) and decays["discriminator"] == 0.9


def test_a_stage_multiplies_all_rates():
    config = gan_config()
    config.optim.update({"name": "sgd", "learning_rate": RATE, "beta1": 0.0})
    optimizer = make_optimizers(config, ["generator"], rate=3.0)["generator"]
    updates, _ = optimizer.update(GRADS[0], optimizer.init(GRADS[0]), GRADS[0], step=0)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -3.0 * RATE * g, rtol=1e-6), updates, GRADS[0])


def test_every_config_updates_by_its_own_optimisers():
    """Shrunk as they train in test_configs.py, some have common ones."""
    for experiment in EXPERIMENTS:
        config = load(experiment)
        for key, epochs in flatten(config.epochs).items():
            config.update_from_flattened_dict({key: round(1000 * epochs)})
        networks = [name for name, value in config.optim.items() if isinstance(value, ConfigDict)] or ["net"]
        assert all(decay is None or 0.0 < decay < 1.0 for decay in ema_decays(config, networks, 100).values())
        for optimizer in make_optimizers(config, networks).values():
            updates, _ = optimizer.update(GRADS[0], optimizer.init(PARAMS), PARAMS, step=config.steps // 2)
            assert all(np.all(np.isfinite(u)) and np.any(u) != (config.optim.name == "none") for u in updates.values())
