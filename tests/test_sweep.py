"""Sweeps: the product of values, mistakes told before anything starts, continuation, a failing member, a signal."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from gm_jax import backend, cli, evaluate, sweep
from gm_jax.errors import UserError
from gm_jax.figures import sweep as figures
from gm_jax.processes import run_jobs, share_cores
from gm_jax.workdir import Workdir
from tests.tiny import CONFIGS, flags, gm_jax, train_tiny
from tests.toys import CAPTION, record

NAIVE_BAYES = f"--config={CONFIGS['naive_bayes_mnist']}"


@pytest.fixture
def command_line(monkeypatch):
    """Parse this config in this process, as the sweep's own command line is."""
    argv = ["sweep", f"--config={CONFIGS['ddpm_mnist']}"]
    monkeypatch.setattr(sys, "argv", argv)
    cli.parse(argv)
    yield
    cli.FLAGS.unparse_flags()


def test_product_of_typed_values(command_line, tmp_path):
    texts = sweep.parse_sweeps(["model.multipliers=(1,2),(1,)", "optim.learning_rate=1e-3,2"])
    members = sweep.make_members(texts, tmp_path)
    assert [member.values for member in members] == [
        {"model.multipliers": multipliers, "optim.learning_rate": rate}
        for multipliers in ((1, 2), (1,))
        for rate in (0.001, 2.0)
    ]
    assert members[0].name == "model.multipliers=(1,2),optim.learning_rate=0.001"
    assert members[1].config.model.multipliers == (1, 2) and members[1].config.optim.learning_rate == 2.0
    # What the member's own process will read.
    assert cli.read_config(members[2].arguments)[0] == members[2].config


def test_shards_are_a_partition():
    shares = [list(range(7))[sweep.parse_shard(f"{i}/3")] for i in range(3)]
    assert sorted(i for share in shares for i in share) == list(range(7)) and max(map(len, shares)) == 3
    with pytest.raises(UserError, match="--shard=3/3 is not I/N"):
        sweep.parse_shard("3/3")


def test_a_shard_runs_its_own_members_that_are_not_finished(monkeypatch, tmp_path):
    """Of seeds 0 to 3 shard 1/2 has 1 and 3, and 3 is finished: trained to the last step, and evaluated there."""
    sweeping = ["--sweep=seed=0,1,2,3", "--shard=1/2", "--config.steps=4", "--config.dataset.name=digits"]
    jobs = []
    monkeypatch.setattr(sweep, "run_jobs", lambda given, cores: jobs.append(given) or (0, 0))
    for number, evaluated in ((1, 2), (3, 4)):
        (tmp_path / f"seed={number}" / "checkpoints" / "4").mkdir(parents=True)
        (tmp_path / f"seed={number}" / "evaluation.json").write_text(json.dumps({"step": evaluated}))
    for mode in ("train", "evaluate"):
        monkeypatch.setattr(sys, "argv", ["sweep", NAIVE_BAYES, f"--workdir={tmp_path}", *sweeping, f"--mode={mode}"])
        with flagsaver.flagsaver():
            cli.parse(sys.argv)
            assert sweep.main(None) == 0
    modes = [[(job.name, command[-1]) for job in given for command in job.commands] for given in jobs]
    assert modes[0] == [("seed=1", "--mode=train"), ("seed=1", "--mode=evaluate")]
    assert modes[1] == [("seed=1", "--mode=evaluate"), ("seed=3", "--mode=evaluate")]


