"""Tables and figures of a benchmark from planted rows, whose means are known."""

import csv
import io
import json
import math

import numpy as np
import pytest

from seminar_utils import cli
from seminar_utils.evaluation.bench_cells import BENCH_VERSION
from seminar_utils.evaluation.bench_spec import parse_spec
from seminar_utils.evaluation.bench_store import newest
from seminar_utils.evaluation.bench_table import bench_table, only
from seminar_utils.evaluation.bench_text import FORMATS, readable, render
from seminar_utils.evaluation.differences import are_real
from seminar_utils.evaluation.intervals import Interval, seed_interval
from seminar_utils.runtime import SeminarError
from seminar_utils.teaching import bench_figures
from seminar_utils.teaching.interval_map import in_points, interval_map

GRID = {
    "methods": ["source", "bn", "tent"],
    "models": ["resnet_small-phantoms"],
    "data": ["phantoms"],
    "shifts": ["none", "blur"],
    "severities": [1, 5],
    "seeds": [0, 1, 2],
}
SPEC = {"name": "planted", "images": 100, "grid": [GRID]}
BASE = {"source": 0.7, "bn": 0.75, "tent": 0.8}


def planted(spec):
    """A row a cell: base of the method, less with severity, a little of the seed."""
    rng = np.random.default_rng(0)
    rows = []
    for cell in spec.cells:
        value = BASE[cell.method["name"]] - 0.05 * cell.severity + 0.01 * cell.seed + 0.001 * rng.random()
        gain = value - BASE["source"] + 0.3
        metrics = {"balanced_accuracy": value, "harm": 0.05, "gain": gain, "nll": 2 - value}
        row = {"schema": 1, "experiment": "bench.planted", "bench": BENCH_VERSION, "cell": cell.key}
        row |= {"params": cell.params(), "seed": cell.seed, "metrics": metrics, "commit": "c", "versions": {}}
        rows.append(row | {"intervals": {"balanced_accuracy": [value - 0.1, value + 0.1]}})
    return rows


@pytest.fixture(scope="module")
def spec():
    return parse_spec(SPEC)


@pytest.fixture
def rows(spec):
    return planted(spec)


def of(rows, method, shift, severity, metric="balanced_accuracy"):
    found = [row for row in rows if row["params"]["method"] == method and row["params"]["shift"] == shift
             and row["params"]["severity"] == severity]  # fmt: skip
    return [row["metrics"][metric] for row in sorted(found, key=lambda row: row["seed"])]


