"""The `seminar` command. Each subcommand is one small function, and imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from . import __version__
from .runtime import PROFILES, SeminarError


def run_course(args: argparse.Namespace) -> int:
    """Execute lessons; 1 when one failed."""
    from .teaching.course import course

    outcomes = course(args.profile, args.only, args.cell_timeout)
    return 0 if all(outcome.ok for outcome in outcomes) else 1


def run_lab(args: argparse.Namespace) -> int:
    """Serve JupyterLab on this machine only, until Ctrl-C."""
    from .teaching.lab import lab

    return lab(args.port, browser=not args.no_browser)


def run_doctor(args: argparse.Namespace) -> int:
    """Print what is installed and what is missing."""
    from .doctor import doctor

    return doctor(args.json, args.hash_all)


def run_notebooks(args: argparse.Namespace) -> int:
    """Build, check or sync the lessons' pairs of files; 1 when a check finds something."""
    from .teaching import notebooks

    folder = notebooks.notebooks_dir()
    problems = []
    for name in notebooks.select(notebooks.lessons(folder), args.only):
        if args.action == "build":
            print(f"{name}: {notebooks.minutes_text(notebooks.build(name)['minutes'])}", flush=True)
        elif args.action == "sync":
            print(f"{name}: {'changed' if notebooks.sync(name, from_notebook=args.from_ipynb) else 'in step'}")
        else:
            problems += notebooks.check(name)
    print("\n".join(problems) if problems else f"notebooks {args.action}: ok")
    return 1 if problems else 0


def run_results(args: argparse.Namespace) -> int:
    """Print rows of the results store."""
    from .evaluation.results import ResultsStore

    rows = ResultsStore(args.file).rows(**dict(_condition(text) for text in args.where))
    print(json.dumps(rows, indent=1) if args.json else results_table(rows))
    return 0


def _condition(text: str) -> tuple[str, object]:
    """`params.batch=16` -> ("params.batch", 16); a value that is no JSON is a word."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise SeminarError(f"--where takes key=value, such as experiment=tent.batch_size, got {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def results_table(rows: list[dict]) -> str:
    """One line per metric of each row, with its interval where there is one."""
    lines = []
    for row in rows:
        params = ", ".join(f"{key}={value}" for key, value in row["params"].items())
        for name, value in row["metrics"].items():
            low_high = row.get("intervals", {}).get(name)
            interval = f"[{low_high[0]:.4f}, {low_high[1]:.4f}]" if low_high else ""
            number = "none" if value is None else f"{value:.4f}"
            where = f"{row['profile']}, {row['device']}, {row['commit']}, seed {row['seed']}"
            lines.append(f"{row['experiment']:<28} {name:<20} {number:>9} {interval:<18} {params} ({where})")
    return "\n".join([*lines, f"{len(rows)} rows"])


def run_pretrain(args: argparse.Namespace) -> int:
    """Train one of the course's checkpoints again, or list what can be trained."""
    from .recipes import list_recipes, pretrain

    if args.name is None:
        print("\n".join(list_recipes()))
        return 0
    card = pretrain(args.name, folder=args.folder)
    print(
        json.dumps({key: card[key] for key in ("name", "metrics", "intervals", "sha256") if key in card}, indent=1)
    )
    return 0


def run_checkpoints(args: argparse.Namespace) -> int:
    """List the weights that ship with the course."""
    from .checkpoints.course import checkpoint_card, list_checkpoints

    cards = [checkpoint_card(name) for name in list_checkpoints()]
    if args.json:
        print(json.dumps(cards, indent=1))
        return 0
    for card in cards:
        metrics = ", ".join(f"{key} {value:.3f}" for key, value in card.get("metrics", {}).items())
        print(f"{card['name']:<32} {card.get('bytes', 0) / 1e6:6.2f} MB  {metrics}")
    print(f"{len(cards)} checkpoints")
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    """Download official weights and print where they lie, or list what there is."""
    from .checkpoints.registry import fetch_pretrained, fetch_vocabulary, pretrained_info

    entries = [pretrained_info(name) for name in args.names]  # a wrong name is told before anything is downloaded
    if args.names and not (args.list or args.json):
        for entry in entries:
            print(fetch_pretrained(entry.name), flush=True)
            if entry.vocabulary:
                print(fetch_vocabulary(entry.name), flush=True)
        return 0
    return list_official(args.names, args.json)


