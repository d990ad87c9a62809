"""Where a number or a figure comes from stands beside it: in run.json, in evaluations.jsonl, in the figure's file."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gm_jax import evaluate, progress, provenance, sample, tasks
from gm_jax import train as loop
from gm_jax.errors import UserError
from gm_jax.figures.caption import Caption
from gm_jax.run import open_trained, open_training
from gm_jax.workdir import Workdir, append_line, flatten, is_neutral, refuse_changes
from tests.tiny import EXPERIMENTS, load, open_tiny, shrunk, train_tiny
from tests.toys import record

STAND_IN = "MNIST was not found: these are digits"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained GAN with overrides, and with digits as a stand-in."""
    folder = Workdir(tmp_path_factory.mktemp("provenance"))
    folder.create()
    opened = open_training("gan_mnist", shrunk("gan_mnist", steps=4, seed=7), folder, {"steps": 4})
    about = dict(stand_in=STAND_IN, attribute_names={"style": ("thin", "bold")})
    opened.dataset = dataclasses.replace(opened.dataset, **about)
    opened.experiment.spec = opened.spec._replace(**about)
    assert loop.train(opened, "the command", began=0.0) == 0
    return opened


def test_run_json_says_what_was_started(run, tmp_path, monkeypatch):
    record = run.workdir.run()
    assert record["command"] == "the command" and record["overrides"] == {"steps": 4} and record["seed"] == 7
    assert record["rows"] == ["B2"] and record["code"]["version"]
    (tmp_path / "cpuinfo").write_text("model name\t: CPU\ncpu family\t: 26\nmodel\t\t: 2\n\nmodel name\t: other\n")
    assert provenance.processor(tmp_path / "cpuinfo") == "CPU (family 26, model 2)"
    assert record["environment"]["processor"] == provenance.processor()
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert set(provenance.code()) == {"version"}


def test_every_evaluation_is_kept(run):
    for samples, checkpoint in ((9, "2"), (5, "newest")):
        again = open_trained("gan_mnist", {"evaluation.samples": samples}, Workdir(run.workdir.path))
        assert again.spec == run.spec
        assert evaluate.evaluate(again, checkpoint) == 0
    again.workdir.writes = False  # as in a second process
    assert evaluate.evaluate(again, "2") == 0
    append_line(run.workdir.evaluations, json.dumps({"step": 5}))
    first, second, third = map(json.loads, run.workdir.evaluations.read_text().splitlines())
    assert (first["step"], second["step"], third["step"]) == (2, 4, 5)
    assert (first["config"], first["data"], first["stand_in"]) == ("gan_mnist", "digits", STAND_IN)
    measured = first["results"]["energy_score"]
    assert (measured["n"], measured["split"], measured["seed"]) == (10, "test", 7)
    assert first["overrides"] == {"evaluation.samples": 9} and second["overrides"] == {"evaluation.samples": 5}
    assert first["results"]["similar_pairs"]["n"] == 9 and second["results"]["similar_pairs"]["n"] == 5
    assert json.loads((run.workdir.path / "evaluation.json").read_text()) == second
    assert 0.0 < second["seconds"] < 600.0


def test_a_run_of_an_older_version_is_refused_in_one_line(run, tmp_path):
    shutil.copytree(run.workdir.path, tmp_path / "old")
    old = Workdir(tmp_path / "old")
    record = {key: value for key, value in old.run().items() if key not in ("format", "code")}
    (old.path / "run.json").write_text(json.dumps(record))
    for open_again in (
        lambda: open_trained("gan_mnist", {}, old),
        lambda: open_training("gan_mnist", shrunk("gan_mnist", steps=4), old),
    ):
        with pytest.raises(UserError, match=r"of another format \(1, now 2\): check out that one's commit"):
            open_again()


def test_a_run_is_not_taken_for_another(run, tmp_path):
    """Neither one of another config, nor one of the same config on other data."""
    with pytest.raises(UserError, match="was written by the config gan_mnist, not ddpm_mnist"):
        open_trained("ddpm_mnist", {}, run.workdir)
    shutil.copytree(run.workdir.path, tmp_path / "copy")
    copy = Workdir(tmp_path / "copy")
    copy.update_run(dataset={**copy.run()["dataset"], "fingerprint": "of others"})
    for open_again in (
        lambda: open_trained("gan_mnist", {}, copy).dataset,
        lambda: open_training("gan_mnist", shrunk("gan_mnist", steps=4, seed=7), copy),
    ):
        with pytest.raises(UserError, match=r"was trained on digits .* but now digits"):
            open_again()


