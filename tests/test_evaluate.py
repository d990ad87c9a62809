"""What is measured, and on which examples: the held-out part, evaluation.n, samples, judges, standard errors."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gm_jax import evaluate, random, sample
from gm_jax.data import pipeline, shapes
from gm_jax.data.pipeline import choose, hold_out
from gm_jax.errors import UserError
from gm_jax.judge import Judge, count_classes
from gm_jax.measure import Drawn
from gm_jax.metrics import diversity
from gm_jax.metrics.moments import Moments, gather
from gm_jax.metrics.neighbours import find_neighbours
from gm_jax.run import open_trained
from gm_jax.tasks import DataSpec, make_task
from gm_jax.tasks.task import take
from gm_jax.workdir import MetricsFile, Workdir, read_metrics
from tests.test_data import write_folder
from tests.tiny import EXPERIMENTS, load, open_tiny, shrunk, train_tiny

RNG = np.random.default_rng(0)


def test_examples_are_chosen_from_everywhere_and_always_the_same():
    """The first 100 of 1,000 that are sorted by class would be of one class."""
    chosen = choose(1000, 100)
    assert len(set(chosen)) == 100 and len(set(chosen // 100)) == 10
    np.testing.assert_array_equal(choose(1000, 30), chosen[:30])
    for n in (None, 7, 8):
        np.testing.assert_array_equal(choose(7, n), np.arange(7))


def test_a_part_is_held_out():
    kept, held_out = hold_out(50, 8)
    assert len(held_out) == 8 and sorted([*kept, *held_out]) == list(range(50))
    np.testing.assert_array_equal(held_out, np.sort(choose(50, 8)))
    assert np.all(np.diff(kept) > 0) and len(hold_out(50, 0)[0]) == 50


def test_a_batch_of_some_examples():
    data = {"image": RNG.integers(0, 256, (20, 2, 2, 1)), "label": np.arange(20)}
    some, everything = take(data, 6), take(data, None)
    np.testing.assert_array_equal(some["label"], choose(20, 6))
    np.testing.assert_array_equal(some["image"], data["image"][some["label"]])
    np.testing.assert_array_equal(some["position"], np.arange(6))
    np.testing.assert_array_equal(everything["position"], everything["label"])


def test_what_is_held_out_trains_nothing_and_chooses_the_best(tmp_path, monkeypatch):
    seen, original = [], pipeline.batches
    monkeypatch.setattr(
        pipeline,
        "batches",
        lambda sources, stages, **k: seen.append(sources["images"].examples) or original(sources, stages, **k),
    )
    run = train_tiny(tmp_path, "fnn_mnist", evaluation__n=None, evaluate_every=2, steps=6, optim__learning_rate=0.05)
    trained_on, held_out = run.portions["images"]
    assert len(held_out) == 150  # a tenth of the 1,500 digits
    assert sorted([*trained_on, *held_out]) == list(range(1500))
    np.testing.assert_array_equal(seen[0], trained_on)
    assert run.held_out == ("validation", 150)
    examples = run.validation()
    np.testing.assert_array_equal(examples["image"], run.split("train")["image"][held_out])
    np.testing.assert_array_equal(run.training()["label"], run.split("train")["label"][trained_on])

    lines = [line for line in read_metrics(run.workdir.metrics) if line["split"] == "validation"]
    restored = run.restore("newest")
    predicted = run.task.predict(restored, examples["image"])
    assert lines[-1]["accuracy"] == pytest.approx(np.mean(predicted == examples["label"]))
    scores = {line["step"]: line["accuracy"] for line in lines}
    assert len(set(scores.values())) > 1 and run.checkpoints.best_step() == max(scores, key=scores.get)
    record = json.loads((run.workdir.path / "run.json").read_text())["dataset"]
    assert record["trained_on"] == {"split": "train", "n": 1350}
    assert record["best_chosen_by"] == {"examples": "validation", "n": 150, "held_out": 150}


def test_any_split_may_be_trained_on(tmp_path):
    run = open_tiny(tmp_path, "fnn_mnist", dataset__split="test")
    trained_on = run.portions["images"].trained
    assert len(trained_on) == 297 - 29
    np.testing.assert_array_equal(run.training()["image"], run.split("test")["image"][trained_on])


def test_without_a_held_out_part_the_scores_are_of_seen_images(tmp_path):
    run = open_tiny(tmp_path, "fnn_mnist", dataset__validation=0)
    examples = run.validation()
    assert run.held_out == ("seen", 0)
    assert len(run.portions["images"].trained) == 1500 == len(run.training()["image"])
    np.testing.assert_array_equal(examples["label"], run.split("train")["label"][choose(1500, 10)])


def test_a_validation_split_of_the_data_is_used_and_all_else_trains(tmp_path):
    for split in ("train/a", "train/b", "val/a", "val/b", "test/a"):
        write_folder(tmp_path / "images" / split, {f"{i}.png": 10 * i for i in range(12)}, size=(28, 28))
    changes = dict(dataset__name="own", dataset__folder=str(tmp_path / "images"))
    run = open_tiny(tmp_path / "run", "fnn_mnist", **changes)
    examples = run.validation()
    assert run.held_out == ("validation", 0)
    assert len(run.portions["images"].trained) == 24 and len(examples["image"]) == 10
    np.testing.assert_array_equal(examples["label"], run.split("val")["label"][choose(24, 10)])
    assert str(run.trained(run.init_state()).caption) == "fnn_mnist on images · step 0"
    run = open_tiny(tmp_path / "run", "fnn_mnist", **changes, dataset__split="val")
    portion = run.portions["images"]  # whoever trains on that split does not choose by what is seen
    assert run.held_out == ("validation", 2) and len(portion.trained) == 22
    np.testing.assert_array_equal(run.validation()["image"], run.split("val")["image"][portion.held_out])


DIRECTIONS = {"accuracy": "max", "elbo": "max", "log_likelihood": "max", "loss": "min", "energy_score": "min",
              "mean_squared_error": "min"}  # fmt: skip


@pytest.mark.parametrize("name", {load(name).task: name for name in EXPERIMENTS}.values())
def test_the_best_is_where_likelihood_and_accuracy_are_high_and_losses_low(name):
    spec = DataSpec((16, 16, 1), tuple("0123456789"), shapes.ATTRIBUTES)
    metric, direction = make_task(shrunk(name), spec).monitor
    assert direction == DIRECTIONS[metric]


@pytest.mark.parametrize("cuts", [[], [1], [20, 23, 40]])
def test_standard_errors_are_those_of_the_mean(cuts):
    """However the examples come in chunks."""
    values = RNG.normal(size=(50, 3))
    moments = gather({"x": chunk} for chunk in np.split(values, cuts))["x"]
    found = evaluate.summary(moments)
    np.testing.assert_allclose(found["value"], values.mean(0))
    np.testing.assert_allclose(found["standard_error"], values.std(0, ddof=1) / np.sqrt(50))
    assert moments.n == 50
    assert np.isnan(evaluate.summary(Moments.of(values[:1]))["standard_error"]).all()


def test_measuring_counts_each_example_once_with_noise_of_its_own():
    """Which follows from the config's seed and its number, however examples come in chunks: 21 in chunks of 8."""
    task = make_task(shrunk("fnn_mnist", seed=5, evaluation__batch_size=8), DataSpec((28, 28, 1), tuple("0123456789")))
    batch = take({"image": np.zeros((21, 1)), "label": np.arange(21)}, None)
    draw = lambda variables, batch, keys: {"x": variables + random.normal(keys) + batch["label"]}  # noqa: E731
    found = evaluate.Measure(task, draw, batch)(np.float32(100))["x"]
    expected = 100.0 + random.normal(random.example_keys(jax.random.key(5), np.arange(21))) + np.arange(21)
    assert found.n == 21
    for value, right in ((found.mean, np.mean), (found.variance, np.var), (found.low, np.min), (found.high, np.max)):
        assert value == pytest.approx(right(np.float64(expected)), rel=1e-5)


