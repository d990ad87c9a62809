"""The report: what it makes of finished, half-finished, foreign and damaged workdirs; its pages; its plan."""

import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gm_jax import reproduce
from gm_jax.errors import UserError
from gm_jax.report import plots, words
from gm_jax.report.__main__ import build
from gm_jax.report.collection import collect
from gm_jax.report.facts import command
from gm_jax.report.pages import Site
from gm_jax.report.plan import Planner, Wish
from gm_jax.report.reports import Number, read_reports
from gm_jax.report.shipped import read_experiments
from tests.fake_runs import write_family, write_run
from tests.tiny import ROOT

EVIL = "<script>alert(1)<"
LATENTS = {
    size: {"mean_squared_error": 1.0 / size, "posterior_mean": [0.5] * size, "active_units": size} for size in (2, 4)
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of every kind of run, and of what is none."""
    root = tmp_path_factory.mktemp("report") / "runs"
    for seed, accuracy in enumerate((0.97, 0.98, 0.993)):
        write_run(root / f"fnn_mnist_{seed}", results={"accuracy": accuracy}, seed=seed)
    write_run(root / "again", results={"accuracy": 0.5}, seed=1)
    (root / "again" / "evaluation.json").write_text(json.dumps({"step": 40, "time": "2025", "results": {}}))
    write_run(root / "stopped", "fnn_cifar10", step=20)
    write_run(root / "not evaluated", "cnn_cifar10", results=None)
    write_run(root / "wider", "autoencoder_mnist", results={"mean_squared_error": 0.01}, model__latent_dim=64)
    stand_in = {"name": "digits", "origin": "embedded", "stand_in": "MNIST was not found", "trained_on": {"n": 100}}
    write_run(root / "stand-in", "denoising_autoencoder_mnist", record={"dataset": {**stand_in, "fingerprint": "d"}})
    scores = {"frechet_pixels": 3.5, "sampling_time": {"value": 0.01, "unit": "seconds", "n": 2000}}
    write_run(root / "vae_mnist", "vae_mnist", results={"elbo": -150.0, **scores}, sprites=("latent_plane",))
    of_features = {"value": 13.5, "n": 2000, "n_real": 10000, "n_generated": 2000, "split": "test"}
    digits = {"judged_accuracy": 0.9, **scores, "frechet_pixels": 2.5, "frechet_lenet_mnist": of_features}
    write_run(root / "ddpm_mnist", "ddpm_mnist", 4500, steps=4500, results=digits, sprites=("reverse_film",))
    losses = [
        {"step": 5 * i, "split": "train", "discriminator_loss": i / 8, "generator_loss": 2.0} for i in range(1, 51)
    ]
    losses.append({"step": 250, "split": "validation", "discriminator_loss": 0.0, "generator_loss": 0.0})
    write_run(root / "gan", "dcgan_cifar10", 250, steps=250, results={"energy_score": 1.0}, metrics=losses)
    alike = {"similar_pairs": {"value": 2000, "n": 1000, "split": "all"}}
    write_run(root / "cats", "dcgan_cats", 250, steps=250, results=alike, metrics=losses, record=epochs(50, 250))
    name = f"{EVIL}img src=x onerror=alert(1)>\" onload=\"alert(1)'`|$\\frac{{"
    evil = {"name": name, "origin": name, "fingerprint": "evil", "trained_on": {"n": 100}}
    write_run(root / name, record={"config": name, "rows": ["W2"], "command": name, "dataset": evil}, seed=5)
    write_family(root / "vae_mnist_sweep", "vae_mnist", "model.latent_dim", LATENTS, steps=40)
    spoil(root)
    return root


def epochs(count, steps):
    """The part of run.json by which `steps` are so many epochs of 100 examples."""
    return {"starts": [{"began": "2026-01-02", "to_step": steps, "images": 100 * count}]}


def spoil(root):
    """Add folders that are no runs, or damaged ones."""
    for name in ("empty", "foreign", "half", "text", "listless", "strange"):
        (root / name).mkdir()
    (root / "foreign" / "model.pt").write_bytes(b"\x80")
    (root / "listless" / "sweep.json").write_text("[]")
    write_family(root / "mixed", "vae_mnist", "model.latent_dim", {2: {"elbo": 1.0}, 4: {"elbo": 2.0}})
    mixed = json.loads((root / "mixed" / "sweep.json").read_text())
    mixed["members"][1]["values"] = {"seed": 1}
    (root / "mixed" / "sweep.json").write_text(json.dumps(mixed))
    (root / "text" / "config.json").write_text("not JSON {")
    write_run(root / "damaged", "lenet_mnist")
    with (root / "damaged" / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": 40, "split": "train", "loss": NaN, "accuracy": 0.5}\n{"step": 41, "spl')
    whole = (root / "damaged" / "figures" / "samples.png").read_bytes()
    (root / "damaged" / "figures" / "samples.png").write_bytes(whole[: len(whole) // 2])
    about = PngInfo()
    about.add_text("sprite", '{"columns": 2, "rows": 1, "width": 9, "height": 9}')
    Image.new("L", (9, 9)).save(root / "damaged" / "figures" / "latent_plane.png", pnginfo=about)
    (root / "damaged" / "evaluation.json").write_text('{"step": 40, "results": {"accuracy": {"value": NaN}}}')
    for name, content in (("half", {"task": "vae"}), ("strange", {"task": "vae", "seed": 0, "steps": "many"})):
        (root / name / "config.json").write_text(json.dumps(content))
        (root / name / "run.json").write_text("{}")


REASONS = {
    "again": "the same experiment, settings and seed as fnn_mnist_1",
    "stopped": "at step 20 of 40: start it again",
    "not evaluated": "not evaluated: run --mode=evaluate",
    "wider": "differently configured: model.latent_dim=64",
    "stand-in": "trained on other data than asked for: MNIST was not found",
    "empty": "an empty folder",
    "foreign": "no run of gm_jax: it has no config.json",
    "half": "config.json is not what gm_jax writes: it has no seed",
    "strange": "config.json is not what gm_jax writes: it has no steps, or a strange one",
    "text": "config.json cannot be read",
    "listless": "sweep.json is not what gm_jax writes",
    "mixed": "its members are of different keys",
    "vae_mnist_sweep": "without model.latent_dim=8,16,32,64",
}


def test_what_is_left_out_is_listed_with_its_reason(runs):
    found = {}
    for fault in collect(runs).faults:
        found.setdefault(fault.name, []).append(fault.reason)
    for name, reason in REASONS.items():
        assert any(reason in said for said in found[name]), (name, found.get(name))
    said = " ".join(found["damaged"])
    assert "2 of 11 lines are damaged and left out, the first is line 9" in said
    assert "figures/samples.png is no whole picture" in said and "no finite value of accuracy" in said
    assert "the sprite figures/latent_plane.png does not fit what it says of itself" in said
    whole = {"fnn_mnist_0", "fnn_mnist_1", "fnn_mnist_2", "vae_mnist", "cats", "ddpm_mnist"}
    assert not whole & found.keys()


def test_runs_are_put_to_their_rows(runs):
    """Seeds become a mean and a standard deviation; a sweep is a row of its own; what is changed is never done."""
    results = {result.row.id: result for result in collect(runs).results}
    states = {row: result.state for row, result in results.items() if result.state != "not run"}
    assert states == {
        **dict.fromkeys(("W1", "W7", "H1", "D1", "P1", "T5"), "done"),
        **dict.fromkeys(("W2", "W3", "W9", "T1", "T4", "B1"), "partly"),
    }
    assert results["W9"].uncompared == ["gan"]
    (entry,) = (entry for entry in results["W1"].entries if entry.is_whole)
    found = words.measure(entry, results["W1"].row.numbers[0])
    assert [run.seed for run in entry.runs] == [0, 1, 2] and found.n == 10000
    np.testing.assert_allclose([found.value, found.error], [98.1, np.std([97, 98, 99.3], ddof=1)])
    assert str(found) == "98.1 ± 1.2" and found.of == "standard deviation of 3 seeds"
    assert entry.first.epochs == 4.0
    assert [e.label for e in results["W1"].missing] == ["fnn_mnist:modern"]
    assert [e.values for e in results["B1"].families[0].entries] == [{"model.latent_dim": n} for n in (2, 4)]
    assert [e.name for e in results["D1"].entries] == ["ddpm_mnist"]


def test_numbers_are_in_their_unit_and_of_the_lines_and_images_that_they_say(runs):
    results = {result.row.id: result for result in collect(runs).results}

    def found(row, number):
        entry = next(entry for entry in results[row].entries if entry.is_whole)
        return words.measure(entry, results[row].row.numbers[number])

    assert (found("H1", 0).value, found("H1", 0).error, found("H1", 0).about) == (-150.0, 0.001, "test")
    assert (found("D1", 0).value, found("D1", 1).value, found("D1", 1).n) == (90.0, 13.5, 2000)
    assert (found("W7", 0).value, found("W7", 1).value) == (2.0, 0.125)  # the smallest of training, none of validation
    entry = results["W1"].entries[0]
    assert plots.has_curve(entry, "loss") == [(1.0, 5.0), (2.0, 2.5), (3.0, 5 / 3), (4.0, 1.25)]  # of validation


def test_a_number_of_another_step_or_way_of_sampling_is_not_that_of_the_experiment(tmp_path):
    """It stays on the page, under its own step and with what differs; the plan evaluates again."""
    for name, experiment, about in (
        ("fnn_mnist", "fnn_mnist", {"step": 20}),
        ("split", "cnn_cifar10", {"overrides": {"evaluation.split": "train"}}),
        ("ddpm_mnist", "ddpm_mnist", {"overrides": {"sampling.guidance": 5.0, "sampling.n": 9, "evaluation.n": 3}}),
    ):
        folder = write_run(tmp_path / "runs" / name, experiment, 4500, steps=4500)
        evaluation = json.loads((folder / "evaluation.json").read_text()) | about
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    collection = collect(tmp_path / "runs")
    lacks = {entry.name: entry.lacks[-1] for entry in collection.entries}
    assert lacks["fnn_mnist"] == "its evaluation is of step 20, not of 4,500"
    assert lacks["cnn_cifar10"] == "evaluated differently: evaluation.split=train"
    assert lacks["ddpm_mnist"] == "evaluated differently: sampling.guidance=5.0"
    build(tmp_path / "runs", tmp_path / "pages")
    assert re.search(r"`fnn_mnist`: .* checkpoint of step 20, 2026", (tmp_path / "pages" / "results.md").read_text())
    assert "checkpoint of step 20 " in Page(tmp_path / "pages" / "W.html").text
    made = plan(tmp_path / "runs", tmp_path / "runs", rows=["W1", "D1"])
    assert [job.name for job in made.jobs] == ["fnn_mnist", "lenet_mnist", "ddpm_mnist"]
    assert (made.jobs[0].minutes, made.jobs[2].minutes) == (0.5, 1.0)  # all is trained: evaluating is left


def test_only_seeds_are_averaged_commands_are_whole_and_a_sweep_reaches_no_further_than_its_folder(tmp_path):
    other = {"name": "mnist", "origin": "tfds", "fingerprint": "other", "trained_on": {"n": 100}}
    for seed, record in ((0, {}), (1, {}), (2, {"dataset": other})):
        write_run(tmp_path / "runs" / str(seed), seed=seed, record=record)
    write_run(tmp_path / "runs" / "wide", "autoencoder_mnist", seed=3, model__latent_dim=64)
    write_run(tmp_path / "outside")
    family = write_family(tmp_path / "runs" / "family", "vae_mnist", "model.latent_dim", {2: {"elbo": 1.0}})
    listed = json.loads((family / "sweep.json").read_text())
    listed["members"].append({"values": {"model.latent_dim": 4}, "workdir": "../../outside"})
    (family / "sweep.json").write_text(json.dumps(listed))
    collection = collect(tmp_path / "runs")
    seeds = [[run.seed for run in entry.runs] for entry in collection.entries if entry.name == "fnn_mnist"]
    assert sorted(seeds) == [[0, 1], [2]]
    (wide,) = (entry for entry in collection.entries if entry.name == "autoencoder_mnist")
    start = "python -m gm_jax.main --config=configs/autoencoder_mnist.py"
    assert command(wide) == f"{start} --config.model.latent_dim=64 --config.seed=3"
    assert all(run.path.is_relative_to(tmp_path / "runs") for run in collection.runs) and len(collection.runs) == 5
    assert "family/outside" in {fault.name for fault in collection.faults}


def test_a_sweep_of_other_samples_is_not_the_rows_and_its_plot_says_what_its_bars_are(tmp_path):
    (row,) = (row for report in read_reports() for row in report.rows if row.id == "B2")
    scores = [{"energy_score": {"value": 0.1, "standard_error": 0.01, "n": n}} for n in (50, *5 * [1000])]
    members = dict(zip(row.sweep.values, scores, strict=True))
    family = write_family(tmp_path / "family", "gan_mnist", row.sweep.key, members, row.sweep)

    def found():
        return next(result.families[0] for result in collect(tmp_path).results if result.families)

    assert found().lacks(row.sweep) == []
    text = " ".join(re.findall(r">([^<>]+)</text>", plots.sweep(found(), row.sweep.key, row.numbers)))
    assert "bars: ± 2 x standard error, n = 50 or 1,000" in " ".join(text.split())
    path = family / "model.latent_dim=8" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"overrides": {"sampling.label": 7, "sampling.n": 9}}))
    assert found().lacks(row.sweep) == ["differently configured: sampling.label=7"]


def test_seeds_that_were_measured_differently_are_not_averaged(tmp_path):
    """Of another number of images, split or judge they stand apart; the mean is of the way that most seeds share."""
    usual = {"n_generated": 2000, "n_real": 1000, "split": "test", "judge": "lenet, step 9"}
    ways = (usual | {"n_generated": 50}, usual, usual, usual | {"split": "train"}, usual | {"judge": "lenet, step 1"},
            usual | {"n_real": 10})  # fmt: skip
    for seed, about in enumerate(ways):
        write_run(tmp_path / str(seed), results={"accuracy": {"value": 0.1 * (seed + 1), **about}}, seed=seed)
    (entry,) = collect(tmp_path).entries
    found = words.measure(entry, Number("test accuracy", ours="accuracy"))
    assert (found.value, found.of, found.n) == (pytest.approx(0.25), "standard deviation of 2 seeds", 2000)
    assert "seed 0 apart: 0.1 of n = 50, test, lenet, step 9" in found.said
    assert all(f"seed {seed} apart" in found.said for seed in (3, 4, 5))


def test_pictures_of_folders_with_like_names_are_kept_apart(runs, tmp_path):
    site, figure = Site(tmp_path / "pages", collect(runs)), collect(runs).runs[0].figures["samples"]
    assert len({site.href(figure, name) for name in ("a b", "a_b", "a/b", "a\\b")}) == 4
    assert all(path.resolve().is_relative_to(tmp_path) for path in (tmp_path / "pages" / "figures").rglob("*"))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (97.95, 0.141, "97.95 ± 0.14"),
        (-152.07, 12.0, "-152 ± 12"),
        (0.0060123, None, "0.006012"),
        (2412, None, "2,412"),
        (3.2e-7, None, "3.200e-07"),
        (0.5, 0.00013, "0.50000 ± 0.00013"),
        ([0.5, -0.25], None, "0.5000, -0.2500"),
    ],
)
def test_numbers_are_printed_to_the_place_of_their_error(value, error, text):
    assert words.with_error(value, error) == text


class Page(HTMLParser):
    """The addresses, ids, scripts and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += f"{data} "

    def values(self, *names):
        return [a[name] for _, a in self.tags for name in names if name in a]


@pytest.fixture(scope="module")
def pages(runs, tmp_path_factory):
    """The pages of all reports by name, and the folder."""
    out = tmp_path_factory.mktemp("pages")
    said = build(runs, out)
    assert "6 are done, 6 partly" in said
    return out, {path.stem: Page(path) for path in out.glob("*.html")}


def test_pages_hold_together_and_nothing_in_a_name_is_executed(pages):
    out, found = pages
    assert sorted(found) == ["B", "D", "H", "P", "T", "W", "index"]
    for name, page in found.items():
        assert [a["src"] for tag, a in page.tags if tag == "script"] == ["report.js"]
        assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
        for address in page.values("href", "src"):
            file, _, anchor = address.partition("#")
            if not address.startswith("data:"):
                assert not file or (out / file.replace("%2C", ",").replace("%3D", "=")).is_file(), (name, address)
                assert not anchor or anchor in found[Path(file).stem or name].values("id"), (name, address)
    assert EVIL in found["index"].text and EVIL in found["W"].text
    text = (out / "results.md").read_text()
    assert EVIL not in text and "average posterior mean: 0.5000, 0.5000, 0.5000, 0.5000; the report: -0.1119" in text


def test_pages_show_report_and_ours_side_by_side(pages):
    _, found = pages
    text = {name: " ".join(page.text.split()) for name, page in found.items()}
    assert "98.1 ± 1.2 %" in text["W"] and "the report: 97.34 %" in text["W"]
    assert "± standard deviation of 3 seeds" in text["W"] and "± standard error" in text["H"]
    assert "seeds 0, 1, 2" in text["W"] and "n = 10,000" in text["W"] and "4 epochs" in text["W"]
    assert "python -m gm_jax.main --config=configs/fnn_mnist.py:modern 5 min" in text["W"]
    assert "0.5000, 0.5000, 0.5000, 0.5000 the report: -0.1119" in text["B"]
    assert "5 0.6250 2.0000 epochs between 46 5.7500 2.0000" in text["P"] and "50 6.2500 2.0000" in text["P"]
    assert "1 0.3554 1.7254" in text["P"] and "not measured" in text["P"] and "the report: 2,412" in text["P"]
    assert "10,000 samples, real images of test" in text["index"]
    assert "z = " not in text["index"]  # which the script says
    sprites = {name: [json.loads(sprite) for sprite in page.values("data-sprite")] for name, page in found.items()}
    assert (
        sprites["index"]
        == [*sprites["H"], *sprites["D"]]
        == [
            {"columns": 3, "rows": 3, "width": 8, "height": 8, "along": [-1.0, 0.0, 1.0]},
            {"columns": 1, "rows": 4, "width": 16, "height": 16, "noise": [1.0, 0.6, 0.2, 0.0]},
        ]
    )


def test_forty_runs_take_no_minute_and_no_jax(tmp_path):
    for seed in range(40):
        write_run(tmp_path / "runs" / str(seed), seed=seed)
    script = "import sys; from gm_jax.report.__main__ import main; main(sys.argv[1:]); assert 'jax' not in sys.modules"
    began = time.time()
    command = [sys.executable, "-c", script, str(tmp_path / "runs"), f"--out={tmp_path / 'out'}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert time.time() - began < 60


def test_a_folder_that_is_not_there_or_cannot_be_written_is_told(runs, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        build(tmp_path / "none", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        build(runs, tmp_path / "file")


def test_reports_say_what_the_documentation_says():
    """Every row of reports.toml is a row of docs/reports.md, with the configs that name it and the report's number."""
    lines = (ROOT / "docs" / "reports.md").read_text().splitlines()
    table = {
        row: line for line in lines for row in re.findall(r"\b[WBHTPD]\d\b", line.split("|")[1] if "|" in line else "")
    }
    rows = {row.id: row for report in read_reports() for row in report.rows}
    assert table.keys() == rows.keys()
    for experiment in read_experiments().values():
        for row in experiment.rows:
            config = experiment.label.partition(":")[0]
            assert f"`{config}" in table[row] or f"`{config.split('_')[0]}_*`" in table[row], (row, experiment.label)
    for row in rows.values():
        for number in row.numbers:
            if isinstance(number.report, float) and number.unit == "%":
                assert f"{number.report} %" in table[row.id]


def plan(folder, tmp_path, done=(), **wish):
    planner = Planner(collect(folder), tmp_path, Wish(**wish), lambda e: "no cats" if "cats" in e.name else "")
    return planner.plan(done)


def test_the_plan_is_cheapest_first_within_the_budget(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    whole = plan(folder, folder, rows=["W1", "T1", "D1", "H3", "T8", "P2", "D2", "B2"], budget=1e6)
    trained = {name: experiment.minutes for name, experiment in read_experiments().items()}
    evaluated = {"fnn_mnist": 0.5, "autoencoder_mnist": 0.5, "lenet_mnist": 0.5, "ddpm_mnist": 1.0}
    expected = [(name, trained[name] + minutes) for name, minutes in evaluated.items()]
    assert [(job.name, job.minutes) for job in whole.jobs[:4]] == expected
    assert {job.name for job in whole.jobs[4:]} == {"cgan_mnist_modern", "gan_mnist_sweep"}
    assert dict(whole.left_out).keys() == {"P2", "D2"} and "no cats" in dict(whole.left_out)["P2"]
    assert {job.name: job.rows for job in whole.jobs}["cgan_mnist_modern"] == ("H3", "T8") and whole.scale is None
    few, both = sum(minutes for _, minutes in expected[:2]), sum(minutes for _, minutes in expected[2:])
    some = plan(folder, folder, rows=["W1", "T1", "D1"], budget=few + both - 1)
    assert [job.name for job in some.jobs] == ["fnn_mnist", "autoencoder_mnist"]
    assert dict(some.left_out) == {"D1": f"lenet_mnist and ddpm_mnist: {both:.0f} minutes, {both - 1:.0f} are left"}


def test_the_plan_goes_on_from_what_is_there(tmp_path, monkeypatch):
    """Finished seeds stay, half of a half-finished run is left, and minutes are as long as they were here."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    folder = tmp_path / "runs"
    write_run(folder / "fnn_mnist", record={"wall_time": 180.0})
    write_run(
        folder / "gmm_mnist", "gmm_mnist", 1, steps=1, results={"log_likelihood": 1.0}, record={"wall_time": 180.0}
    )
    write_run(folder / "autoencoder_mnist", "autoencoder_mnist", 20, results=None, record={"wall_time": 60.0})
    write_run(folder / "sparse_autoencoder_mnist", "sparse_autoencoder_mnist", model__latent_dim=7)
    write_run(folder / "mine", "vae_mnist", record={"wall_time": 720.0})  # the row's dearer experiment
    write_run(folder / "mine too", "vae_mnist", seed=1, record={"wall_time": 2160.0})
    made = plan(folder, folder, rows=["W1", "T1", "H0", "T2", "H1"], seeds=2)
    assert made.scale == 2.0
    assert [(job.name, job.minutes) for job in made.jobs] == [
        ("autoencoder_mnist", 1.5), ("fnn_mnist_seed=1", 2.5), ("autoencoder_mnist_seed=1", 2.5),
        ("lenet_mnist", 2.0 * read_experiments()["lenet_mnist"].minutes + 0.5), ("gmm_mnist_seed=1", 5.0),
    ]  # fmt: skip
    assert "holds a run of sparse_autoencoder_mnist with other settings (model.latent_dim)" in dict(made.left_out)["T2"]
    assert "--config.seed=1" in made.jobs[1].commands[1] and "--mode=evaluate" in made.jobs[1].commands[1]
    with pytest.raises(UserError, match=r"no row 'W0' \(did you mean"):
        plan(folder, folder, rows=["W0"])


def test_the_plan_counts_evaluations_as_they_were_here_and_what_is_behind_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    folder = tmp_path / "runs"
    for name, experiment, seconds in (("fnn", "fnn_cifar10", 165.0), ("ddpm", "diffusion10_mnist", 345.0)):
        write_run(folder / name, experiment)
        evaluation = json.loads((folder / name / "evaluation.json").read_text()) | {"seconds": seconds}
        (folder / name / "evaluation.json").write_text(json.dumps(evaluation))
    (row,) = (row for report in read_reports() for row in report.rows if row.id == "B1")
    members = {2: {"elbo": -1.0}, 4: {"elbo": -1.0}}
    family = write_family(folder / "vae_mnist_sweep", "vae_mnist", row.sweep.key, members, row.sweep)
    half = family / "model.latent_dim=4" / "run.json"
    steps = row.sweep.overrides["steps"]
    half.write_text(half.read_text().replace(f'"to_step": {steps}', f'"to_step": {steps // 2}'))
    monkeypatch.setattr("gm_jax.report.expected.speed", lambda *_: 1.0)
    made = plan(folder, folder, rows=["W1", "D1", "T1", "B1"])
    minutes = {job.name: job.minutes for job in made.jobs}
    assert minutes["fnn_mnist"] == 1 + 165 / 60 + 0.25 and minutes["ddpm_mnist"] == 6 + 345 / 60 + 0.25
    assert minutes["autoencoder_mnist"] == 1.5  # none of its task is timed
    assert minutes["vae_mnist_sweep"] == pytest.approx(row.sweep.minutes * (6 - 1.5) / 6, rel=1e-3)


def test_real_images_are_measured_after_the_runs_whose_samples_are_judged(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    made = plan(folder, folder, rows=["W9", "H3"])
    assert [job.name for job in made.jobs] == ["lenet_mnist", "cgan_mnist_modern", "real_mnist"]
    assert made.jobs[-1].rows == ("W9",) and made.jobs[-1].log == "real_mnist.log"
    by_judge, by_pixels = made.jobs[-1].commands
    assert by_judge[:4] == ["gm_jax.metrics", "mnist:test", "mnist:train", f"--extractor={folder}/lenet_mnist"]
    assert "--n_generated=10000" in by_judge and by_pixels[-1] == f"--json={folder}/real_mnist_pixels.json"
    (folder / "real_mnist_lenet_mnist.json").write_text("{}")
    write_run(folder / "lenet_mnist", "lenet_mnist")
    assert plan(folder, folder, rows=["W9"]).jobs[0].commands == [by_pixels]


def test_reproduction_runs_the_plan_builds_the_pages_and_goes_on(tmp_path, monkeypatch, capsys):
    """The judge comes first, then whose samples it judges; after a signal the same command does what is left."""
    folder, out, ran = tmp_path / "runs", tmp_path / "pages", []

    def run_jobs(jobs, cores):
        (job,) = jobs
        if len(ran) == 9:
            return 1, 0
        ran.append([command[-1].rpartition("/")[2] for command in job.commands])
        if len(ran) == 2:
            return 0, 15
        write_run(folder / job.name, job.name, 1, steps=1, results={"log_likelihood": 1.0})
        return 0, 0

    monkeypatch.setattr(reproduce.processes, "run_jobs", run_jobs)
    arguments = [f"--runs={folder}", f"--out={out}", "--rows=H0"]
    assert reproduce.main([*arguments, "--dry_run"]) == 0 and not ran
    assert "lenet_mnist" in capsys.readouterr().out and not out.exists()
    assert reproduce.main(arguments) == 128 + 15 and (out / "index.html").exists()
    assert "--rows=H0" in capsys.readouterr().out
    assert reproduce.main(arguments) == 0
    assert ran[0] == ["lenet_mnist", "--mode=evaluate"] and ran[1] == ran[2]
    assert ran[1][1] == "lenet_mnist,pixels"
    assert reproduce.main(arguments) == 0 and len(ran) == 3
    ran += 6 * [None]
    assert reproduce.main([f"--runs={folder}", f"--out={out}", "--rows=W1", "--budget=30"]) == 1
    said = capsys.readouterr().out
    assert f"failed: W1: fnn_mnist, see {folder}/fnn_mnist/log.txt" in said and " of 30 min, 1 of them failed" in said
    with pytest.raises(UserError, match="must be positive"):
        reproduce.main(["--seeds=0"])
    with pytest.raises(UserError, match="choose another folder with --runs"):
        reproduce.main([f"--runs={out / 'index.html'}", "--dry_run"])