def test_a_run_from_before_a_key_goes_on_with_its_default(run, tmp_path):
    shutil.copytree(run.workdir.path, tmp_path / "old")
    old = Workdir(tmp_path / "old")
    config = json.loads((old.path / "config.json").read_text())
    del config["evaluation"]["inception"], config["evaluation"]["extractors"], config["optim"]["nesterov"]
    del config["gan"]["collapse_alarm"]  # a key of the task
    del config["if_embedded"], config["epochs"]  # whole groups
    (old.path / "config.json").write_text(json.dumps(config))
    again = open_trained("gan_mnist", {"evaluation.inception": "file"}, old)
    assert list(again.config.evaluation.extractors) == ["pixels"] and again.config.evaluation.inception == "file"
    assert again.config.gan.collapse_alarm == 0.3
    old.check(run.config)
    run_with = shrunk("gan_mnist", steps=4, optim__nesterov=True)
    with pytest.raises(UserError, match=r"optim.nesterov \(False there, True now\)"):
        old.check(run_with)


def test_a_line_is_appended_after_the_half_one_of_a_killed_process(tmp_path):
    path = tmp_path / "lines"
    append_line(path, "1")
    path.write_bytes(path.read_bytes() + b"hal")
    append_line(path, "2")
    assert path.read_text().splitlines() == ["1", "hal", "2"]


def test_every_figure_says_what_drew_it(run):
    figures = sorted(run.workdir.figures.glob("*.png"))
    assert len(figures) > 4
    for path in figures:
        text = Image.open(path).text
        assert (text["config"], text["data"], text["step"], text["stand_in"]) == ("gan_mnist", "digits", "4", STAND_IN)
        assert text["Description"].startswith(f"gan_mnist on digits · step 4 · NOTE: {STAND_IN}")
    assert "seed 0" in Image.open(run.workdir.figures / "samples.png").text["Description"]


def test_all_pictures_of_samples_are_drawn_with_the_seed_of_sampling(run, monkeypatch):
    """Of the checkpoint that is asked for; and the seed changes them."""
    again = open_trained("gan_mnist", {"sampling.seed": 5, "sampling.n": 3}, run.workdir)
    trained = again.restore("2")
    expected, other = (again.task.sample(trained.variables, 3, seed)["images"] for seed in (5, 0))
    assert not np.array_equal(expected, other)
    drawn = []
    for module, draw in (
        (sample, lambda: sample.sample(again, "2")),
        (loop, lambda: loop.draw_progress(again, trained)),
        (tasks.task, lambda: again.task.draw_samples(trained)),
    ):
        seen = record(monkeypatch, module, "save_grid")
        draw()
        drawn += [(name, images) for name, (images, *_) in seen.items()]
    assert [name for name, _ in drawn] == ["samples.png", "samples_0000002.png", "samples.png"]
    written = np.load(run.workdir.path / "samples.npz")
    rows = again.task.rows(trained, 3)["samples"].images
    for images in (written["images"], rows, *(images for _, images in drawn)):
        np.testing.assert_array_equal(images, expected)
    assert written["step"] == 2
    monkeypatch.undo()
    before = {path: path.stat().st_mtime_ns for path in run.workdir.path.rglob("*")}
    again.workdir = Workdir(run.workdir.path, writes=False)
    assert sample.sample(again, "2") == 0 == sample.figures(again, "2")
    assert before == {path: path.stat().st_mtime_ns for path in run.workdir.path.rglob("*")}