def test_entries_are_means_over_seeds_with_their_interval(spec, rows):
    table = bench_table(rows, spec.cells)
    assert table.row_axes == ("method",) and table.column_axes == ("shift", "severity")
    assert table.rows == (("source",), ("bn",), ("tent",))
    assert table.columns == (("none", 0), ("blur", 1), ("blur", 5))
    for (row, column), value in table.values.items():
        expected = seed_interval(of(rows, *row, *column), bounds=(0, 1))
        assert (value.mean, value.low, value.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_one_seed_shows_the_interval_over_images(spec, rows):
    table = bench_table([row for row in rows if row["seed"] == 0])
    value = table.values[("bn",), ("none", 0)]
    assert value.high - value.low == pytest.approx(0.2) and "one seed" in table.notes[0]


def test_failed_missing_and_undefined_are_counted(spec, rows):
    rows[0] |= {"error": "broken", "metrics": {}}
    rows[1]["metrics"]["balanced_accuracy"] = None
    table = bench_table(rows[:-1], spec.cells)
    lacking = {key: value.lacks for key, value in table.values.items() if value.lacks}
    assert sorted(lacking.values()) == ["1 failed", "1 missing", "1 undefined"]
    assert all(len(table.values[key].by_seed) == 2 for key in lacking)
    assert "(1 failed)" in render(table) and "(1 missing)" in render(table, "markdown")


def test_nothing_but_failures_is_said_and_not_a_number(spec, rows):
    for row in rows:
        if row["params"]["method"] == "tent":
            row |= {"error": "broken", "metrics": {}}
    table = bench_table(rows, spec.cells)
    assert str(table.values[("tent",), ("none", 0)]) == "3 failed"
    assert math.isnan(table.values[("tent",), ("none", 0)].mean)


def test_a_retried_failure_counts_no_more(spec, rows):
    failed = {**rows[0], "error": "broken", "metrics": {}}
    assert newest([failed, *rows])[rows[0]["cell"]] == rows[0]
    assert not any(value.failed for value in bench_table([failed, *rows], spec.cells).values.values())


def test_conditions_are_never_mixed(spec, rows):
    with pytest.raises(SeminarError, match="severity vary and would be mixed.*--where severity=[015]"):
        bench_table(rows, spec.cells, column_axes=["shift"])
    fixed = bench_table(rows, spec.cells, column_axes=["shift"], where={"severity": "5"})
    assert fixed.columns == (("blur",),) and fixed.fixed["severity"] == 5
    narrow = bench_table([row for row in rows if row["params"]["severity"] != 1], column_axes=["shift"])
    assert narrow.columns == (("none",), ("blur",)) and "severity" not in narrow.fixed


def test_two_results_of_one_seed_are_refused(rows):
    with pytest.raises(SeminarError, match="two results of one seed"):
        bench_table([*rows, {**rows[0], "cell": "other"}])


def test_differences_are_paired_and_corrected_together(spec, rows):
    table = bench_table(rows, spec.cells, over="source")
    assert table.rows == (("bn",), ("tent",)) and "Holm's correction for 6 comparisons" in table.notes[0]
    found = table.values[("bn",), ("blur", 5)].difference
    alone = are_real(of(rows, "source", "blur", 5), {"bn": of(rows, "bn", "blur", 5)})["bn"]
    assert found.interval == alone.interval and found.p == alone.p <= found.adjusted_p and found.comparisons == 6
    assert found.real and "*" in str(table.values[("bn",), ("blur", 5)])
    worse = bench_table(rows, spec.cells, "nll", over="source").values[("bn",), ("none", 0)].difference
    assert not worse.higher_is_better and "better" in worse.sentence


def test_one_seed_cannot_be_judged(rows):
    table = bench_table([row for row in rows if row["seed"] == 0], over="bn")
    assert (
        all(value.difference is None for value in table.values.values()) and "at least two seeds" in table.notes[0]
    )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"metric": "acuracy"}, "unknown metric"),
        ({"row_axes": ["methods"]}, "did you mean 'method'"),
        ({"column_axes": ["shfit"]}, "did you mean 'shift'"),
        ({"where": {"batch": 1}}, "did you mean 'batch_size'"),
        ({"where": {"batch_size": 1}}, "no row to show"),
        ({"over": "tnet"}, "did you mean 'tent'"),
        ({"over": "tent", "row_axes": ["shift"], "column_axes": ["method", "severity"]}, "methods in the rows"),
    ],
)
def test_what_a_table_refuses(spec, rows, how, told):
    with pytest.raises(SeminarError, match=told):
        bench_table(rows, spec.cells, **how)


def test_formats(spec, rows):
    table = bench_table(rows, spec.cells)
    lines = render(table, "markdown").splitlines()
    assert lines[2] == "| method | none | blur / 1 | blur / 5 |" and len(lines) == 2 + 2 + 3
    words = render(table).splitlines()
    assert words[0] == "balanced_accuracy, shift / severity across" and len(words) == 3 + 1 + 2 + 3
    back = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(back) == 9 and back[0]["method"] == "source" and back[0]["seeds"] == "3"
    assert float(back[0]["mean"]) == table.values[("source",), ("none", 0)].mean
    with pytest.raises(SeminarError, match="did you mean 'markdown'"):
        render(table, "markdwn")
    assert set(FORMATS) == {"terminal", "markdown", "csv"}


def test_figures_say_what_they_show(spec, rows):
    figure, text = bench_figures.ranking(rows)
    assert "best first: tent" in text and "3 of 3 conditions" in text
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["source", "bn", "tent"]
    _, text = bench_figures.ranking(rows, "nll")
    assert "best first: tent" in text
    figure, text = bench_figures.severity_curves(rows)
    assert len(figure.axes) == 1 and "blur, severity 0 to 5: bn 0.7" in text
    line = figure.axes[0].get_lines()[1]
    assert line.get_ydata()[0] == pytest.approx(np.mean(of(rows, "source", "none", 0)))
    figure, text = bench_figures.harm_against_gain(rows)
    assert "tent helps 0.3" in text and "harms 0.050" in text


def test_a_map_of_differences_shows_every_entry_and_names_the_real_ones(spec, rows):
    table = bench_table(rows, spec.cells, over="source")
    figure = bench_figures.difference_map(table, "planted")
    written = [one.get_text() for one in figure.axes[0].texts]
    assert len(written) == 6 and figure.description().startswith(
        "Figure: planted: 6 differences, difference to source"
    )
    tent = table.values[("tent",), ("none", 0)].difference
    assert f"{100 * tent.interval.mean:+.1f}" in "".join(written)
    starred = sum(value.starred for value in table.values.values())
    assert starred and sum("*" in word for word in written) == starred == figure.told.count(" at ")
    colours = figure.axes[0].images[0].get_array()
    assert colours.shape == (2, 3) and np.sign(colours[1, 0]) == np.sign(tent.interval.mean)
    worse = bench_figures.difference_map(bench_table(rows, spec.cells, "harm", over="source"))
    assert (worse.axes[0].images[0].get_array() <= 0).all()  # more harm is red
    with pytest.raises(SeminarError, match="over="):
        bench_figures.difference_map(bench_table(rows, spec.cells))


