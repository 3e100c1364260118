"""`seminar bench`: run a benchmark, see where it stands, and show what came out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..runtime import SeminarError

METRIC = "balanced_accuracy"


def add_bench(sub: argparse.ArgumentParser) -> None:
    """Give the parser of `seminar bench` its four actions."""
    actions = sub.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    about = {
        "run": (run, "run the cells that have no row yet; killed and started again, it goes on"),
        "status": (status, "how many cells are done, failed and to do"),
        "table": (table, "a table, mean and interval over seeds"),
        "plot": (plot, "ranking, severity curves, harm against gain, differences, as pictures"),
    }
    made = {}
    for name, (act, text) in about.items():
        made[name] = one = actions.add_parser(name, help=text, description=text)
        one.set_defaults(act=act)
        one.add_argument("spec", metavar="SPEC.toml", type=Path, help="see benchmarks/specs")
        one.add_argument("--output", type=Path, help="the file of rows (default runs/bench/NAME.jsonl)")
    one = made["run"]
    one.add_argument(
        "--workers", type=int, default=0, metavar="N", help="N processes of this machine, one thread each"
    )
    one.add_argument("--scheduler", metavar="URL", help="a Dask cluster, such as tcp://HOST:8786")
    one.add_argument("--limit-cells", type=int, metavar="K", help="at most K cells now")
    one.add_argument("--retry-failed", action="store_true", help="try cells again that failed")
    one.add_argument("--dry-run", action="store_true", help="check everything, list the cells to do, run none")
    for name in ("table", "plot"):
        made[name].add_argument("--metric", default=METRIC, help=f"a number of the rows (default {METRIC})")
        made[name].add_argument("--where", nargs="+", action="extend", default=[], metavar="AXIS=VALUE",
                                help="only these, such as batch_size=64")  # fmt: skip
        made[name].add_argument(
            "--over", metavar="METHOD", help="show paired differences to this method, with Holm's correction"
        )
    one = made["table"]
    one.add_argument("--rows", default="method", help="axes in the rows, commas between (default method)")
    one.add_argument("--columns", help="axes in the columns, such as shift,severity (default: all that vary)")
    one.add_argument("--format", default="terminal", help="terminal, markdown or csv")
    made["plot"].add_argument("--folder", type=Path, help="where the pictures go (default beside the rows)")


def bench(args: argparse.Namespace) -> int:
    """Do what was asked of `seminar bench`."""
    from ..evaluation.bench_spec import load_spec

    return args.act(args, load_spec(args.spec))


def run(args: argparse.Namespace, spec) -> int:
    """Run, or say what would be run; 1 when a cell failed."""
    from ..evaluation.bench import run_bench

    if args.limit_cells is not None and args.limit_cells < 1:
        raise SeminarError(f"--limit-cells is a number of at least 1, got {args.limit_cells}")
    if args.dry_run:
        return _dry_run(args, spec)
    how = {"workers": args.workers, "scheduler": args.scheduler}
    try:
        summary = run_bench(spec, args.output, limit=args.limit_cells, retry_failed=args.retry_failed, **how)
    except KeyboardInterrupt:
        print("seminar: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(summary)
    return 1 if summary.failures else 0


def _dry_run(args: argparse.Namespace, spec) -> int:
    from ..evaluation.bench import check_combinations
    from ..evaluation.bench_store import default_store, pending, read_store

    rows = read_store(args.output or default_store(spec.name), spec.experiment)
    todo = pending(spec.cells, rows, args.retry_failed)[: args.limit_cells]
    check_combinations(todo, spec)
    print(f"{len(spec.cells)} cells, {len(todo)} to do")
    for cell in todo[:20]:
        print(f"  {cell.key}  {cell}")
    if len(todo) > 20:
        print(f"  ... and {len(todo) - 20} more")
    return 0


def status(args: argparse.Namespace, spec) -> int:
    """Print where it stands; 1 when a cell failed."""
    from ..evaluation.bench import status as where_it_stands

    summary = where_it_stands(spec, args.output)
    print(summary)
    return 1 if summary.failures else 0


def _rows(args: argparse.Namespace, spec) -> list[dict]:
    from ..evaluation.bench_store import default_store, read_store

    return read_store(args.output or default_store(spec.name), spec.experiment)


def _where(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [key for key, equals, value in pairs if not (key and equals and value)]:
        raise SeminarError(f"--where takes axis=value, such as batch_size=64, got {wrong[0]!r}")
    return {key: value for key, _, value in pairs}


def table(args: argparse.Namespace, spec) -> int:
    """Print the table."""
    from ..evaluation.bench_table import bench_table
    from ..evaluation.bench_text import FORMATS, render
    from ..runtime import unknown_name

    if args.format not in FORMATS:
        raise unknown_name("format", args.format, FORMATS)
    columns = None if args.columns is None else [axis for axis in args.columns.split(",") if axis]
    axes = (args.rows.split(","), columns)
    made = bench_table(_rows(args, spec), spec.cells, args.metric, *axes, args.over, _where(args.where))
    print(render(made, args.format))
    return 0


def plot(args: argparse.Namespace, spec) -> int:
    """Write the pictures that the rows allow, and print where they are and what they show."""
    from ..evaluation.bench_store import default_store
    from ..evaluation.bench_table import bench_table, only
    from . import bench_figures

    rows = only(_rows(args, spec), spec.cells, _where(args.where))
    folder = args.folder or (args.output or default_store(spec.name)).parent / spec.name
    drawn = {"ranking": bench_figures.ranking(rows, args.metric)}
    if any(row["params"]["shift"] != "none" for row in rows):
        drawn["severity"] = bench_figures.severity_curves(rows, args.metric)
    drawn["harm_against_gain"] = bench_figures.harm_against_gain(rows)
    if args.over:
        map_ = bench_figures.difference_map(bench_table(rows, metric=args.metric, over=args.over))
        drawn["differences"] = map_, map_.told
    folder.mkdir(parents=True, exist_ok=True)
    for name, (figure, text) in drawn.items():
        (folder / f"{name}.png").write_bytes(figure.encoded()[1])
        print(f"{folder / name}.png: {text}")
    texts = {f"{name}.png": text for name, (_, text) in drawn.items()}
    (folder / "alt.json").write_text(json.dumps(texts, indent=1) + "\n", encoding="utf-8")
    return 0