FREE = {"steps", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints", "rows", "minutes"}
FREE |= {"rollbacks"}  # which without a NaN does nothing
FREE |= {"dataset.data_dir", "dataset.folder"}  # what the data are is compared by checksum


def test_what_cannot_change_the_numbers_is_free_and_nothing_else(tmp_path):
    keys = {key for experiment in EXPERIMENTS for key in flatten(load(experiment))}
    assert {key for key in keys if is_neutral(key) and not key.startswith(("sampling.", "epochs."))} == FREE
    assert all(is_neutral(key) for key in keys if key.startswith(("sampling.", "epochs.")))
    for saved, now, said in (({}, {"a": 1}, "a (absent there, 1 now)"), ({"a": 1}, {}, "a (1 there, absent now)")):
        with pytest.raises(UserError) as told:
            refuse_changes(saved, now, tmp_path)
        assert said in str(told.value)


@pytest.mark.parametrize("work", ["checkpoints/3/", "metrics.jsonl", None])
def test_a_folder_with_any_work_keeps_its_config(work, tmp_path):
    """A config that never came to a step may be replaced."""
    folder = Workdir(tmp_path)
    folder.claim(shrunk("fnn_mnist"))
    folder.update_run(format=provenance.FORMAT)
    if work == "metrics.jsonl":
        folder.metrics.write_text('{"step": 1, "split": "train"}\n')
    elif work:
        (tmp_path / work).mkdir(parents=True)
    if work is None:
        folder.claim(shrunk("fnn_mnist", seed=1))
        assert folder.saved_config().seed == 1
    else:
        with pytest.raises(UserError, match=r"another config: seed \(0 there, 1 now\)"):
            folder.claim(shrunk("fnn_mnist", seed=1))
        assert folder.saved_config().seed == 0


def test_speed_leaves_out_the_first_call_and_what_pauses(tmp_path, monkeypatch):
    """Ten images a step; the first call ends at step 6 and second 20, steps 7 to 9 take three seconds without a pause.

    A resumed run hides what TensorBoard has of later steps, and its times are added to those before.
    """
    now, writers = SimpleNamespace(time=13.0), []
    writer = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("tensorboardX.SummaryWriter", lambda *_, **given: writers.append(given) or writer)
    monkeypatch.setattr(progress.time, "time", lambda: now.time)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.time - 5.0)
    folder = Workdir(tmp_path)
    folder.update_run(starts=[{"seconds": 0.1}] * 200, wall_time=7.5)
    with progress.Progress(folder, 4, 9, lambda step: 10 * step, began=12.0) as shown:
        now.time = 20.0
        shown.finished(6, {})
        with shown.paused():
            now.time = 120.0
        now.time = 123.0
        shown.finished(9, {})
        assert shown.images_per_second(9) == pytest.approx(30 / 3)
        monkeypatch.setattr(progress.time, "time", lambda: -1e9)  # the clock is set back
        shown.record(9)
    assert len(folder.run()["starts"]) == progress.STARTS  # however often it was started
    assert writers[0]["purge_step"] == 5
    last = folder.run()["starts"][-1]
    assert (last["from_step"], last["to_step"], last["seconds"], last["seconds_to_first_step"]) == (4, 9, 111.0, 8.0)
    assert folder.run()["wall_time"] == 118.5


def test_a_caption_announces_a_stand_in():
    caption = Caption("ddpm_mnist", "digits", 7, STAND_IN).plus("seed 3").plus("guidance 2.0")
    assert str(caption) == f"ddpm_mnist on digits · step 7 · NOTE: {STAND_IN} · seed 3 · guidance 2.0"
    assert caption.fields()["stand_in"] == STAND_IN and caption.fields()["Description"] == str(caption)


def test_arithmetic_that_the_judge_does_not_understand_is_refused_before_training(tmp_path):
    def check(expression, judge="shapes"):
        changes = {"sampling__arithmetic": expression, "evaluation__judge": judge}
        open_tiny(tmp_path, "dcgan_shapes", dataset__name="shapes", **changes).check()

    check("red circle - circle + square")
    check("3,17 - 5 + 19999", judge=None)
    check("red circle - 3,17 + square")
    with pytest.raises(UserError, match="does not know 'squid'"):
        check("red squid - blue")
    with pytest.raises(UserError, match="names sample 20000, but there are 20000, from 0"):
        check("3,17 - 5 + 20000", judge=None)
    with pytest.raises(UserError, match="a judge: give"):
        check("red circle - circle", judge=None)


def test_a_trained_judge_is_asked_before_training_too(tmp_path):
    judge = train_tiny(tmp_path / "judge", "fnn_mnist", steps=2).workdir.path
    changes = dict(dataset__image_size=28, evaluation__judge=str(judge))
    open_tiny(tmp_path / "new", "gan_mnist", sampling__arithmetic="3,17 - 5", **changes).check()
    with pytest.raises(UserError, match="does not know 'eleven'"):
        open_tiny(tmp_path / "new", "gan_mnist", sampling__arithmetic="eleven - 5", **changes).check()
