"""Samples compared with data through the real loop, the command for anybody's images, and the comparison of runs."""

import dataclasses
import functools
import itertools
import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

from gm_jax import compare, evaluate, extractors, measure
from gm_jax.errors import UserError
from gm_jax.metrics import __main__ as command
from gm_jax.metrics import kernel, store
from gm_jax.metrics.evaluators import EVALUATORS
from gm_jax.metrics.frechet import frechet_distance, gaussian
from gm_jax.run import open_trained
from gm_jax.workdir import Workdir, read_metrics
from tests.tiny import open_tiny, train_tiny

METRICS = tuple(EVALUATORS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A classifier of 16x16 digits, and a conditional GAN whose training is scored by it; a small batch of samples."""
    root = tmp_path_factory.mktemp("measure")
    train_tiny(root / "judge", "fnn_mnist", steps=2, dataset__image_size=16)
    during = dict(evaluation__during=("frechet", "kernel"), evaluation__during_n=20, evaluation__n=40)
    asked = dict(evaluation__extractors=(str(root / "judge"), "pixels"), sampling__batch_size=8)
    run = train_tiny(root / "gan", "gan_mnist", gan__conditional=True, steps=4, evaluate_every=2, **during, **asked)
    return root, run


@functools.cache
def opened(root):
    """The trained GAN, whose functions are compiled once for all tests."""
    return open_trained("gan_mnist", {}, Workdir(root))


def evaluated(root, **overrides):
    """The results of mode evaluate with all metrics."""
    run = opened(root)
    keys = {"evaluation.metrics": METRICS, "evaluation.samples": 30, "evaluation.n": 40}
    run.config.update_from_flattened_dict({**keys, "evaluation.seed": 0, "sampling.seed": 0, **overrides})
    assert evaluate.evaluate(run, "newest") == 0
    return json.loads((root / "evaluation.json").read_text())["results"]


def test_every_number_says_what_it_is_of(runs):
    root, run = runs
    results = evaluated(root / "gan")
    for extractor in ("fnn_mnist", "pixels"):
        for name in ("frechet", "kernel", "precision", "recall", "density", "coverage", "memorisation"):
            result = results[f"{name}_{extractor}"]
            assert (result["n_real"], result["n_generated"], result["split"]) == (40, 30, "test")
            assert result["extractor"] == extractor and result["weights"] and np.isfinite(result["value"])
    judge = open_trained("fnn_mnist", {}, Workdir(root / "judge")).restore("newest")
    assert results["frechet_fnn_mnist"]["weights"] == extractors.digest(judge.variables)
    assert "inception_score_fnn_mnist" in results and "inception_score_pixels" not in results
    assert results["memorisation_pixels"]["n_training"] == 1350
    assert results["sampling_time"]["value"] > 0 and not any("fid" in name for name in results)

    test, drawn = run.examples(40)["image"], run.task.sample(run.restore("4").variables, 30, 0)["images"]
    x, y = (np.float64(images).reshape(len(images), -1) / 255 for images in (test, drawn))
    expected = frechet_distance(gaussian(x), gaussian(y))
    assert results["frechet_pixels"]["value"] == pytest.approx(expected, rel=1e-4)
    assert "not of full rank" in results["frechet_pixels"]["note"]


def test_an_evaluation_goes_on_where_it_was_stopped(runs, monkeypatch):
    """Nothing that lies on disk is drawn again, and the numbers are the same."""
    root, run = runs
    whole = evaluated(root / "gan")
    samples = next((root / "gan" / "samples").glob("*.samples"))
    content = samples.read_bytes()
    samples.with_suffix(".json").unlink()
    samples.write_bytes(content[: len(content) // 2])  # killed in the middle
    for path in (root / "gan" / "samples").glob("*_pixels.*"):
        path.unlink()
    drawn = []
    sample = type(run.task).sample
    monkeypatch.setattr(
        type(run.task), "sample", lambda *a, first=0, **k: drawn.append(first) or sample(*a, first=first, **k)
    )
    again = evaluated(root / "gan")
    assert drawn[:3] == [8, 16, 24] and samples.read_bytes() == content
    for results in (whole, again):
        results.pop("sampling_time")
    assert whole == again
    evaluated(root / "gan")
    assert drawn == [8, 16, 24]  # nothing, not even for the time that it takes
    evaluated(root / "gan", **{"sampling.seed": 1})
    assert drawn[3:7] == [0, 8, 16, 24]
    assert len(list((root / "gan" / "samples").glob("*.samples"))) == 1  # those of another way are gone
    monkeypatch.setattr(measure, "code_digest", lambda: "other code")
    drawn.clear()
    ticks = itertools.count(0.0, 4.0)
    monkeypatch.setattr(measure, "time", types.SimpleNamespace(perf_counter=lambda: next(ticks)))
    results = evaluated(root / "gan", **{"sampling.seed": 1})
    assert drawn[:4] == [0, 8, 16, 24]
    assert results["sampling_time"]["value"] == 0.5  # seconds an image: eight at once took four
    trained = opened(root / "gan").restore("newest")
    changed = dataclasses.replace(trained, variables=jax.tree.map(lambda x: x + 0.1, trained.variables))
    monkeypatch.setattr(opened(root / "gan"), "restore", lambda _: changed)
    drawn.clear()
    evaluated(root / "gan", **{"sampling.seed": 1})  # other weights at the same step
    assert drawn[:4] == [0, 8, 16, 24]


def test_features_are_kept_under_the_weights_and_the_data_that_they_are_of(tmp_path, monkeypatch):
    monkeypatch.setenv("GM_JAX_CACHE", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 4, 4, 1), dtype=np.uint8)
    plain = extractors.pixels((4, 4, 1))
    other = plain._replace(identity="other weights", see=lambda x: 2 * plain.see(x))
    for _ in range(2):
        for i, numbers in itertools.product((0, 1), (np.arange(5), np.arange(4, 9))):
            split = types.SimpleNamespace(images=images[i])
            data = types.SimpleNamespace(split=lambda _, s=split: s, fingerprint=lambda _, i=i: str(i))
            for extractor in (plain, other):
                seen = measure.look_at_data(types.SimpleNamespace(dataset=data), extractor, "test", numbers)
                np.testing.assert_array_equal(seen.features, extractor.see(images[i][numbers]))


def test_random_subsets_follow_from_a_seed(runs, monkeypatch):
    """KID draws subsets, and memorisation the training images that it compares with each other."""
    monkeypatch.setattr(kernel, "SIZE", 10)
    root, _ = runs
    first, again, other = (
        {
            name: result["value"]
            for name, result in evaluated(root / "gan", **{"evaluation.seed": seed}).items()
            if name in ("kernel_pixels", "memorisation_pixels", "precision_pixels")
        }
        for seed in (0, 0, 1)
    )
    assert first == again and first["precision_pixels"] == other["precision_pixels"]
    assert first["kernel_pixels"] != other["kernel_pixels"]
    assert first["memorisation_pixels"] != other["memorisation_pixels"]


def test_one_device_gives_the_numbers_of_two(runs, monkeypatch):
    root, _ = runs
    two = evaluated(root / "gan", **{"evaluation.samples": 24})
    for path in (root / "gan" / "samples").iterdir():
        path.unlink()
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    opened.cache_clear()  # its functions are compiled for two
    one = evaluated(root / "gan", **{"evaluation.samples": 24})
    assert one.keys() == two.keys()
    for name in set(two) - {"sampling_time"}:
        np.testing.assert_allclose(one[name]["value"], two[name]["value"], rtol=1e-3, atol=1e-3, err_msg=name)


def test_training_is_scored_by_validation_images_and_the_best_checkpoint_chosen_so(runs):
    _, run = runs
    lines = [line for line in read_metrics(run.workdir.metrics) if line["split"] == "validation"]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["frechet_fnn_mnist"] > 0 and "kernel_fnn_mnist" in line
        assert run.checkpoints.read_meta(line["step"])["score"] == line["frechet_fnn_mnist"]
    best = min(lines, key=lambda line: line["frechet_fnn_mnist"])["step"]
    assert run.checkpoints.best_step() == best
    held_out = run.split("train")["image"][run.portions["images"].held_out]
    during = measure.During(run)
    real, known = during._real.features, measure.see_all(during._extractor, held_out).features
    assert len(held_out) == 150 and len(real) == 40 == len(run.validation()["image"])
    assert np.abs(real[:, None] - known[None]).max(2).min(1).max() < 1e-5  # each is of an image that is held out


def test_scores_that_cannot_be_had_are_refused_before_training(runs, tmp_path):
    root, _ = runs
    for experiment, changes, said in (
        ("fnn_mnist", dict(evaluation__during=("frechet",)), "needs a task that draws samples"),
        ("gan_mnist", dict(evaluation__during=("frechett",)), "evaluation.during: 'frechett' is not one of"),
        ("gan_mnist", dict(evaluation__metrics=("fid",)), "evaluation.metrics: 'fid' is not one of"),
        ("gan_mnist", dict(evaluation__during=("kernel",), evaluation__extractors=("nowhere",)), "no run in"),
        ("gan_mnist", dict(evaluation__during=("kernel",), evaluation__extractors=()), "extractors is empty, but"),
        ("gan_mnist", dict(evaluation__during=("inception_score",)), "inception_score needs generated.logits, which"),
        ("gan_mnist", dict(evaluation__during=("frechet", "memorisation")), "memorisation needs training.features"),
        (
            "gan_mnist",
            dict(evaluation__during=("kernel",), evaluation__extractors=(str(root / "gan"),)),
            "is a run of the task gan: name a classifier",
        ),
    ):
        with pytest.raises(UserError, match=said):
            measure.During(open_tiny(tmp_path, experiment, **changes))


def test_two_extractors_whose_numbers_would_be_called_alike_are_refused(runs):
    run = opened(runs[0] / "gan")
    run.config.evaluation.metrics, run.config.evaluation.extractors = ("frechet",), ("pixels", "pixels")
    with pytest.raises(UserError, match="would be called pixels as another's are"):
        measure.open_extractors(run.config.evaluation, run.spec.image_shape)
    opened.cache_clear()


def test_pixels_of_large_images_are_averaged_and_their_number_is_called_so():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    extractor = extractors.pixels((64, 96, 3))
    assert (extractor.name, extractor.width) == ("pixels21x32", 21 * 32 * 3)
    seen = extractor.see(images).reshape(3, 21, 32, 3)
    np.testing.assert_allclose(seen[1, 2, 5], images[1, 6:9, 15:18].mean((0, 1)) / 255, rtol=1e-5)
    assert extractors.pixels((28, 28, 1)).name == "pixels"


def write_folder(root, images):
    root.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(root / f"{i:03d}.png")


def test_anybodys_images_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GM_JAX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    real, generated = rng.integers(0, 256, (2, 30, 6, 6, 3), dtype=np.uint8)
    write_folder(tmp_path / "real", real)
    np.savez(tmp_path / "generated.npz", images=generated)
    arguments = [str(tmp_path / "real"), str(tmp_path / "generated.npz"), f"--training={tmp_path / 'real'}"]
    assert command.main([*arguments, f"--json={tmp_path / 'out.json'}"]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    x, y = (images.reshape(30, -1) / np.float64(255) for images in (real, generated))
    expected = frechet_distance(gaussian(x), gaussian(y))
    assert found["results"]["frechet_pixels"]["value"] == pytest.approx(expected, rel=1e-5)
    assert found["about"]["n_real"] == 30 and found["about"]["extractor"] == "pixels"
    assert command.main([*arguments, "--n=20", "--n_generated=8", f"--json={tmp_path / 'few.json'}"]) == 0
    fewer = json.loads((tmp_path / "few.json").read_text())["about"]
    assert (fewer["n_real"], fewer["n_generated"]) == (20, 8)
    assert "memorisation_pixels" in found["results"] and "frechet_pixels" in capsys.readouterr().out

    statistics = gaussian(x)
    np.savez(tmp_path / "published.npz", mu=statistics.mean, sigma=statistics.covariance)
    command.main([str(tmp_path / "published.npz"), *arguments[1:2], f"--json={tmp_path / 'out.json'}"])
    found = json.loads((tmp_path / "out.json").read_text())["results"]
    assert set(found) == {"frechet_pixels"} and found["frechet_pixels"]["value"] == pytest.approx(expected, rel=1e-5)
    assert "n_real=" not in capsys.readouterr().out  # it is not known


def test_what_cannot_be_compared_is_told_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", images=rng.integers(0, 256, (9, 4, 4, 1), dtype=np.uint8))
    np.savez(tmp_path / "b.npz", images=rng.integers(0, 256, (9, 5, 5, 1), dtype=np.uint8))
    np.savez(tmp_path / "float.npz", images=rng.uniform(size=(9, 4, 4, 1)))
    np.savez(tmp_path / "pickle.npz", images=np.array([print], dtype=object))
    (tmp_path / "text.npz").write_text("no zip")
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "crooked.npz", mu=np.zeros(16), sigma=np.eye(3))
    np.savez(tmp_path / "endless.npz", mu=np.full(16, np.inf), sigma=np.eye(16))
    whole = (tmp_path / "statistics.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    at = whole.index(b"\xf0\x3f")  # a 1.0, which the file's checksum knows
    (tmp_path / "flipped.npz").write_bytes(whole[:at] + b"\xf1" + whole[at + 1 :])
    np.savez(tmp_path / "half.npz", mu=np.zeros(16), nu=np.eye(16))
    for real, generated, more, said in (
        ("cut", "a", [], "cannot be read as a .npz"),
        ("flipped", "a", [], "holds no statistics that can be read"),
        ("half", "a", [], "has no `images`"),
        ("a", "b", [], "images of 4x4x1 and 5x5x1 cannot be compared by pixels"),
        ("a", "float", [], "has float64"),
        ("a", "pickle", [], "cannot be read as a .npz"),
        ("text", "a", [], "cannot be read as a .npz"),
        ("a", "statistics", [], "the generated images themselves are needed"),
        ("statistics", "a", [], "features of 3 and 16 values"),
        ("a", "a", ["--metrics=frechet,kid"], "--metrics: 'kid' is not one of"),
        ("crooked", "a", [], r"mu \[16\] and sigma \[3, 3\]: they should be"),
        ("endless", "a", [], "they should be .* and finite"),
        ("a", "a", ["--n=1"], "a comparison needs two images or more"),
        ("a", "a", [f"--json={tmp_path / 'none' / 'out.json'}"], "there is no folder"),
    ):
        with pytest.raises(UserError, match=said):
            command.main([*(str(tmp_path / f"{name}.npz") for name in (real, generated)), *more])
    with pytest.raises(UserError, match=r"neither a folder nor a .npz"):
        command.main(["mnist", str(tmp_path / "a.npz")])


def test_kept_statistics_that_are_damaged_are_computed_again(tmp_path, caplog):
    features = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    path = tmp_path / "features.npz"
    expected = store.statistics(path, features)
    path.write_bytes(path.read_bytes()[:300])
    with caplog.at_level("WARNING"):
        again = store.statistics(path, features)
    np.testing.assert_array_equal(again.mean, expected.mean)
    assert f"{path} holds no statistics" in caplog.text and "computed again" in caplog.text
    np.testing.assert_array_equal(store.statistics(path, 0 * features).covariance, expected.covariance)  # kept


def test_runs_are_compared(runs, tmp_path, capsys):
    root, _ = runs
    evaluated(root / "gan")
    train_tiny(root / "gmm", "gmm_mnist", dataset__image_size=16)
    run = open_trained("gmm_mnist", {"evaluation.metrics": ("frechet", "memorisation")}, Workdir(root / "gmm"))
    assert evaluate.evaluate(run, "newest") == 0
    out = tmp_path / "comparison"
    assert compare.main([str(root / "gan"), str(root / "gmm"), f"--out={out}"]) == 0
    text, found = (out / "comparison.md").read_text(), json.loads((out / "comparison.json").read_text())
    assert text in capsys.readouterr().out
    gan, gmm = found
    assert (gan["family"], gmm["family"]) == ("gan", "gaussian_mixture") and gan["parameters"] > 0
    parts = text.split("**")[1:]  # titles and tables in turn
    tables = dict(zip(parts[::2], parts[1::2], strict=True))
    (judged,) = (body for title, body in tables.items() if title.startswith("Features of fnn_mnist"))
    assert "gan |" in judged and "gmm |" not in judged
    value = gmm["results"]["bits_per_dimension"]["value"]
    assert f"| {value:.4g}" in tables["Likelihoods"]
    assert f"| gan | {gan['results']['frechet_pixels']['value']:.4g} (!)" in text and "not of full rank" in text
    assert {point["split"] for point in gan["history"]} == {"validation", "test"}
    seconds = {point["step"]: point["seconds"] for point in gan["history"]}
    assert seconds[2] == pytest.approx(gan["training_seconds"] / 2) and seconds[4] == gan["training_seconds"]
    drawn = {"frechet_pixels.png", "frechet_pixels-2.png", "frechet_fnn_mnist.png"}  # of two n
    assert {path.name for path in out.glob("*.png")} == drawn
    assert "the runs were trained on different data" not in text.lower()
    with pytest.raises(UserError, match=r"has no evaluation.json: run mode evaluate"):
        compare.main([str(root / "judge"), f"--out={out}"])
