"""Where a number or a figure comes from stands beside it: in run.json, in evaluations.jsonl, in the figure's file."""

import json
import shutil

import pytest
from PIL import Image

from gm_jax import evaluate, provenance
from gm_jax.errors import UserError
from gm_jax.figures.caption import Caption
from gm_jax.run import open_trained, open_training
from gm_jax.train import train
from gm_jax.workdir import Workdir, append_line
from tests.tiny import open_tiny, shrunk, train_tiny

STAND_IN = "MNIST was not found: these are digits"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained GAN with overrides."""
    folder = Workdir(tmp_path_factory.mktemp("provenance"))
    folder.create()
    opened = open_training("gan_mnist", shrunk("gan_mnist", steps=4), folder, {"steps": 4})
    assert train(opened, "the command", began=0.0) == 0
    return opened


def test_run_json_says_what_was_started(run, tmp_path, monkeypatch):
    record = run.workdir.run()
    assert record["command"] == "the command" and record["overrides"] == {"steps": 4} and record["seed"] == 0
    assert record["rows"] == ["B2"] and record["code"]["version"]
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert set(provenance.code()) == {"version"}


def test_every_evaluation_is_kept(run):
    for samples in (9, 5):
        again = open_trained("gan_mnist", {"evaluation.samples": samples}, run.workdir)
        assert evaluate.evaluate(again, "newest") == 0
    append_line(run.workdir.evaluations, json.dumps({"step": 5}))
    first, second, third = map(json.loads, run.workdir.evaluations.read_text().splitlines())
    assert (first["step"], third["step"]) == (4, 5) and first["config"] == "gan_mnist"
    assert first["overrides"] == {"evaluation.samples": 9} and second["overrides"] == {"evaluation.samples": 5}
    assert first["results"]["similar_pairs"]["n"] == 9 and second["results"]["similar_pairs"]["n"] == 5
    assert json.loads((run.workdir.path / "evaluation.json").read_text()) == second


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
        assert (text["config"], text["data"], text["step"], text["stand_in"]) == ("gan_mnist", "digits", "4", "")
        assert text["Description"].startswith("gan_mnist on digits · step 4")
    assert "seed 0" in Image.open(run.workdir.figures / "samples.png").text["Description"]


def test_a_caption_announces_a_stand_in():
    caption = Caption("ddpm_mnist", "digits", 7, STAND_IN).plus("seed 3", "guidance 2.0")
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
