"""CycleGAN with toy networks against NumPy: both phases, the pool, a whole step, validation; and its modes."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from gm_jax import evaluate
from gm_jax.data import augment, pipeline, shapes
from gm_jax.errors import UserError
from gm_jax.judge import Judge, compare_words
from gm_jax.metrics.frechet import frechet_distance, gaussian
from gm_jax.models.cyclegan import PatchGAN, ResidualGenerator
from gm_jax.run import open_trained
from gm_jax.state import Variables, create
from gm_jax.step import make_train_call, make_train_step
from gm_jax.tasks import DataSpec, make_task
from gm_jax.tasks.pool import empty_pool, query
from gm_jax.tasks.task import Translation
from tests.test_step import map_over
from tests.tiny import shrunk, train_tiny
from tests.toys import at_step, close, compare, record, run, same_pictures, weights

SHAPE = (8, 12, 1)
SPEC = DataSpec((10, 16, 1), ("zero", "one"), {"size": ("small", "large"), "shape": ("circle", "square")})
KEY = jax.random.key(7)
NETS = ("ab", "ba", "a", "b")


class ToyGenerator(nn.Module):
    @nn.compact
    def __call__(self, x):
        w, v = (self.param(name, nn.initializers.zeros, SHAPE) for name in "wv")
        return jnp.tanh(w * x + v)


class ToyDiscriminator(nn.Module):
    @nn.compact
    def __call__(self, x):
        a, b = (self.param(name, nn.initializers.zeros, SHAPE) for name in "ab")
        return (0.5 * a * jnp.square(x) + b * x)[..., 0]


def draw(params, net, x):
    return np.tanh(params[net]["w"] * x + params[net]["v"])


def judge(params, net, x):
    return 0.5 * params[net]["a"] * x**2 + params[net]["b"] * x


def make(pool=5, **changes):
    """A task with toy networks for images of SHAPE, and its variables; what the pools have shown is random."""
    given = {"cyclegan__crop": None, "cyclegan__flip": False, "cyclegan__pool": pool, "batch_size": 4, **changes}
    task = make_task(shrunk("cyclegan_shapes", **given), SPEC._replace(image_shape=SHAPE))
    task.generator, task.discriminator = ToyGenerator(), ToyDiscriminator()
    params = {
        net: {name: weights(*SHAPE, seed=10 * i + j) for j, name in enumerate("wv" if len(net) == 2 else "ab")}
        for i, net in enumerate(NETS)
    }
    memory = jax.tree.map(np.asarray, task.init_memory(KEY))
    for seed, name in enumerate("ab"):
        memory[name]["shown"] = weights(4, *SHAPE, seed=50 + seed)
    return task, Variables(params, {net: {} for net in NETS}, memory)


def batch_of(n):
    """n images of each domain whose places in the global batch are not their places here."""
    rng, position = np.random.default_rng(n), np.roll(np.arange(n, dtype=np.int32), 1)
    return {name: {"image": rng.integers(0, 256, (n, *SHAPE), np.uint8), "position": position} for name in "ab"}


def reals(batch):
    return {name: np.float64(part["image"]) / 127.5 - 1.0 for name, part in batch.items()}


def mean_of(x):
    return float(np.mean(np.abs(x)))


SQUARES = {"real": lambda x: (x - 1) ** 2, "fake": lambda x: x**2}
ENTROPY = {"real": lambda x: np.logaddexp(0, -x), "fake": lambda x: np.logaddexp(0, x)}


def generators(params, real, game, cycle, identity):
    """The paper's eq. (3), term by term, and the translations by domain."""
    terms, made = {}, {}
    for net, source, target in (("ab", "a", "b"), ("ba", "b", "a")):
        made[target] = draw(params, net, real[source])
        terms[f"gan_{net}"] = float(np.mean(game["real"](judge(params, target, made[target]))))
        terms[f"cycle_{source}"] = cycle * mean_of(draw(params, net[::-1], made[target]) - real[source])
        if identity:
            terms[f"identity_{target}"] = cycle * identity * mean_of(draw(params, net, real[target]) - real[target])
    return terms, made


def slope_along(loss, params, nets, direction):
    """The central difference of a loss of params along a direction in some networks' parameters."""

    def at(step):
        moved = {net: jax.tree.map(lambda p, d: np.float64(p) + step * d, params[net], direction[net]) for net in nets}
        return loss({**params, **moved})

    return (at(1e-5) - at(-1e-5)) / 2e-5


