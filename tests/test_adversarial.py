"""The parts of GANs: losses, penalties, spectral norm, augmentation, sameness of samples, latent arithmetic, judges."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from gm_jax import random
from gm_jax.data import shapes
from gm_jax.errors import UserError
from gm_jax.figures import arithmetic, curves
from gm_jax.figures.grid import save_animation, save_grid
from gm_jax.judge import Judge, count_classes
from gm_jax.layers import diff_augment
from gm_jax.layers.conv import Conv
from gm_jax.layers.spectral_norm import SpectralNorm, power_iteration
from gm_jax.losses import penalties
from gm_jax.losses.adversarial import LOSSES, make_adversarial
from gm_jax.metrics import diversity
from gm_jax.models.dcgan import Discriminator
from gm_jax.optim import make_optimizers
from tests.tiny import shrunk
from tests.toys import CAPTION

RNG = np.random.default_rng(0)
LOGITS = np.array([-3.0, -0.5, 0.0, 0.7, 4.0])


def keys(n, seed=0):
    return random.example_keys(jax.random.key(seed), jnp.arange(n))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize(
    ("name", "real", "fake", "generator"),
    [
        ("minimax", -np.log(sigmoid(LOGITS)), -np.log(1 - sigmoid(LOGITS)), np.log(1 - sigmoid(LOGITS))),
        ("non_saturating", -np.log(sigmoid(LOGITS)), -np.log(1 - sigmoid(LOGITS)), -np.log(sigmoid(LOGITS))),
        ("wasserstein", -LOGITS, LOGITS, -LOGITS),
        ("hinge", np.maximum(0, 1 - LOGITS), np.maximum(0, 1 + LOGITS), -LOGITS),
        ("least_squares", (LOGITS - 1) ** 2 / 2, LOGITS**2 / 2, (LOGITS - 1) ** 2 / 2),
    ],
)
def test_losses_are_those_of_the_papers(name, real, fake, generator):
    game = make_adversarial(name)
    np.testing.assert_allclose(game.real(LOGITS, 1.0), real, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(game.fake(LOGITS), fake, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(game.generator(LOGITS), generator, rtol=1e-5, atol=1e-7)
    assert np.all(np.isfinite(game.real(np.array([-1e4, 1e4]), 1.0)))


def test_a_sure_discriminator_teaches_the_non_saturating_generator_alone():
    slopes = {name: float(jax.grad(LOSSES[name].generator)(-10.0)) for name in ("minimax", "non_saturating")}
    assert abs(slopes["minimax"]) < 1e-4 and abs(slopes["non_saturating"]) > 0.99


def test_smoothed_targets():
    d = sigmoid(LOGITS)
    expected = -0.9 * np.log(d) - 0.1 * np.log(1 - d)
    np.testing.assert_allclose(LOSSES["non_saturating"].real(LOGITS, 0.9), expected, rtol=1e-5)
    np.testing.assert_allclose(LOSSES["least_squares"].real(LOGITS, 0.9), (LOGITS - 0.9) ** 2 / 2, rtol=1e-5)
    assert {name for name, game in LOSSES.items() if game.targets} == {"minimax", "non_saturating", "least_squares"}


def test_an_unknown_loss_is_told():
    with pytest.raises(UserError, match=r"gan.loss='hing' is not one of .* \(did you mean 'hinge'\?\)"):
        make_adversarial("hing")


def test_penalties_of_a_quadratic_critic():
    real, fake = RNG.normal(size=(2, 5, 3, 2, 1))
    share = RNG.uniform(size=5)

    def critic(x):
        return 0.5 * jnp.sum(jnp.square(x).reshape(len(x), -1), axis=1)  # whose slope is x

    between = share[:, None, None, None] * real + (1 - share[:, None, None, None]) * fake
    expected = (np.sqrt((between**2).sum((1, 2, 3))) - 1) ** 2
    penalty = jax.jit(penalties.gradient_penalty, static_argnums=0)
    np.testing.assert_allclose(penalty(critic, real, fake, share), expected, rtol=1e-4)
    np.testing.assert_allclose(penalties.r1(critic, real), 0.5 * (real**2).sum((1, 2, 3)), rtol=1e-4)
    slope = jax.grad(lambda w: penalty(lambda x: w * jnp.sum(x, (1, 2, 3)), real, fake, share).sum())
    assert np.isfinite(slope(0.0))  # a critic that is still flat


@pytest.mark.parametrize("penalty", ["gradient_penalty", "r1"])
def test_gradients_of_penalties_are_second_derivatives(penalty):
    """Along a random direction in the parameters of a critic with convolutions and spectral norm."""
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=(2, 3, 8, 8, 1)))
        network = Discriminator(
            width=2, multipliers=(1, 2), strides=(2, 2), kernels=(4, 4), batch_norm=False, spectral_norm=True
        )
        variables = jax.jit(network.init)(jax.random.key(0), x[0])
        leaves, tree = jax.tree.flatten(jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), variables.pop("params")))
        starts = [jnp.asarray(RNG.normal(size=p.shape)) for p in leaves]
        direction = [jnp.asarray(RNG.normal(size=p.shape)) for p in leaves]

        def loss(leaves):
            def critic(images):
                return network.apply({"params": jax.tree.unflatten(tree, leaves), **variables}, images)

            if penalty == "r1":
                return jnp.mean(penalties.r1(critic, x[0]))
            return jnp.mean(penalties.gradient_penalty(critic, x[0], x[1], jnp.array([0.2, 0.5, 0.9])))

        # The fixed vectors of the power iteration must be exact, or sigma's derivative is not that of v^T W u.
        params = {"params": jax.tree.unflatten(tree, starts)}
        iterate = jax.jit(lambda state: network.apply({**params, **state}, x[0], train=True, mutable=["spectral"])[1])
        for _ in range(50):
            variables = iterate(variables)
        run = jax.jit(jax.value_and_grad(loss))
        step = 1e-5
        ends = [run([p + sign * step * d for p, d in zip(starts, direction, strict=True)])[0] for sign in (1, -1)]
        slope = sum(np.sum(g * d) for g, d in zip(run(starts)[1], direction, strict=True))
        assert abs(slope) > 1e-3
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("layer", [nn.Dense(5, name="layer"), Conv(5, 3, name="layer")], ids=["dense", "conv"])
def test_spectral_norm_converges_to_the_largest_singular_value(layer):
    x = RNG.normal(size=(2, 4, 4, 6)).astype(np.float32)
    network = SpectralNorm(layer)
    variables = jax.jit(network.init, static_argnums=2)(jax.random.key(0), x, False)
    kernel = variables["params"]["layer"]["kernel"]
    sigma = np.linalg.svd(np.asarray(kernel).reshape(-1, 5), compute_uv=False)[0]
    plain = layer.apply({"params": variables["params"]["layer"]}, x)
    apply = jax.jit(lambda v: network.apply(v, x, True, mutable=["spectral"]))
    first = variables["spectral"]["u"]
    for _ in range(100):
        y, state = apply(variables)
        variables = {**variables, **state}
    np.testing.assert_allclose(y, plain / sigma, rtol=1e-3, atol=1e-5)
    assert np.abs(first - variables["spectral"]["u"]).max() > 0.01
    still, state = network.apply(variables, x, False, mutable=["spectral"])
    np.testing.assert_array_equal(state["spectral"]["u"], variables["spectral"]["u"])
    np.testing.assert_allclose(still, y, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_sigma_is_that_of_the_singular_value():
    matrix = RNG.normal(size=(7, 4)).astype(np.float32)
    left, values, right = np.linalg.svd(matrix)
    sigma, gradient = jax.value_and_grad(lambda w: power_iteration(w, jnp.asarray(right[0]))[0])(matrix)
    np.testing.assert_allclose(sigma, values[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, np.outer(left[:, 0], right[0]), atol=1e-5)


def test_translation_moves_whole_images_and_fills_with_grey():
    x = RNG.uniform(0.1, 1.0, size=(200, 16, 8, 3)).astype(np.float32)
    moved, found = np.asarray(diff_augment.translation(x, RNG.uniform(size=(200, 2)))), set()
    padded = np.pad(x, ((0, 0), (2, 2), (1, 1), (0, 0)))
    for image, source in zip(moved, padded, strict=True):
        shifts = [
            (i, j) for i in range(5) for j in range(3) if np.allclose(source[i : i + 16, j : j + 8], image, atol=1e-6)
        ]
        assert len(shifts) == 1
        found.update(shifts)
    assert len(found) == 15


def test_cutout_blanks_a_square_of_half_the_side():
    holes = (
        np.asarray(diff_augment.cutout(np.ones((100, 12, 12, 1), np.float32), RNG.uniform(size=(100, 2))))[..., 0]
        == 0.0
    )
    assert holes.sum((1, 2)).max() == 36 and holes.sum((1, 2)).min() >= 9
    for hole in holes:
        assert np.array_equal(hole, np.outer(hole.any(1), hole.any(0)))


def test_colour_changes_brightness_saturation_and_contrast():
    x = RNG.uniform(-1, 1, size=(300, 6, 6, 3)).astype(np.float32)
    y = np.asarray(diff_augment.colour(x, RNG.uniform(size=(300, 3))))
    brightness = y.mean((1, 2, 3)) - x.mean((1, 2, 3))
    assert -0.5 <= brightness.min() < -0.4 and 0.4 < brightness.max() <= 0.5

    def grey(x):  # without its colour
        return x.mean(3) - x.mean((1, 2, 3))[:, None, None]

    def chroma(x):
        return x - x.mean(3, keepdims=True)

    contrast = (grey(y) * grey(x)).sum((1, 2)) / (grey(x) ** 2).sum((1, 2))
    both = (chroma(y) * chroma(x)).sum((1, 2, 3)) / (chroma(x) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(grey(y), contrast[:, None, None] * grey(x), atol=1e-5)
    np.testing.assert_allclose(chroma(y), both[:, None, None, None] * chroma(x), atol=1e-5)
    assert 0.5 <= contrast.min() < 0.6 and 1.4 < contrast.max() <= 1.5
    assert -1e-6 <= (both / contrast).min() < 0.1 and 1.9 < (both / contrast).max() <= 2.0 + 1e-5


def test_augmentation_is_differentiable_and_a_function_of_key_and_place():
    x = RNG.uniform(-1, 1, size=(8, 8, 8, 3)).astype(np.float32)
    names = ("cutout", "colour", "translation")
    augment = jax.jit(lambda x, keys: diff_augment.augment(x, keys, names))
    np.testing.assert_allclose(augment(x[3:], keys(8)[3:]), augment(x, keys(8))[3:], atol=1e-6)
    np.testing.assert_array_equal(diff_augment.augment(x, keys(8), ()), x)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(augment(x, keys(8))))))(x)
    assert np.all(np.abs(slope).max((1, 2, 3)) > 0.01)
    with pytest.raises(UserError, match=r"gan.augment has 'color', .* \(did you mean 'colour'\?\)"):
        diff_augment.check(("color",))


def test_wgan_updates_are_those_of_pytorchs_rmsprop_and_then_clipped():
    """Critics of clipped weights have tiny gradients: epsilon must not stand below the root with them."""
    config = shrunk("wgan_mnist", optim__learning_rate=1e-3, optim__warmup_steps=0)
    w, g = np.array([-0.3, 0.005, 0.0, 0.0099]), np.array([0.0, 1e-5, 1e-6, -1e-4])
    optimizer = make_optimizers(config, ["discriminator"])["discriminator"]
    tree, state, square = {"w": jnp.asarray(w)}, optimizer.init({"w": jnp.asarray(w)}), np.zeros(4)
    for step in range(2):
        updates, state = optimizer.update({"w": jnp.asarray(g)}, state, tree, step=step)
        tree = optax.apply_updates(tree, updates)
        square = 0.99 * square + 0.01 * g**2
        w = np.clip(w - 1e-3 * g / (np.sqrt(square) + 1e-8), -0.01, 0.01)
    np.testing.assert_allclose(tree["w"], w, atol=1e-6)
    assert w[0] == -0.01 and w[3] == 0.01


def test_quality_is_drawn_over_the_loss_that_training_logs(tmp_path, monkeypatch):
    """Held-out losses rise with the score, those of training fall: these count."""
    lines = []
    for step in range(1, 5):
        lines.append({"step": step, "split": "train", "loss": -step})
        lines.append({"step": step, "split": "test", "loss": step, "score": step**2})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen = []
    monkeypatch.setattr(curves, "save_figure", lambda path, figure, caption: seen.append(figure.axes[0].get_title()))
    curves.save_relation(tmp_path / "a.png", tmp_path / "metrics.jsonl", ("loss", "score"), CAPTION)
    assert seen == ["rank correlation -1.00, n = 4"]


def test_similar_pairs_are_counted_in_both_orders():
    x = RNG.normal(size=(20, 3, 3, 1))
    x[4] = 2.0 * x[7]  # as similar as can be
    cosines = [
        np.dot(x[i].ravel(), x[j].ravel()) / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
        for i in range(20)
        for j in range(20)
        if i != j
    ]
    count, mean = diversity.similar_pairs(x, 0.5)
    assert count == np.sum(np.array(cosines) > 0.5) >= 2
    np.testing.assert_allclose(mean, np.mean(cosines))
    assert diversity.similar_pairs(np.ones((5, 2, 2, 1)), 0.9) == (20, pytest.approx(1.0))
    np.testing.assert_allclose(diversity.cosine_similarity(x[:19], x[1:])[3], cosines[3 * 19 + 3], rtol=1e-5)


def test_energy_score_is_lowest_for_the_distribution_of_the_data():
    def score(draw, n=4000):
        rng = np.random.default_rng(1)
        real = rng.normal(size=(n, 2, 1, 1))
        return float(np.mean(diversity.energy_score(real, draw(rng, n), draw(rng, n))))

    def gaussian(mean, scale):
        return lambda rng, n: mean + scale * rng.normal(size=(n, 2, 1, 1))

    best = score(gaussian(0.0, 1.0))
    assert best + 0.02 < min(score(gaussian(0.0, 0.5)), score(gaussian(0.0, 2.0)), score(gaussian(0.7, 1.0)))
    np.testing.assert_allclose(best, np.sqrt(np.pi) / 2 / np.sqrt(2), atol=0.02)  # E|x - y| / 2 of two dimensions


def drawn(codes):
    """Images of the shapes whose attributes are the largest numbers in each block of codes [n, 15]."""
    blocks = np.split(codes, np.cumsum([len(names) for names in shapes.ATTRIBUTES.values()])[:-1], axis=1)
    attributes = {name: block.argmax(1) for name, block in zip(shapes.ATTRIBUTES, blocks, strict=True)}
    images = np.empty((len(codes), 32, 32, 3), np.uint8)
    shapes.draw(images, attributes, shapes.place(attributes, np.zeros((len(codes), 4))))
    return images


ATTRIBUTES = list(shapes.ATTRIBUTES.values())
SHAPE_JUDGE = Judge("the reader", ATTRIBUTES, shapes.read)


@pytest.mark.parametrize("side", [32, 64])
def test_shapes_are_read_exactly(side):
    attributes, geometry = shapes.describe("test", 300)
    images = np.empty((300, side, side, 3), np.uint8)
    shapes.draw(images, attributes, geometry)
    said = shapes.read(images)
    for name, names in shapes.ATTRIBUTES.items():
        assert np.mean([names[value] in words for value, words in zip(attributes[name], said, strict=True)]) > 0.99


def test_the_reader_accepts_what_is_drawn_and_no_two_shapes_nor_other_colours():
    """Of any size that blocks of pixels make 32; squares left and right of each other are no square."""
    attributes, geometry = shapes.describe("test", 300)
    images = np.empty((300, 64, 64, 3), np.uint8)
    shapes.draw(images, attributes, geometry)
    assert shapes.accepted(images).all()
    large = np.flatnonzero(attributes["size"] == 1)
    left, right = (images[large[attributes["horizontal"][large] == side]][:20] for side in (0, 1))
    assert not shapes.accepted(np.minimum(left, right)).any()
    grey = np.repeat(np.uint8(images[large].mean(-1, keepdims=True)), 3, -1)
    assert not shapes.accepted(grey).any()
    assert not shapes.accepted(np.full((2, 32, 32, 3), 235, np.uint8)).any()


def test_red_circle_minus_circle_plus_square_is_a_red_square(tmp_path):
    """With a generator that draws exactly what its latent says."""
    codes = np.concatenate([np.eye(n)[RNG.integers(0, n, 300)] for n in map(len, shapes.ATTRIBUTES.values())], axis=1)
    terms = arithmetic.parse("red circle - circle + square")
    assert [(term.sign, term.words) for term in terms] == [(1, ("red", "circle")), (-1, ("circle",)), (1, ("square",))]
    assert arithmetic.wanted(terms) == {"red", "square"}
    descriptions = shapes.read(drawn(codes))
    solved, choices = arithmetic.solve(terms, codes, descriptions, ATTRIBUTES)
    assert len(choices) == arithmetic.ROWS
    rest = {word for name in ("size", "horizontal", "vertical") for word in shapes.ATTRIBUTES[name]}
    for row in range(len(choices)):
        assert {"red", "square"} <= shapes.read(drawn(solved[row, -1:]))[0]
        assert len({descriptions[i] & rest for numbers in choices[row] for i in numbers}) == 1
        np.testing.assert_allclose(solved[row, -1], solved[row, 0] - solved[row, 1] + solved[row, 2])
        np.testing.assert_allclose(solved[row, 0], codes[choices[row][0]].mean(0))
    arithmetic.save_arithmetic(tmp_path / "a.png", "red circle - circle + square", codes, drawn, SHAPE_JUDGE, CAPTION)
    assert min(Image.open(tmp_path / "a.png").size) > 50


def test_rows_are_of_different_samples_and_a_term_by_number_is_in_all():
    descriptions = [frozenset({word}) for word in ("even", "odd") * 20]
    terms = arithmetic.parse("even - odd + 3,4")
    rows = arithmetic.choose(terms, descriptions, [("even", "odd")])
    assert len(rows) == arithmetic.ROWS and all(row[2].tolist() == [3, 4] for row in rows)
    for j, first in enumerate((0, 1)):
        assert sorted(np.concatenate([row[j] for row in rows])) == list(range(first, 40, 2))


def test_samples_are_named_by_number():
    codes = RNG.normal(size=(9, 4))
    terms = arithmetic.parse("0,3 - 8")
    solved, choices = arithmetic.solve(terms, codes, [frozenset()] * 9, ())
    assert len(choices) == 1
    np.testing.assert_allclose(solved[0, 2], (codes[0] + codes[3]) / 2 - codes[8])
    np.testing.assert_allclose(np.linalg.norm(arithmetic.to_shell(solved[0]), axis=1), 2.0)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("red - + circle", "a sign stands where a term should"),
        ("rde circle", r"does not know 'rde' \(did you mean 'red'\?\)"),
        ("3,10", "names sample 10, but there are 10, from 0"),
        ("red blue", "none of 10 samples shows 'red blue'"),
    ],
)
def test_an_expression_without_an_answer_is_told(expression, message):
    with pytest.raises(UserError, match=message):
        arithmetic.solve(arithmetic.parse(expression), np.eye(10), [frozenset({"red"})] * 10, ATTRIBUTES)


def test_a_judge_counts_classes_beside_its_own_accuracy():
    judge = Judge(
        "parity", [("even", "odd")], lambda images: [frozenset([("even", "odd")[int(i) % 2]]) for i in images]
    )
    sample = {"images": np.array([0, 1, 2, 3]), "labels": np.array([0, 1, 1, 1])}
    real = {"images": np.array([0, 2, 5]), "labels": np.array([0, 0, 0])}
    results = count_classes(judge, sample, real, ("even", "odd"))
    assert results["judged_classes"]["value"] == [2, 2] and results["judged_accuracy"]["value"] == 0.75
    assert results["judge_accuracy"]["value"] == pytest.approx(2 / 3) and results["judge_accuracy"]["n"] == 3
    assert all(result["judge"] == "parity" for result in results.values())
    with pytest.raises(UserError, match="the judge parity does not know even prime"):
        count_classes(judge, sample, real, ("even", "even prime"))


def test_of_a_class_of_several_words_all_must_hold():
    said = [{"large", "red"}, {"large", "blue"}, {"small", "red"}]
    judge = Judge(
        "shapes", [("large", "small"), ("red", "blue")], lambda images: [frozenset(said[int(i)]) for i in images]
    )
    sample = {"images": np.array([0, 1, 2, 0]), "labels": np.array([0, 0, 1, 1])}
    results = count_classes(judge, sample, {"images": np.array([0])}, ("large red", "small red"))
    assert results["judged_classes"]["value"] == [2, 1] and results["judged_accuracy"]["value"] == 0.5


def test_an_animation_has_a_frame_for_each_picture(tmp_path):
    for i in range(3):
        save_grid(tmp_path / f"samples_{i}.png", np.full((4, 8, 8, 1), 80 * i, np.uint8), 2, CAPTION._replace(step=i))
    save_animation(tmp_path / "samples.gif", sorted(tmp_path.glob("samples_*.png")), CAPTION)
    animation = Image.open(tmp_path / "samples.gif")
    assert animation.n_frames == 3 and animation.info["comment"].decode() == str(CAPTION)
    save_animation(tmp_path / "none.gif", sorted(tmp_path.glob("samples_*.png"))[:1], CAPTION)
    assert not (tmp_path / "none.gif").exists()