def test_large_data_stay_off_the_devices(monkeypatch):
    data = {"image": np.zeros((5, 8), np.uint8), "label": np.zeros(5, np.int32)}
    for limit, fits in ((60, True), (59, False)):
        monkeypatch.setattr(pipeline, "RESIDENT_BYTES", limit)
        assert pipeline.fits_on_device(data) == fits


def cosine(x, y):
    return np.dot(x.ravel(), y.ravel()) / np.linalg.norm(x) / np.linalg.norm(y)


def fakes(n=30, real=25, training=60, classes=3):
    """A run and a trained model that draw given images: grey levels that differ, with noise."""

    def draw(n):
        level = RNG.permutation(np.linspace(20, 235, n))[:, None, None, None]
        return np.clip(level + RNG.normal(0, 30, (n, 4, 4, 1)), 0, 255).astype(np.uint8)

    samples = {"images": draw(n), "labels": np.arange(n) % classes}
    held_out = {"image": draw(real), "label": np.arange(real) % classes}
    training = {"image": draw(training)}
    training["label"] = np.minimum(training["image"].mean((1, 2, 3)) // 86, 2).astype(np.int32)
    config = shrunk("fnn_mnist", sampling__seed=3, dataset__split="all")
    run = SimpleNamespace(
        config=config,
        training=lambda: training,
        task=SimpleNamespace(class_names=("a", "b", "c"), classes_of=lambda batch: batch["label"]),
    )
    trained = SimpleNamespace(examples=lambda n: {k: x[: n and 25] for k, x in held_out.items()})
    return run, trained, samples, held_out, training


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Returns what is said of the first 20 samples; their neighbours are looked for in threes."""
    monkeypatch.setattr(evaluate, "AT_ONCE", 3)
    monkeypatch.setattr(evaluate, "kept", tmp_path.joinpath)

    def look(run, trained, samples):
        drawn = Drawn(samples["images"][:20], samples["labels"][:20], 0.0, tmp_path / "step7_1.samples")
        return evaluate.look_at_samples(run, trained, drawn)

    return look


def test_samples_are_compared_with_each_other_and_with_training_images(look):
    """Pairs on [-1, 1], in both orders, of samples and of as many real images; neighbours are training images."""
    run, trained, samples, held_out, training = fakes()
    found = look(run, trained, samples)
    for name, images in (("similar_pairs", samples["images"]), ("similar_pairs_of_real_images", held_out["image"])):
        x = images[:20] / 127.5 - 1.0
        cosines = np.array([cosine(x[i], x[j]) for i in range(20) for j in range(20) if i != j])
        assert 0 < found[name]["value"] == np.sum(cosines > 0.9) < 380 == found[name]["pairs"]
        assert found[name]["mean_cosine_similarity"] == pytest.approx(cosines.mean(), abs=1e-6)
        assert (found[name]["n"], found[name]["split"], found[name]["seed"]) == (20, "test", 3)
    for whose, images in (("", samples["images"]), ("_of_real_images", held_out["image"])):
        x, y = images[:20].astype(float), training["image"].astype(float)
        distances = np.sqrt(((x[:, None] - y) ** 2).mean((2, 3, 4)))
        near = training["label"][np.argsort(distances, 1)[:, :10]]
        unanimous = np.array([len(set(row)) == 1 for row in near])
        share = found[f"neighbours_unanimous{whose}"]
        assert share["value"] == pytest.approx(unanimous.mean()) and 0 < unanimous.mean() < 1
        assert share["standard_error"] == pytest.approx(unanimous.std(ddof=1) / np.sqrt(20))
        assert (share["split"], share["neighbours"], share["n"]) == ("all", 10, 20)
        assert found[f"neighbour_distance{whose}"]["value"] == pytest.approx(distances.min(1).mean(), rel=1e-5)
        assert found[f"classes_found{whose}"]["value"] == len({row[0] for row in near[unanimous]})


def test_neighbours_are_looked_for_once(look, monkeypatch):
    """Among the same training images; what is on disk is read, chunk by chunk, after an interruption, too."""
    run, trained, samples, _, training = fakes()
    calls = []

    def find(images, known):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return find_neighbours(images, known)

    monkeypatch.setattr(evaluate, "find_neighbours", find)
    with pytest.raises(KeyboardInterrupt):
        look(run, trained, samples)
    first = look(run, trained, samples)
    assert calls == [*[3] * 7, 2, *[3] * 6, 2]  # two of seven were there; then the real images
    assert look(run, trained, samples) == first and len(calls) == 15
    training["image"] = training["image"][::-1].copy()
    again = look(run, trained, samples)
    assert len(calls) == 29 and again["neighbours_unanimous"] != first["neighbours_unanimous"]


def test_a_judge_counts_classes_and_is_judged_itself(look):
    """It says a where the first pixel is dark, c where it is bright."""
    run, trained, samples, held_out, _ = fakes()
    run.config.evaluation.judge = "somewhere"

    def describe(images):
        return [frozenset("abc"[number]) for number in np.minimum(images[:, 0, 0, 0] // 86, 2)]

    judge = Judge("the judge", ["abc"], describe, lambda images: images.reshape(len(images), -1) - 128.0)
    run.judge = lambda: judge
    found = look(run, trained, samples)
    said = np.minimum(samples["images"][:20, 0, 0, 0] // 86, 2)
    of_real = np.minimum(held_out["image"][:, 0, 0, 0] // 86, 2)
    assert found["judged_classes"]["value"] == np.bincount(said, minlength=3).tolist()
    share, n = np.mean(said == samples["labels"][:20]), 20
    assert found["judged_accuracy"]["value"] == pytest.approx(share) and 0 < share < 1
    assert found["judged_accuracy"]["standard_error"] == pytest.approx(np.sqrt(share * (1 - share) / n))
    assert found["judge_accuracy"]["value"] == pytest.approx(np.mean(of_real == held_out["label"]))
    assert found["judge_accuracy"]["n"] == 25 and found["judge_accuracy"]["judge"] == "the judge"
    x = samples["images"][:20].astype(float) - 128
    pairs = np.sum([cosine(x[i], x[j]) > 0.9 for i in range(20) for j in range(20) if i != j])
    assert found["similar_features"]["value"] == pairs
    assert "accepted" not in found
    run.judge = lambda: judge._replace(accepted=lambda images: images[:, 0, 0, 0] > 85)
    found = look(run, trained, samples)
    assert found["accepted"]["value"] == pytest.approx(np.mean(said > 0)) and found["accepted"]["n"] == 20
    assert found["accepted_of_real_images"]["value"] == pytest.approx(np.mean(of_real[:20] > 0))
    assert count_classes(judge, {"images": samples["images"]}, {"images": held_out["image"]}, "ac").keys() == {
        "judged_classes"
    }


def test_similarity_within_classes():
    images = RNG.normal(size=(7, 2, 2, 1))
    classes = np.array([0, 1, 0, 1, 1, 2, 1])  # one of the last kind makes no pair
    pairs = {c: [cosine(images[i], images[j]) for i in range(7) for j in range(7)
                 if i != j and classes[i] == classes[j] == c] for c in (0, 1)}  # fmt: skip
    expected = (2 * np.mean(pairs[0]) + 4 * np.mean(pairs[1])) / 6  # a class counts as much as it has images
    assert diversity.mean_similarity(images, classes) == pytest.approx(expected)
    assert diversity.mean_similarity(images[:1], classes[:1]) == 0.0


def test_half_a_line_of_metrics_is_no_line(tmp_path):
    """As a kill leaves it: the folder opens, figures draw the whole lines, and the run cuts it off."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train", "loss": 2.0}\n{"step": 2, "spl')
    assert [line["step"] for line in read_metrics(path)] == [1]
    Workdir(tmp_path).check(shrunk("fnn_mnist"))
    file = MetricsFile(path, 1)
    file.write(2, "train", {"loss": 1.0})
    file.close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    path.write_text('{"step": 1, "spl')
    assert read_metrics(path) == []


def test_metrics_that_are_gone_are_missed(tmp_path, caplog):
    MetricsFile(tmp_path / "metrics.jsonl", 0).close()
    assert not caplog.records
    (tmp_path / "metrics.jsonl").unlink()
    MetricsFile(tmp_path / "metrics.jsonl", 40).close()
    assert "metrics.jsonl is gone: it begins anew after step 40" in caplog.text


def test_a_conditional_model_collapses_within_classes():
    """Two classes of constant images, dark and light: pairs of one class are alike in truth, and no reason to warn."""
    held_out = {
        "image": np.repeat([0, 255], 5).astype(np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 1), np.uint8)
    }
    held_out["label"] = np.repeat([0, 1], 5)
    spec = DataSpec((16, 16, 1), tuple("0123456789"))
    blind, sees = (make_task(shrunk(name), spec) for name in ("dcgan_mnist", "cgan_mnist"))
    assert sees.warnings({"similarity": 0.99}, held_out) == []
    (warning,) = blind.warnings({"similarity": 0.99}, held_out)  # of all pairs of real images the mean is -1/9
    assert "two samples is 0.990, of two real images -0.111" in warning


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        (dict(schedule="linear", timesteps=10), "90%"),  # alpha_bar of the report's ten steps with the paper's betas
        (dict(schedule="linear", timesteps=100, beta_end=0.05), "8%"),
        (dict(schedule="exploding", timesteps=10, beta_start=0.5, beta_end=1.0), "12%"),
    ],
)
def test_a_chain_that_ends_before_the_prior_is_refused(changes, left):
    spec = DataSpec((28, 28, 1))
    base = dict(beta_start=None, beta_end=None)
    keys = {f"diffusion__{key}": value for key, value in {**base, **changes}.items()}
    with pytest.raises(UserError, match=f"steps ends while {left} of the variance of x_T is the image's"):
        make_task(shrunk("ddpm_mnist:paper", **keys), spec)
    keys["diffusion__beta_end"] = (
        0.2 if changes["timesteps"] == 100 else 4.0 if changes["schedule"] == "exploding" else 0.7
    )
    schedule = make_task(shrunk("ddpm_mnist:paper", **keys), spec).process.schedule
    assert schedule.betas[-1] == pytest.approx(keys["diffusion__beta_end"])
    assert schedule.betas[1] == pytest.approx(changes.get("beta_start", 1e-4))