def check_phase(phase, variables, batch, loss):
    """Compare loss and joint gradient of a phase with what is expected of its networks; return its result."""

    def derive(variables, batch, key):
        def own(params):
            return phase.loss(variables._replace(params={**variables.params, **params}), batch, at_step(key))

        return jax.value_and_grad(own, has_aux=True)({net: variables.params[net] for net in phase.nets})

    (value, result), slope = run(derive, variables, batch, KEY)
    params, rng = variables.params, np.random.default_rng(1)
    close(value, loss(params))
    for net in phase.nets:
        direction = {net: jax.tree.map(lambda p: rng.normal(size=np.shape(p)), params[net])}
        along = sum(np.sum(slope[net][name] * direction[net][name]) for name in slope[net])
        close(along, slope_along(loss, params, [net], direction))
        assert along != 0.0
    return result


@pytest.mark.parametrize(
    ("changes", "game"),
    [
        ({}, SQUARES),
        ({"cyclegan__loss": "non_saturating", "cyclegan__cycle": 3.0, "cyclegan__identity": 0.25}, ENTROPY),
        ({"cyclegan__identity": 0.0}, SQUARES),
    ],
)
def test_losses_are_those_of_the_paper(changes, game):
    task, variables = make(**changes)
    batch, position = batch_of(4), np.roll(np.arange(4), 1)
    real, weight = reals(batch), (changes.get("cyclegan__cycle", 10.0), changes.get("cyclegan__identity", 0.5))
    first, second = task.phases()
    assert (first.nets, second.nets, second.noise_of) == (("ab", "ba"), ("a", "b"), first.name)

    result = check_phase(
        first, variables, batch, lambda params: sum(generators(params, real, game, *weight)[0].values())
    )
    terms, made = generators(variables.params, real, game, *weight)
    compare(result.metrics, terms)
    for name in "ab":  # in their places in the global batch
        whole = made[name][np.argsort(position)]
        close(result.memory[name]["shown"], whole)
        close(result.memory[name]["pool"]["images"][:4], whole)
        assert result.memory[name]["pool"]["count"] == 4 and not np.any(result.memory[name]["pool"]["images"][4:])

    def discriminators(params):
        lost = {}
        for name in "ab":
            shown = variables.memory[name]["shown"][position]
            on_real, on_shown = judge(params, name, real[name]), judge(params, name, shown)
            both = np.mean(game["real"](on_real)) + np.mean(game["fake"](on_shown))
            lost[f"discriminator_{name}"] = 0.5 * float(both)
        return lost

    result = check_phase(second, variables, batch, lambda params: sum(discriminators(params).values()))
    compare(result.metrics, discriminators(variables.params))
    assert result.memory is None


def test_a_pool_is_a_list_that_is_asked_image_after_image():
    size, pool, kept, swaps = 3, empty_pool(3, (1, 1, 1)), [], []
    ask = jax.jit(query)
    for number in range(20):
        key, images = jax.random.key(number), np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1) + 5 * number
        answers, pool = ask(pool, images, key)
        expected = []
        for image, own in zip(images.ravel(), jax.random.split(key, 5), strict=True):
            chance, choice = jax.random.split(own)
            answer = image
            if len(kept) < size:
                kept.append(image)
            else:
                swaps.append(bool(jax.random.uniform(chance) < 0.5))
                if swaps[-1]:
                    place = int(jax.random.randint(choice, (), 0, size))
                    answer, kept[place] = kept[place], image
            expected.append(answer)
        np.testing.assert_array_equal(answers.ravel(), expected)
        np.testing.assert_array_equal(pool["images"].ravel(), kept)
    assert int(pool["count"]) == size and 0.3 < np.mean(swaps) < 0.7
    answers, pool = query(empty_pool(0, (1, 1, 1)), images, key)
    assert pool == {}  # a checkpoint holds no arrays without values
    np.testing.assert_array_equal(answers, images)


