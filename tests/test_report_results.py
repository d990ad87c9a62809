"""The results as one Markdown file, its pictures, and the comparison of runs (W9) that stands in it."""

import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gm_jax import compare
from gm_jax.errors import UserError
from gm_jax.report import comparison, results, tables
from gm_jax.report.__main__ import build
from gm_jax.report.charts import comparisons
from gm_jax.report.collection import collect
from gm_jax.report.facts import evaluated
from gm_jax.report.kept import FILE, Record
from gm_jax.report.reports import read_importance, read_reports
from tests.fake_runs import write_family, write_run


def test_a_comparison_tells_scores_of_training_from_evaluations_and_names_a_stand_in(tmp_path):
    scored = [{"step": 20, "split": split, "frechet_pixels_ab": 9.0} for split in ("validation", "seen")]
    data = {"name": "digits", "stand_in": "MNIST was not found", "fingerprint": "d"}
    pixels = {"n": 7, "split": "train", "extractor": "pixels"}
    results = {
        "frechet_pixels_ab": {"value": 2.0, **pixels},
        "kernel_pixels_ab": {"value": 3.0, "standard_deviation": 0.5, **pixels},
        "similar_pairs": {"value": 3, "n": 5, "pairs": 20},
    }
    folder = write_run(tmp_path / "run", "fnn_mnist", metrics=scored, results=results, record={"dataset": data})
    run = compare.read_run(folder)
    points = [(point["step"], point["split"], point["seconds"]) for point in run["history"]]
    assert points == [(20, "validation", 15.0), (20, "seen", 15.0), (40, "train", 30.0)]
    said = [" ".join(tables.remarks([run, {**run, "fingerprint": other}])) for other in ("d", "e")]
    assert ["trained on different data" in text for text in said] == [False, True]
    (how,) = (how for name, how in comparison.drawn([run]) if name == "frechet_pixels_ab")
    comparison.draw(figure := Figure(), "frechet_pixels_ab", how, [run])
    lines = [(line.get_linestyle(), list(line.get_ydata())) for line in figure.axes[1].lines]
    assert lines == [("--", [9.0, 9.0]), ("-", [2.0])]
    assert compare.main([str(folder), f"--out={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| run | 2 | 3 ± 0.5 |" in text and "| run | 0.15 of pairs (n = 5) |" in text
    assert "kernel_pixels_ab: ± the standard deviation" in text and "7 samples, real images of train" in text
    assert "NOTE: MNIST was not found" in text
    with Image.open(tmp_path / "out" / "frechet_pixels_ab.png") as picture:
        assert picture.text["stand_in"] == "MNIST was not found"


def test_numbers_stand_in_one_table_only_if_they_were_measured_alike_real_images_beside_them(tmp_path):
    def result(value, n=2000, weights="w"):
        about = {"split": "test", "n_generated": n, "n_real": 10000, "extractor": "lenet_mnist", "weights": weights}
        return {"frechet_lenet_mnist": {"value": value, "n": n, **about}}

    for name, found in (("vae", result(9.0)), ("gan", result(8.0, n=500)), ("ddpm", result(7.0))):
        write_run(tmp_path / name, f"{name}_mnist", results=found, record={"wall_time": 60.0})
    write_run(tmp_path / "gmm", "gmm_mnist", 1, steps=1)
    write_run(tmp_path / "half", "wgan_mnist", 20)
    write_run(tmp_path / "judge", "lenet_mnist")
    about = {"real": "mnist:test", "n_real": 10000, "generated": "mnist:train", "n_generated": 2000}
    about |= {"extractor": "lenet_mnist", "weights": "w"}
    real = {"about": about, "results": {"frechet_lenet_mnist": {"value": 2.0}}}
    (tmp_path / "real.json").write_text(json.dumps(real))
    pixels = {"about": about | {"extractor": "pixels"}, "results": {"frechet_pixels": {"value": 1.0}}}
    (tmp_path / "pixels.json").write_text(json.dumps(pixels))  # by another file, under the same name
    (tmp_path / "other.json").write_text(json.dumps({**real, "about": {**about, "generated": "/home/me/images"}}))
    (tmp_path / "foreign.json").write_text("[]")
    collection = collect(tmp_path)
    (found,) = comparisons(collection)
    body = {table.title: table.body for table in found.tables}
    assert body["Features of lenet_mnist (w): 2,000 samples, 10,000 real images of test"] == [
        ["vae", "9"], ["ddpm, partly", "7"], ["real images, mnist:train", "2"],
    ]  # fmt: skip
    assert body["Features of lenet_mnist (w): 500 samples, 10,000 real images of test"] == [["gan", "8"]]
    assert [row[:2] + row[4:5] for row in body["What they cost"]] == [
        ["gan", "gan", "60"], ["vae", "vae", "60"], ["ddpm, partly", "diffusion", "60"],
    ]  # fmt: skip
    said = " ".join(found.remarks)
    assert "compare within one table only" in said
    assert "Finished, but not scored (--mode" in found.remarks[-1] and found.remarks[-1].endswith("and the like): gmm.")
    command = "mnist:test mnist:train --extractor=runs/lenet_mnist --n=10000 --n_generated=500"
    assert f"python -m gm_jax.metrics {command}" in said and "--n_generated=2000" not in said
    faults = {fault.name: fault.reason for fault in collection.faults}
    assert "a reference is of two splits" in faults["other.json"] and "no object" in faults["foreign.json"]
    runs = [comparison.describe_run(entry.first) for entry in collection.entries if entry.is_scored]
    runs += [comparison.describe_reference(one) for one in collection.references]
    name, how = comparison.drawn(runs)[0]
    comparison.draw(figure := Figure(), name, how, runs)
    assert figure.get_suptitle() == str(how)
    assert [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"] == [2.0]
    with pytest.raises(UserError, match="references alone"):
        compare.main([str(tmp_path / "real.json")])


def test_results_are_one_file_with_few_small_pictures_and_never_replace_what_people_wrote(tmp_path):
    path, runs = tmp_path / "RESULTS.md", tmp_path / "runs"
    for seed, accuracy in enumerate((0.97, 0.98, 0.993)):
        write_run(runs / f"fnn_mnist_{seed}", results={"accuracy": accuracy}, seed=seed)
    write_run(runs / "ddpm_mnist", "ddpm_mnist", 4500, steps=4500, results={"judged_accuracy": 0.9})
    write_run(runs / "lenet_mnist", "lenet_mnist", results={"accuracy": 0.995})
    members = {size: {"mean_squared_error": 1.0 / size} for size in (2, 4)}
    write_family(runs / "vae_mnist_sweep", "vae_mnist", "model.latent_dim", members)
    path.write_text("# Results\n\nby hand\n")
    with pytest.raises(UserError, match="was not made by this command: move it"):
        results.write_results(path, collect(runs), {})
    assert "by hand" in path.read_text()
    path.unlink()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "findings.md").write_text("prose")
    build(runs, tmp_path / "pages", path)
    text = path.read_text()
    assert results.MADE_BY in text  # its own it replaces
    shown = re.findall(r"!\[\w+\]\((.*)\)", text)
    assert "docs/results/D1.png" in shown and all((tmp_path / address).is_file() for address in shown)
    assert {f"docs/results/{file.name}" for file in (tmp_path / "docs" / "results").glob("*.png")} == set(shown)
    assert "(docs/findings.md)" in text and "&#39;" not in text
    assert "- `lenet_mnist`: accuracy 0.9950 ± 0.0010 (n = 10,000, test, ± standard error), mnist" in text
    (first,) = (line for line in text.splitlines() if line.startswith("| [W1](#w1) | Feed-forward"))
    assert first.endswith("| test accuracy | 97.34 % | 98.1 ± 1.2 % (`fnn_mnist`) |")
    assert "| mean squared error by model.latent_dim |  | 2: 0.5, 4: 0.25 |" in text
    assert "\n### W1\n" in text and "| W6 | DCGAN on MNIST" in text
    assert "| `fnn_mnist` | test accuracy | 97.34 % | 98.1 ± 1.2 % | n = 10,000, test, ±" in text


def test_a_dozen_pictures_the_most_important_first_and_none_is_large(tmp_path, monkeypatch):
    for name in ("fnn_mnist", "ddpm_mnist", "vae_mnist", "cgan_mnist:modern"):
        write_run(tmp_path / "runs" / name, name)
    noise = np.random.default_rng(0).integers(0, 256, (400, 500), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "runs" / "ddpm_mnist" / "figures" / "samples.png")
    monkeypatch.setattr(results, "MOST", 3)
    shown = results.write_pictures(tmp_path, collect(tmp_path / "runs"), Record())
    assert {row: address for row, (address, _) in shown.items()} == {  # in place of W1
        "D1": "docs/results/D1.png", "H1": "docs/results/H1.png",
        "H3": "docs/results/H3.png", "T8": "docs/results/H3.png",
    }  # fmt: skip
    assert all((tmp_path / address).stat().st_size < 150_000 for address, _ in shown.values())
    rows = [row.id for report in read_reports() for row in report.rows if not row.comparison]
    assert sorted(read_importance()) == sorted(rows)


def test_a_command_shows_how_it_was_evaluated_without_the_places_of_a_machine(tmp_path):
    folder = write_run(tmp_path / "runs" / "vae", "vae_mnist", 4500, steps=4500)
    settings = {"dataset.data_dir": "/home/me/data", "evaluation.samples": 2000}
    settings |= {"evaluation.judge": "/a/lenet_mnist", "evaluation.extractors": ["/a/lenet_mnist", "pixels"]}
    evaluation = json.loads((folder / "evaluation.json").read_text()) | {"overrides": settings}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (entry,) = collect(tmp_path / "runs").entries
    assert evaluated(entry) == (
        "--mode=evaluate --config.evaluation.samples=2000 --config.evaluation.judge=runs/lenet_mnist "
        "--config.evaluation.extractors=runs/lenet_mnist,pixels"
    )


def frechet(value, **about):
    return {
        "frechet_pixels": {
            "value": value,
            "n": 50,
            "split": "test",
            "extractor": "pixels",
            "weights": "w" * 64,
            **about,
        }
    }


def make(root, runs):
    """Make the page of one of a folder's folders of runs, and return its text."""
    build(root / runs, root / "pages", root / "RESULTS.md")
    return (root / "RESULTS.md").read_text()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def two(tmp_path):
    """Runs of two machines: a, with real images beside them, and b."""
    write_run(tmp_path / "a" / "fnn", results={"accuracy": 0.97})
    write_run(tmp_path / "a" / "gan", "cgan_mnist:modern", 20, results={"judged_accuracy": 0.9, **frechet(8.0)})
    write_run(tmp_path / "a" / "lenet_mnist", "lenet_mnist", results={"accuracy": 0.995})
    about = {"real": "mnist:test", "generated": "mnist:train", "extractor": "pixels", "weights": "w" * 64}
    about |= {"n_generated": 50}
    real = {"about": about, "results": {"frechet_pixels": {"value": 1.5}}}
    (tmp_path / "a" / "real.json").write_text(json.dumps(real))
    write_run(tmp_path / "b" / "ddpm", "ddpm_mnist", 4500, steps=4500, results=frechet(7.0))
    return tmp_path


def test_a_page_keeps_what_this_folder_has_no_runs_for_and_says_so(two):
    first = make(two, "a")
    assert "Kept" not in first and "kept" not in first
    pictures = contents(two / "docs")
    text = make(two, "b")
    for row in ("W1", "H3", "T8"):  # as they were
        line = f"| [{row}](#{row.lower()}) |"
        (before,), (after,) = ([one for one in page.splitlines() if one.startswith(line)] for page in (first, text))
        assert before == after
        section = [page.partition(f"### {row}\n")[2].partition("\n#")[0] for page in (first, text)]
        note = "Kept: measured 2026-01-02 on 2 CPU cores by an earlier page; its runs are not among these.\n\n"
        assert note in section[1] and section[1].replace(note, "") == section[0]
        assert f"| {row} |" not in text  # of those not run yet
    assert "| [D1](#d1) |" in text and text.count("Kept: measured 2026") == 3
    assert "2 are done, 3 partly, 27 not run.\nOf these 3 are kept from earlier pages." in text
    (body,) = re.findall(r"\*\*Features of pixels.*?\n\n(.*?)\n\n", text, re.DOTALL)
    assert body.splitlines()[2:] == ["| ddpm | 7 |", "| gan, partly † | 8 |", "| real images, mnist:train † | 1.5 |"]
    assert text.count("- † Kept") == 1 and "| 2 runs scored |" in text
    assert "- `lenet_mnist`: accuracy 0.9950" in text and text.count("(kept from an earlier page)") == 1
    assert contents(two / "docs").items() >= {k: v for k, v in pictures.items() if k.endswith(".png")}.items()
    assert "†" not in (two / "pages" / "W.html").read_text()  # pages are of the runs alone
    again = contents(two)
    assert make(two, "b") == text and contents(two) == again
    assert make(two, "a").count("Kept: measured 2026") == 1  # D1, in turn


def test_a_row_or_run_that_is_here_again_replaces_what_was_kept(two):
    make(two, "a")
    (two / FILE).write_text((two / FILE).read_text().replace("w" * 64, "w" * 8))  # all that a page prints of a hash
    write_run(two / "b" / "fnn_again", results={"accuracy": 0.5})
    write_run(two / "b" / "gan", "cgan_mnist", 4500, steps=4500, results=frechet(3.0))
    about = {"real": "mnist:test", "generated": "mnist:train", "extractor": "pixels", "weights": "w" * 64}
    real = {"about": {**about, "n_generated": 50}, "results": {"frechet_pixels": {"value": 1.25}}}
    (two / "b" / "real.json").write_text(json.dumps(real))
    text = make(two, "b")
    assert "50.00 ± 0.10 %" in text and "97.00" not in text
    assert "| gan | 3 |" in text and "gan, partly" not in text
    assert "| real images, mnist:train | 1.25 |" in text and "†" not in text


def test_what_was_done_is_not_replaced_by_a_half_of_it(two):
    make(two, "a")
    before = contents(two / "docs" / "results")
    write_run(two / "b" / "fnn", step=7, results={"accuracy": 0.2})
    write_run(two / "c" / "ddpm", "ddpm_mnist", 7, steps=4500, results=frechet(9.0))
    make(two, "b")
    assert re.findall(r"\| (ddpm[^|]*) \| (\d) \|", make(two, "c")) == [("ddpm, partly", "9"), ("ddpm †", "7")]
    text = make(two, "b")
    assert "97.00 ± 0.10 %" in text and "by an earlier page; the runs here are not finished.\n" in text
    assert contents(two / "docs" / "results")["W1.png"] == before["W1.png"]
    assert "20.00" in (two / "pages" / "W.html").read_text()


def test_a_kept_picture_is_not_overwritten_by_that_of_the_row_that_it_was_named_after(two, monkeypatch):
    make(two, "a")
    kept = (two / "docs" / "results" / "H3.png").read_bytes()  # T8 shows it, too
    write_run(two / "b" / "new", "cgan_mnist", 4500, steps=4500)  # of H3, not of T8
    Image.fromarray(np.full((30, 30), 200, np.uint8)).save(two / "b" / "new" / "figures" / "classes.png")
    text = make(two, "b")
    assert "![H3](docs/results/H3.png)" in text and "![T8](docs/results/T8.png)" in text
    assert (two / "docs" / "results" / "T8.png").read_bytes() == kept
    assert (two / "docs" / "results" / "H3.png").read_bytes() != kept
    before = contents(two)
    assert make(two, "b") == text and contents(two) == before
    monkeypatch.setattr(results, "MOST", 2)  # of kept ones and new ones together
    assert re.findall(r"!\[(\w+)\]", make(two, "b")) == ["H3", "D1"]
    assert {path.name for path in (two / "docs" / "results").glob("*.png")} == {"H3.png", "D1.png"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{",
        lambda record: "[]",
        lambda record: {**record, "format": 0},
        lambda record: {**record, "rows": {"W1": {**record["rows"]["W1"], "picture": "../../precious.png"}}},
        lambda record: {
            **record,
            "compared": [{**run, "results": {"a": {"value": "b"}}} for run in record["compared"]],
        },
        lambda record: {**record, "compared": [{**record["compared"][0], "step": None}]},
        lambda record: {**record, "further": [{"name": "lenet_mnist"}]},
    ],
)
def test_a_damaged_record_leaves_everything_as_it_was(two, damage):
    make(two, "a")
    damaged = damage(json.loads((two / FILE).read_text()))
    (two / FILE).write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    before = contents(two)
    with pytest.raises(UserError, match="nothing was overwritten"):
        make(two, "b")
    assert contents(two) == before


def test_a_kept_row_that_no_report_has_any_more_is_dropped(two):
    make(two, "a")
    record = json.loads((two / FILE).read_text())
    record["rows"]["Z9"] = record["rows"]["W1"]
    (two / FILE).write_text(json.dumps(record))
    assert "Of these 3 are kept" in make(two, "b") and "Z9" not in (two / FILE).read_text()