def list_official(names: Sequence[str], as_json: bool) -> int:
    """Print the official checkpoints, all or the named ones, and whether each is on this machine."""
    from dataclasses import asdict

    from .checkpoints.registry import find_file, list_pretrained, pretrained_info

    rows = []
    for name in names or list_pretrained():
        found = find_file(name)
        rows.append({**asdict(pretrained_info(name)), "path": str(found) if found else None})
    if as_json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        state = "present" if row["path"] else "absent"
        print(f"{row['name']:<20} {row['megabytes']:>5} MB  {state:<8} {row['title']} ({row['licence']})")
    print(f"{len(rows)} official checkpoints; seminar fetch NAME brings one")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Run a benchmark, or show what came out; 1 when a cell failed."""
    from .teaching.bench_command import bench

    return bench(args)


def run_readme(args: argparse.Namespace) -> int:
    """Write the README's numbers from the results store, or say whether they are current."""
    from .teaching import readme

    changed = readme.update(check=args.check)
    print("README.md is " + (("out of date" if args.check else "updated") if changed else "current"))
    return 1 if changed and args.check else 0


def run_progress(args: argparse.Namespace) -> int:
    """Show which exercises are solved."""
    from .teaching.exercises import progress

    progress()
    return 0


def parser() -> argparse.ArgumentParser:
    """All subcommands with their options."""
    top = argparse.ArgumentParser(
        prog="seminar", description="From General to Clinical: the course's own command."
    )
    top.add_argument("--version", action="version", version=f"seminar-utils {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        return sub

    sub = command("course", run_course, "execute all lessons, with a table at the end (make course)")
    sub.add_argument("--profile", default="cpu", help=f"one of {', '.join(PROFILES)} (default cpu)")
    sub.add_argument("--only", help="lessons by number or name, commas between: 11 or 1,11_tent")
    sub.add_argument(
        "--cell-timeout", type=float, metavar="SECONDS", help="limit for one cell (default by profile)"
    )
    sub = command("lab", run_lab, "JupyterLab on the first lesson, on this machine only (make lab)")
    sub.add_argument("--port", type=int, default=8888, help="the first port to try (default 8888)")
    sub.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    sub = command("doctor", run_doctor, "versions, device, data and weights; what is missing and how to get it")
    sub.add_argument("--json", action="store_true")
    sub.add_argument("--hash-all", action="store_true", help="hash large files too")
    sub = command("notebooks", run_notebooks, "make, check or sync the notebooks from notebooks/py")
    sub.add_argument("action", choices=("build", "check", "sync"))
    sub.add_argument("--only", help="lessons by number or name, commas between")
    sub.add_argument("--from-ipynb", action="store_true", help="sync: carry the notebook's cells to the text")
    sub = command("results", run_results, "print rows of the results store")
    sub.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="only these rows"
    )
    sub.add_argument("--file", help="another file than the store")
    sub.add_argument("--json", action="store_true")
    sub = command(
        "pretrain", run_pretrain, "train one of the course's checkpoints again; without a name, list them"
    )
    sub.add_argument(
        "name", nargs="?", metavar="NAME", help="for example resnet_small-phantoms-s0 (the seed is in it)"
    )
    sub.add_argument("--folder", type=_path, help="where weights and card go (default data/checkpoints)")
    sub = command("checkpoints", run_checkpoints, "list the weights that ship with the course")
    sub.add_argument("action", choices=("list",))
    sub.add_argument("--json", action="store_true")
    sub = command("fetch", run_fetch, "download official weights, checked; without a name, list them")
    sub.add_argument("names", nargs="*", metavar="NAME", help="for example sam_vit_b")
    sub.add_argument("--list", action="store_true", help="list them, download nothing")
    sub.add_argument("--json", action="store_true", help="the list, with all that the registry knows")
    from .teaching.bench_command import add_bench

    add_bench(command("bench", run_bench, "run a benchmark from a file, on one core or on a cluster, and show it"))
    sub = command("readme", run_readme, "write the README's numbers from the results store")
    sub.add_argument("--check", action="store_true", help="change nothing; 1 when they are out of date")
    command("progress", run_progress, "which exercises are solved")
    return top


def _path(text: str):
    from pathlib import Path

    return Path(text).expanduser()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Errors of the user's making are one line on stderr and status 2."""
    args = parser().parse_args(arguments)
    try:
        return args.run(args)
    except SeminarError as error:
        print(f"seminar: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"seminar: {error.name} is not installed: seminar doctor tells what to do", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seminar: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