@pytest.fixture(scope="module")
def stepped():
    """Toy networks after five SGD steps of four images in the mapped call: on one device, on two; the first phase."""
    task, variables = make(pool=6)
    optimizers = {net: optax.sgd(0.3) for net in NETS}
    state = create({net: {"params": variables.params[net]} for net in NETS}, optimizers, dict.fromkeys(NETS))
    state = jax.device_get(state.replace(memory=task.init_memory(KEY)))
    rng = np.random.default_rng(0)
    data = {name: {"image": rng.integers(0, 256, (9, *SHAPE), np.uint8)} for name in "ab"}
    index = {name: np.random.default_rng(ord(name)).integers(0, 9, (5, 1, 4), np.int32) for name in "ab"}

    def steps(devices, phases, n=5):
        call = make_train_call(make_train_step(phases, optimizers, dict.fromkeys(NETS), seed=3))
        return map_over(devices, call)(state, data, {name: x[:n] for name, x in index.items()})

    real = {name: np.float64(data[name]["image"][index[name][0, 0]]) / 127.5 - 1.0 for name in "ab"}
    return task, state, real, steps


def test_two_devices_make_the_steps_of_one_and_hold_one_pool(stepped):
    task, _, _, steps = stepped
    (one, metrics_one), (two, metrics_two) = (steps(devices, task.phases()) for devices in (1, 2))
    tolerance = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(tolerance, one.params, two.params)
    jax.tree.map(tolerance, one.memory, two.memory)
    jax.tree.map(tolerance, metrics_one, metrics_two)
    assert one.memory["a"]["pool"]["count"] == 6


def test_each_phase_updates_its_own_networks_and_discriminators_see_translations_of_before(stepped):
    task, state, real, steps = stepped
    phases = task.phases()
    whole, first, second = (steps(1, some, n=1)[0] for some in (phases, phases[:1], phases[1:]))
    for net in NETS:
        generator = len(net) == 2
        for after, own in ((first, generator), (second, not generator)):
            moved = [np.any(after.params[net][name] != x) for name, x in state.params[net].items()]
            assert moved == [own, own]
        if generator:  # it saw the discriminators as they were
            jax.tree.map(np.testing.assert_array_equal, whole.params[net], first.params[net])
            close(whole.memory[net[1]]["shown"], draw(state.params, net, real[net[0]]))
    jax.tree.map(np.testing.assert_array_equal, second.memory, state.memory)


def test_images_are_cut_out_and_mirrored_by_example_alike_in_both_phases(monkeypatch):
    task = make_task(shrunk("cyclegan_shapes", cyclegan__crop=8, cyclegan__flip=True), SPEC)
    rng, position = np.random.default_rng(0), np.arange(6, dtype=np.int32)
    image = rng.integers(0, 256, (6, 10, 16, 1), np.uint8)
    batch = {name: {"image": image, "position": position} for name in "ab"}
    inputs = jax.jit(task.inputs)
    found = inputs(batch, KEY)
    windows = {name: [places(image[i], x) for i, x in enumerate(found[name])] for name in "ab"}
    assert windows["a"] != windows["b"] and len({tuple(w) for w in windows["a"] + windows["b"]}) > 6
    assert {mirrored for w in windows.values() for *_, mirrored in w} == {False, True}
    turned = {name: {key: value[::-1] for key, value in part.items()} for name, part in batch.items()}
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[::-1], y), found, inputs(turned, KEY))

    class Seen(Exception):
        """What `inputs` was given."""

    def note(batch, key):
        raise Seen(jax.random.key_data(key))

    monkeypatch.setattr(task, "inputs", note)
    keys = []
    for phase in task.phases():
        with pytest.raises(Seen) as told:
            phase.loss(Variables({}, {}, {}), batch, at_step(KEY))
        keys.append(told.value.args[0])
    np.testing.assert_array_equal(*keys)


def places(whole, part):
    """Where in an image a part lies, and whether it is mirrored."""
    part = np.asarray((part + 1.0) * 127.5).round().astype(np.uint8)
    height, width = part.shape[:2]
    for mirrored, x in ((False, part), (True, part[:, ::-1])):
        for i in range(whole.shape[0] - height + 1):
            for j in range(whole.shape[1] - width + 1):
                if np.array_equal(whole[i : i + height, j : j + width], x):
                    return i, j, mirrored
    raise AssertionError("it is no part of the image")


def test_windows_lie_everywhere():
    image = np.arange(5 * 6, dtype=np.int32).reshape(1, 5, 6, 1)
    keys = jax.random.split(KEY, 200)
    found = jax.jit(augment.window, static_argnums=2)(np.repeat(image, 200, 0), keys, 4)
    assert {tuple(np.argwhere(image[0, ..., 0] == x[0, 0, 0])[0]) for x in np.asarray(found)} == {
        (i, j) for i in range(2) for j in range(3)
    }
    np.testing.assert_array_equal(found[0, :, :, 0] - found[0, 0, 0, 0], image[0, :4, :4, 0])