def test_captions_samples_and_judges_name_their_data(tmp_path, caplog):
    """A classifier of digits that is called lenet_mnist must not be taken for one of MNIST."""
    changes = dict(steps=2, dataset__image_size=16)
    train_tiny(tmp_path / "judge", "lenet_mnist", **changes, dataset__name="digits")
    for split in ("train/0", "train/1", "test/1"):
        write_folder(tmp_path / "own" / split, {f"{i}.png": 15 * i for i in range(8)}, size=(16, 16), mode="L")
    own = dict(dataset__name="own", dataset__folder=str(tmp_path / "own"))
    run = train_tiny(tmp_path / "gan", "dcgan_mnist", **changes, **own, evaluation__judge=str(tmp_path / "judge"))
    judge = run.judge()
    assert judge.name == "lenet_mnist on digits, step 2 (trained on other data than own)" and judge.name in caplog.text
    caplog.clear()
    run.config.evaluation.judge = str(tmp_path / "judge")
    same = open_trained("lenet_mnist", {"evaluation.judge": str(tmp_path / "judge")}, Workdir(tmp_path / "judge"))
    assert same.judge().name == "lenet_mnist on digits, step 2" and not caplog.records
    assert sample.sample(run, "newest") == 0
    written = np.load(tmp_path / "gan" / "samples.npz")
    assert (str(written["config"]), str(written["data"]), int(written["step"])) == ("dcgan_mnist", "own", 2)
    assert str(run.restore("newest").caption) == "dcgan_mnist on own · step 2"
