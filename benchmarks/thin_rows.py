"""Rows of finished benchmarks, cut to what tables and figures read, for data/results: `thin_rows.py OUT IN ...`.

One row a cell (the newest), numbers to five digits; what can be had again by running the spec is left out (the
intervals over images but one, the further metrics, most versions). Where each row came from stays: seed, device,
commit, torch, time, and the hash of the weights.
"""

import json
import sys
from pathlib import Path

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "ece",
    "nll",
    "harm",
    "gain",
    "collapse_alarm",
    "ms_per_image",
)
FIELDS = ("schema", "id", "time", "experiment", "params", "metrics", "intervals", "seed", "seconds", "profile",
          "device", "versions", "commit", "cell", "bench", "weights", "error", "reasons")  # fmt: skip


def thin(row: dict) -> dict:
    """A row with less in it, that `read_store`, `bench_table` and the figures take like any other."""
    row = {key: row[key] for key in FIELDS if key in row}
    row["metrics"] = {key: row["metrics"][key] for key in METRICS if key in row["metrics"]}
    row["intervals"] = {key: row["intervals"][key] for key in ("balanced_accuracy",) if key in row["intervals"]}
    row["versions"] = {key: row["versions"][key] for key in ("python", "torch")}
    return rounded(row)


def rounded(value):
    """Floats to five digits, wherever they are."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    """Read all, keep the newest of each cell, write in the order of the cells' first rows."""
    target, *sources = map(Path, sys.argv[1:])
    newest = {}
    for source in sources:
        for line in source.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            newest[row["cell"]] = thin(row)
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in newest.values())
    target.write_text(text, encoding="utf-8")
    print(f"{len(newest)} rows, {len(text) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