def test_jobs_share_the_cores():
    cores = os.sched_getaffinity(0)
    shares = share_cores(len(cores))
    assert {core for share in shares for core in share} == cores and all(len(share) == 1 for share in shares)
    with pytest.raises(UserError, match="the number of CPU cores"):
        share_cores(len(cores) + 1)


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (["model.width=8,wide"], "model.width=wide"),
        (["seed=1,2", "seed=3"], "seed is given twice"),
        (["optim.learning_rate=2,2.0"], "optim.learning_rate=2.0 is given twice"),
        (["dataset.folder=/a,/b"], "cannot contain '/'"),
        (["seed"], "give a key and its values"),
        ([], "sweep what"),
    ],
)
def test_values_that_cannot_be_swept(sweeps, message, command_line, tmp_path):
    with pytest.raises(UserError, match=message):
        sweep.make_members(sweep.parse_sweeps(sweeps), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.smothing=1,2"], "the config has no key 'model.smothing' (did you mean 'model.smoothing'?)"),
        (["model.smoothing=0.5,0.0"], "model.smoothing=0.0 must be above 0"),
        (["seed=0,1", "--processes=2"], "a sweep trains every member in one process: leave out --processes"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_starts(arguments, message, tmp_path):
    family = tmp_path / "family"
    digits = "--config.dataset.name=digits"
    result = gm_jax(NAIVE_BAYES, digits, f"--workdir={family}", "--sweep", *arguments, script="-m gm_jax.sweep")
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("gm_jax: ")]
    assert lines == [f"gm_jax: {message}"], result.stderr
    assert "Traceback" not in result.stderr and not family.exists()


def test_finished_half_done_and_failing_members_then_the_family(tmp_path, monkeypatch):
    """One member is finished, one stopped half-way, one began with other data and fails; without it they are drawn."""
    half = tmp_path / "model.smoothing=0.5"
    train_tiny(half, "naive_bayes_mnist", steps=2, model__smoothing=0.5)
    evaluate.evaluate(train_tiny(tmp_path / "model.smoothing=2.0", "naive_bayes_mnist", model__smoothing=2.0), "newest")
    failing = Workdir(tmp_path / "model.smoothing=1.0")
    failing.create()
    failing.update_run(dataset={"name": "others", "origin": "o", "location": "l", "fingerprint": "f"})
    command = [flag for flag in flags("naive_bayes_mnist", tmp_path) if "smoothing" not in flag]
    result = gm_jax(*command, "--sweep=model.smoothing=0.5,1.0,2.0", "--jobs=2", script="-m gm_jax.sweep", devices=2)
    assert result.returncode == 1, result.stderr
    assert "1 finished; running 2" in result.stdout
    failure = f"gm_jax: model.smoothing=1.0 failed with exit status 2, saying: gm_jax: {failing.path} was trained on "
    assert failure in result.stderr
    assert "not yet: model.smoothing=1.0" in result.stdout and not (tmp_path / "figures").exists()
    assert "from step 2" in (half / "log.txt").read_text()
    evaluations = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/evaluation.json")}
    assert {path.parent.name for path in evaluations} == {"model.smoothing=0.5", "model.smoothing=2.0"}

    result = gm_jax(*command, "--sweep=model.smoothing=0.5,2.0", script="-m gm_jax.sweep", devices=2)
    assert result.returncode == 0, result.stderr
    assert "2 finished; running 0" in result.stdout
    assert evaluations == {path: path.stat().st_mtime_ns for path in evaluations}
    for name in ("samples", "numbers"):
        assert min(Image.open(tmp_path / "figures" / f"{name}.png").size) > 100
    listed = json.loads((tmp_path / "sweep.json").read_text())
    assert listed["config"] == "naive_bayes_mnist" and listed["keys"] == ["model.smoothing"]
    assert listed["members"][1] == {"values": {"model.smoothing": 2.0}, "workdir": "model.smoothing=2.0"}

    seen = record(monkeypatch, figures, "save_rows", "save_numbers")
    monkeypatch.setattr(backend, "configure", lambda: None)
    folders = {smoothing: Workdir(tmp_path / f"model.smoothing={smoothing}") for smoothing in (0.5, 2.0)}
    members = [sweep.Member({"model.smoothing": s}, [], None, {}, folder) for s, folder in folders.items()]
    sweep.draw_family("naive_bayes_mnist", tmp_path, members)
    assert [label for label, _ in seen["samples.png"][0]] == ["model.smoothing=0.5", "model.smoothing=2.0"]
    for (values, results), (smoothing, folder) in zip(seen["numbers.png"][0], folders.items(), strict=True):
        assert values == {"model.smoothing": smoothing}
        assert results == json.loads((folder.path / "evaluation.json").read_text())["results"]

    other = sweep.Member({"seed": 1}, [], None, {}, Workdir(tmp_path / "seed=1"))
    with pytest.raises(UserError, match=r"is a sweep of naive_bayes_mnist over model.smoothing: use another --workdir"):
        sweep.claim("naive_bayes_mnist", tmp_path, [other])


def test_a_signal_stops_the_members_which_save(tmp_path):
    changes = dict(steps=10**7, log_every=10, evaluate_every=10**7)
    jobs = [
        sweep.Member({}, flags("naive_bayes_mnist", tmp_path, **changes), None, {}, Workdir(tmp_path / name))
        for name in ("first", "second")
    ]
    jobs = [member.job(("train", "evaluate")) for member in jobs]

    def send():
        deadline = time.time() + 300
        while not list(tmp_path.glob("first/checkpoints/[0-9]*")) and time.time() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    assert run_jobs(jobs, share_cores(1)) == (0, signal.SIGTERM)
    sender.join()
    said = (tmp_path / "first" / "log.txt").read_text()
    assert ", saved. Continue with:\n  python -m gm_jax.main" in said
    assert not (tmp_path / "first" / "evaluation.json").exists() and not (tmp_path / "second").exists()


def test_numbers_stand_over_their_values_with_two_standard_errors(tmp_path, monkeypatch):
    """A line for each value of the other keys; what is the same in all runs, or missing in one, has no panel."""
    seen = record(monkeypatch, figures, "save_figure")
    runs = []
    for dim, seed in ((8, 0), (2, 0), (2, 1), (8, 1)):
        error = {"value": 10.0 * dim + seed, "standard_error": 0.5 + seed, "n": 9 + dim}
        results = {"error": error, "same": {"value": 1.0}, **({"rare": error} if seed else {})}
        runs.append(({"dim": dim, "seed": seed}, results))
    figures.save_numbers(tmp_path / "numbers.png", runs, CAPTION)
    (panel,) = seen["numbers.png"][0].axes
    assert panel.get_title() == "error (n = 11 or 17)" and panel.get_xlabel() == "dim"
    for seed, bars in enumerate(panel.containers):
        line, _, (segments,) = bars
        assert bars.get_label() == f"seed={seed}"
        np.testing.assert_array_equal(line.get_xydata(), [[2, 20 + seed], [8, 80 + seed]])
        np.testing.assert_allclose(np.ptp([s[:, 1] for s in segments.get_segments()], 1), 4 * (0.5 + seed))


def test_rows_stand_below_each_other_with_their_labels(tmp_path):
    images = np.stack([np.full((4, 4, 1), level, np.uint8) for level in (0, 255)])
    figures.save_rows(tmp_path / "rows.png", [("", images), ("latent_dim=2", images[::-1])], CAPTION)
    picture = np.asarray(Image.open(tmp_path / "rows.png"))
    left = picture.shape[1] - 2 * 4 * 8 - 3 * 2 * 8  # two images of 4 pixels and three margins, enlarged eightfold
    centres = picture[[32, 96]][:, [left + 32, left + 80], 0]
    np.testing.assert_array_equal(centres, [[0, 255], [255, 0]])