def far(x, y):
    """The root mean square difference of images."""
    return np.sqrt(np.mean((x - y) ** 2, (1, 2, 3)))


def test_validation_measures_the_middle_of_images():
    task, variables = make(cyclegan__crop=8)
    task.size = SHAPE[:2]
    rng = np.random.default_rng(0)
    batch = {name: {"image": rng.integers(0, 256, (3, 10, 16, 1), np.uint8)} for name in "ab"}
    real = {name: np.float64(batch[name]["image"][:, 1:9, 2:14]) / 127.5 - 1.0 for name in "ab"}
    scores = run(task.validate, variables, batch, KEY)
    energy = 0.0
    for net, (source, target) in {"ab": "ab", "ba": "ba"}.items():
        made = draw(variables.params, net, real[source])
        close(scores[f"cycle_{source}"], np.abs(draw(variables.params, net[::-1], made) - real[source]).mean((1, 2, 3)))
        same = draw(variables.params, net, real[target])
        close(scores[f"identity_{target}"], np.abs(same - real[target]).mean((1, 2, 3)))
        other = np.roll(made, 1, 0)
        close(scores[f"energy_{net}"], far(made, real[target]) - 0.5 * far(made, other))
        energy = energy + scores[f"energy_{net}"]
    close(scores["energy_score"], energy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domains__a__attribute": "sise"}, r"no attribute 'sise' \(did you mean 'size'\?\)"),
        (
            {"domains__a__attribute": "label", "domains__a__value": "on"},
            r"label is never 'on' .* mean 'one'",
        ),
        ({"cyclegan__crop": 16}, "crop=16 is larger than the images of 10x16"),
        ({"cyclegan__crop": None}, "divisible by 4, of 8 pixels at least, not 10x16"),
        ({"cyclegan__crop": 8, "model__discriminator__layers": 2}, "of 16 pixels at least, not 8x8"),
        ({"cyclegan__crop": 8, "model__generator__depth": 2}, "no key model.generator.depth"),
    ],
)
def test_what_does_not_fit_is_told(changes, message):
    config = shrunk("cyclegan_shapes")
    with config.unlocked():
        config.update_from_flattened_dict({"cyclegan.crop": 8})
        for key, value in changes.items():
            *groups, name = key.split("__")
            functools.reduce(lambda c, group: c[group], groups, config)[name] = value
    with pytest.raises(UserError, match=message):
        make_task(config, SPEC)