def test_a_star_needs_a_difference_that_matters(spec, rows):
    found = bench_table(rows, spec.cells, over="source")
    assert any(value.starred for value in found.values.values())
    strict = bench_table(rows, spec.cells, over="source", smallest=0.9)
    assert not any(value.starred for value in strict.values.values()) and "not all below 0.9" in strict.notes[0]


def test_a_ranking_counts_only_conditions_that_all_methods_have(rows):
    kept = [row for row in rows if not (row["params"]["method"] == "tent" and row["params"]["severity"] == 5)]
    found, counted, total = bench_figures.overall(kept, "balanced_accuracy")
    assert (counted, total) == (2, 3) and found["source"].mean > 0.68


def test_only_the_rows_of_the_spec(spec, rows):
    assert len(only([*rows, {**rows[0], "cell": "of another spec"}], spec.cells)) == len(rows)


@pytest.fixture
def files(tmp_path, rows):
    text = 'name = "planted"\nimages = 100\n[[grid]]\n'
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in GRID.items())
    (tmp_path / "planted.toml").write_text(text)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    return [str(tmp_path / "planted.toml"), "--output", str(tmp_path / "rows.jsonl")]


def test_the_command_shows_tables(files, capsys):
    assert cli.main(["bench", "table", *files, "--over", "bn", "--columns", "shift,severity"]) == 0
    assert "difference to bn" in capsys.readouterr().out
    assert cli.main(["bench", "table", *files, "--format", "csv", "--where", "shift=blur", "severity=1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert cli.main(["bench", "table", *files, "--where", "shift"]) == 2
    assert cli.main(["bench", "table", *files, "--format", "pdf"]) == 2
    assert "unknown format" in capsys.readouterr().err


def test_the_command_shows_the_state(files, capsys):
    assert cli.main(["bench", "status", *files]) == 0
    assert capsys.readouterr().out == "27 cells: 26 done, 0 failed, 1 to do\n"


def test_the_command_draws(files, tmp_path, capsys):
    assert cli.main(["bench", "plot", *files, "--folder", str(tmp_path / "pictures")]) == 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["alt.json", "harm_against_gain.png", "ranking.png", "severity.png"]
    assert set(json.loads((tmp_path / "pictures" / "alt.json").read_text())) == set(names[1:])
    assert "best first: tent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("tent norms=gn", "phantoms scanner=C", "iid"), ("Tent", "C 1.0", "random order")),
        (
            ("t3a policy=batch", "phantoms scanner=C strength=0.4", "class"),
            ("T3A policy=batch", "C 0.4", "sorted by class"),
        ),
        (("ttt_plus_plus", "wbc domain=d2", "gradual"), ("TTT++", "wbc d2", "gradual")),
        (("tent lr=0.01", "pneumoniamnist", "prevalence"), ("Tent lr=0.01", "pneumoniamnist", "one class 90%")),
    ],
)
def test_rows_in_a_lesson_s_words(named, said):
    row = {"params": dict(zip(("method", "data", "stream"), named)) | {"batch_size": 4}, "seed": 0}
    (found,) = readable([row])
    assert tuple(found["params"][key] for key in ("method", "data", "stream")) == said
    assert found["params"]["batch_size"] == 4 and row["params"]["method"] == named[0]


def test_a_map_of_intervals_is_bold_where_zero_is_out_and_leaves_gaps():
    cells = {
        "a\nn 3": {"x": Interval(0.1, 0.05, 0.15), "y": Interval(0.1, -0.1, 0.3)},
        "b": {"y": Interval(0.0, 0.0, 0.0)},
    }
    figure = interval_map(cells, ["y", "x"], "gains")
    written = {text.get_text(): text.get_weight() for text in figure.axes[0].texts}
    assert written == {
        "+10.0\n[+5.0, +15.0]": "bold",
        "+10.0\n[-10.0, +30.0]": "normal",
        "+0.0\n[+0.0, +0.0]": "normal",
    }
    drawn = figure.axes[0].images[0].get_array()
    assert drawn[0].tolist() == [10, 10] and drawn[1, 0] == 0 and np.isnan(drawn.filled(np.nan)[1, 1])
    assert figure.description() == "Figure: gains: 3 differences"
    assert in_points(Interval(0.004, 0.0002, 0.008), "*") == "+0.40*\n[+0.02, +0.80]"
    worse = interval_map(cells, ["x"], higher_is_better=False, starred={("a\nn 3", "x")})
    assert worse.axes[0].images[0].get_array()[0, 0] == -10 and worse.axes[0].texts[0].get_text().startswith(
        "+10.0*"
    )