def test_domains_are_splits_or_values_of_an_attribute():
    task, _ = make()
    assert task.sources() == {
        "a": ("train", "test", {"shape": 0}),
        "b": ("train", "test", {"shape": 1}),
    }
    changes = {f"domains__{name}__split": f"train{name.upper()}" for name in "ab"}
    task, _ = make(**changes, domains__a__attribute=None, domains__b__attribute="label", domains__b__value="one")
    assert task.sources() == {"a": ("trainA", "test", {}), "b": ("trainB", "test", {"label": 1})}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The config of the shapes, with the programs of test_configs.py."""
    return train_tiny(tmp_path_factory.mktemp("tiny"), "cyclegan_shapes", evaluation__n=12)


def centre(images):
    """The middle of images of 16x16 pixels, as the config cuts it out."""
    return images[:, 2:14, 2:14]


def test_each_example_of_the_longer_domain_comes_once_an_epoch_and_orders_differ(tiny):
    sizes, streams = {"a": 9, "b": 14}, tiny.sources()
    sources = {name: streams[name]._replace(examples=streams[name].examples[:n]) for name, n in sizes.items()}
    steps = list(pipeline.batches(sources, tiny.experiment.stages, seed=0, calls=range(14), steps_per_call=1))
    ranks = {
        name: np.searchsorted(sources[name].examples, np.concatenate([step[name]["index"].ravel() for step in steps]))
        for name in "ab"
    }
    for name, n in sizes.items():
        for epoch in range(28 // n):
            assert sorted(ranks[name][epoch * n : (epoch + 1) * n]) == list(range(n))
    assert not np.array_equal(ranks["a"][:9], [rank for rank in ranks["b"][:14] if rank < 9])


def drawn(shape, colour, n=12):
    """Images of one shape in known places."""
    attributes, _ = shapes.describe("test", n)
    attributes |= {"shape": np.full(n, shape), "colour": np.asarray(colour)}
    images = np.empty((n, 32, 32, 3), np.uint8)
    shapes.draw(images, attributes, shapes.place(attributes, np.zeros((n, 4))))
    return images


READER = Judge("reader", list(shapes.ATTRIBUTES.values()), shapes.read, None, shapes.centres)


def test_a_judge_compares_before_and_after():
    """Of twelve circles nine become squares, ten keep their colour, eleven stay within three pixels."""
    colour = np.arange(12) % 6
    source, made = drawn(0, colour), drawn(1, np.where(np.arange(12) < 10, colour, (colour + 1) % 6))
    made[:3] = drawn(0, colour)[:3]
    made[11] = np.roll(made[11], 4, axis=1)
    translation = Translation(source, made, made, ("circle", "square"))
    results = compare_words(READER, translation)
    assert results["shows"]["value"] == pytest.approx(9 / 12) and results["shows"]["word"] == "square"
    assert results["shows_untranslated"]["value"] == 0.0
    kept = {name for name in results if name.startswith("kept_")}
    assert kept == {f"kept_{'/'.join(names)}" for name, names in shapes.ATTRIBUTES.items() if name != "shape"}
    assert results["kept_" + "/".join(shapes.ATTRIBUTES["colour"])]["value"] == pytest.approx(10 / 12)
    assert results["in_place"]["value"] == pytest.approx(11 / 12) and results["in_place"]["n"] == 12
    unknown = compare_words(READER._replace(centres=None), translation._replace(words=("", "")))
    assert unknown.keys() == {f"kept_{'/'.join(names)}" for names in shapes.ATTRIBUTES.values()}


def test_centres_are_those_of_the_drawings():
    attributes, geometry = shapes.describe("test", 200)
    images = np.empty((200, 32, 32, 3), np.uint8)
    shapes.draw(images, attributes, geometry)
    round_ones = attributes["shape"] != 2
    np.testing.assert_allclose(shapes.centres(images)[round_ones], 32 * geometry[round_ones, :2] - 0.5, atol=0.15)
    np.testing.assert_allclose(shapes.centres(np.full((1, 8, 8, 3), 235, np.uint8)), [[3.5, 3.5]], atol=1e-3)


def test_evaluation_measures_both_directions(tiny):
    keys = {"evaluation.metrics": ("frechet",), "evaluation.judge": "shapes", "evaluation.n": 11}
    opened = open_trained("cyclegan_shapes", keys, tiny.workdir)
    assert evaluate.evaluate(opened, "newest") == 0
    results = json.loads((tiny.workdir.path / "evaluation.json").read_text())["results"]
    translations = opened.task.translations(opened.restore("newest"))
    examples = opened.examples(11)
    for direction, other in (("ab", "b"), ("ba", "a")):
        found = translations[direction]
        np.testing.assert_array_equal(found.source, centre(examples[direction[0]]["image"]))
        np.testing.assert_array_equal(found.target, centre(examples[other]["image"]))
        # One way the translations, the other way what is left as it is: each takes a second.
        whose, images = {"ab": ("", found.made), "ba": ("_untranslated", found.source)}[direction]
        flat = [np.float64(x).reshape(len(x), -1) / 255 for x in (found.target, images)]
        result = results[f"frechet_pixels{whose}_{direction}"]
        assert result["value"] == pytest.approx(frechet_distance(*map(gaussian, flat)), rel=1e-4)
        assert (result["n"], result["extractor"]) == (11, "pixels")
        assert results[f"shows_{direction}"]["word"] == {"b": "square", "a": "circle"}[other]
        said = compare_words(READER, found)  # of parts of images, in which some circles look square
        for name in ("shows", "shows_untranslated", "kept_small/large", "in_place"):
            assert results[f"{name}_{direction}"]["value"] == said[name]["value"], name
        assert results[f"kept_small/large_{direction}"]["n"] == 11 and f"in_place_{direction}" in results
    assert {"cycle_a", "cycle_b", "identity_a", "identity_b"} <= results.keys()


def test_figures_show_images_translated_and_back_again(tiny, monkeypatch):
    from gm_jax.tasks import cyclegan_figures

    opened = open_trained("cyclegan_shapes", {"sampling.n": 3}, tiny.workdir)
    restored = opened.restore("newest")
    task, batch, params = opened.task, opened.examples(3), restored.variables.params
    expected, translate = [], jax.jit(task.generator.apply)
    for net, source in (("ab", "a"), ("ba", "b")):
        x = np.float32(centre(batch[source]["image"])) / 127.5 - 1.0
        made = translate({"params": params[net]}, x)
        expected += [x, made, translate({"params": params[net[::-1]]}, made)]
    grid, columns = task.preview(restored)
    same_pictures(grid, np.round((np.concatenate(expected) + 1.0) * 127.5))
    assert columns == 3
    seen = record(monkeypatch, cyclegan_figures, "save_grid", "save_curves")
    for draw_figure in task.figures().values():
        draw_figure(restored)
    np.testing.assert_array_equal(seen["translations.png"][0], grid)
    assert "circle, as square, back again; square, as circle, back again" in str(seen["translations.png"][2])
    assert list(seen["losses.png"][1]) == list(cyclegan_figures.LOSSES)
    logged = json.loads(tiny.workdir.metrics.read_text().splitlines()[0])
    assert set(cyclegan_figures.LOSSES) <= logged.keys()
    assert (tiny.workdir.figures / "samples_0000004.png").exists()


def translate(tiny, folder, **keys):
    """Run mode translate; return its exit status."""
    keys = {f"translate.{key}": str(value) for key, value in {"input": folder, **keys}.items()}
    opened = open_trained("cyclegan_shapes", keys, tiny.workdir)
    return opened.task.modes()["translate"](opened.restore("newest"))


def test_a_folder_is_translated_name_by_name(tiny, tmp_path, capsys):
    rng, source, output = np.random.default_rng(0), tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    sizes = {"a.png": (16, 24), "b.png": (16, 24), "deep/c.bmp": (19, 9), "grey.png": (16, 24), "small.png": (4, 20)}
    pictures = {name: rng.integers(0, 256, (*size, 3), np.uint8) for name, size in sizes.items()}
    for name, x in pictures.items():
        Image.fromarray(x[..., 0] if name == "grey.png" else x).save(source / name)
    (source / "broken.jpg").write_bytes(b"no picture")
    assert translate(tiny, source, direction="ba", output=output) == 1
    said = capsys.readouterr()
    assert "broken.jpg cannot be read" in said.err and "1 images were enlarged" in said.out
    assert "1 images lost up to 3 pixels" in said.out and "5 images of" in said.out and "1 skipped" in said.out
    made = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert made == pictures.keys()
    task, params = tiny.task, tiny.restore("newest").variables.params
    pictures["grey.png"] = np.repeat(pictures["grey.png"][..., :1], 3, -1)
    pictures["deep/c.bmp"] = pictures["deep/c.bmp"][1:17, :8]
    pictures["small.png"] = np.asarray(Image.fromarray(pictures["small.png"]).resize((40, 8)))
    draw_again = jax.jit(task.generator.apply)
    for name in sorted(made):
        x = np.float32(pictures[name][None]) / 127.5 - 1.0
        expected = np.round((np.asarray(draw_again({"params": params["ba"]}, x))[0] + 1.0) * 127.5)
        same_pictures(np.asarray(Image.open(output / name)), expected)

    for name in ("broken.jpg", "a.png", "b.png", "grey.png", "small.png"):
        (source / name).unlink()
    assert translate(tiny, source) == 0
    assert (tiny.workdir.path / "translated" / "deep" / "c.bmp").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (lambda path: dict(folder=path / "none"), "is not a folder"),
        (lambda path: dict(folder=path), "has no images"),
    ],
)
def test_folders_that_cannot_be_translated(tiny, tmp_path, where, message):
    with pytest.raises(UserError, match=message):
        translate(tiny, **where(tmp_path))


def test_translations_never_fall_among_their_inputs(tiny, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    for output in (tmp_path, tmp_path / "inside" / "it"):
        with pytest.raises(UserError, match=r"translate\.output=.* give another"):
            translate(tiny, tmp_path, output=output)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(ResidualGenerator(), 11_378_179), (ResidualGenerator(blocks=6), 7_837_699), (PatchGAN(), 2_764_737)],
)
def test_networks_have_the_published_numbers_of_parameters(network, parameters):
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters
