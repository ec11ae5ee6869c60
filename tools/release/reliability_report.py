# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Do every bad thing of ``tests/reliability`` and ``tests/faults`` several times, and write what happened.

    python tools/release/reliability_report.py --tries 5
    python tools/release/reliability_report.py --table-only

Every test there is a case. ``results/reliability/cases.csv`` has a row each: how often it was tried, how often it ended
as it shall, what was said, and whether anything was lost. The tables of ``docs/reliability.md`` are made of it and of
the other files of that folder. A run that is stopped goes on with the tries that are missing. With ``-k`` the rows of
groups of which no case was selected stay as they are.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET  # noqa: S405 - of pytest, started here

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"
COLUMNS = ("group", "case", "shall", "tries", "as_it_shall", "outcome", "message", "nothing_lost")
GROUPS = {
    "test_inputs": "Bad input",
    "test_numbers": "Numbers",
    "test_decisions": "Decisions at the line",
    "test_prediction_faults": "Decisions at the line",
    "test_hostile": "Files from a stranger",
    "test_fuzz_corpus": "Files from a stranger",
    "test_training_faults": "Faults in training",
    "test_other_faults": "Faults in downloads and benchmarks",
}
Case = dict[str, str]


def run_once(report: Path, selection: str) -> None:
    """Run all cases in one process of pytest."""
    report.parent.mkdir(parents=True, exist_ok=True)
    part = report.with_suffix(".part")
    options = ["-q", "-p", "no:cacheprovider", "--no-showlocals", "--tb=line", f"--junitxml={part}"]
    files = [str(path) for path in ROOT.glob("tests/*/test_*.py") if path.stem in GROUPS]
    command = [sys.executable, "-m", "pytest", *options, *sorted(files), *(["-k", selection] if selection else [])]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    if code not in {0, 1}:
        msg = f"pytest ended with {code}; the cases are not all tried."
        raise SystemExit(msg)
    part.rename(report)


def cases(report: Path) -> Iterator[Case]:
    """Cases of one try."""
    for test in ET.parse(report).iter("testcase"):  # noqa: S314
        properties = {p.get("name", ""): p.get("value", "") for p in test.iter("property")}
        if test.find("skipped") is not None:
            continue
        failure = next((part for kind in ("failure", "error") if (part := test.find(kind)) is not None), None)
        if failure is None and "case" not in properties:
            continue
        case = {"case": test.get("name", ""), "shall": "", "message": "", "nothing_lost": "", **properties}
        case["group"] = GROUPS[test.get("classname", "").rsplit(".", 1)[-1]]
        case["ok"] = "" if failure is not None else "yes"
        if failure is not None:
            case["message"] = " ".join((failure.get("message") or "").split())[:300]
        case["test"] = f"{test.get('classname')}::{test.get('name')}"
        yield case


def gather(reports: list[Path], kept: list[Case]) -> list[Case]:
    """Join the tries to one row a case; earlier rows of other groups are kept."""
    by_test: dict[str, list[Case]] = {}
    for report in reports:
        for case in cases(report):
            by_test.setdefault(case["test"], []).append(case)
    rows: list[Case] = []
    for tries in by_test.values():
        good, bad = [case for case in tries if case["ok"]], [case for case in tries if not case["ok"]]
        first = (good or tries)[0]
        lost = "" if not first["nothing_lost"] else "no" if bad else first["nothing_lost"]
        rows.append({
            **{name: first[name] for name in ("group", "case", "shall")},
            "tries": str(len(tries)),
            "as_it_shall": str(len(good)),
            "outcome": "as it shall" if not bad else f"otherwise {len(bad)} times",
            "message": (bad or tries)[0]["message"],
            "nothing_lost": lost,
        })
    tried = {row["group"] for row in rows}
    rows += [row for row in kept if row["group"] not in tried]
    order = list(dict.fromkeys(GROUPS.values()))
    return sorted(rows, key=lambda row: order.index(row["group"]))


def read(name: str) -> list[dict[str, str]]:
    """Rows of a result file, none if there is no such file."""
    path = RESULTS / name
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") or "-" for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *escaped])


def case_tables() -> str:
    """One table a group of cases."""
    parts, rows = [], read("cases.csv")
    for group in dict.fromkeys(GROUPS.values()):
        body = [
            [
                row["case"], row["shall"], f"{row['as_it_shall']} of {row['tries']}", row["nothing_lost"],
                f"`{row['message'][:220].replace('`', chr(39))}`" if row["message"] else "",
            ]
            for row in rows
            if row["group"] == group
        ]  # fmt: skip
        if body:
            header = ["what is done", "what happens", "so it was", "nothing lost", "what is said"]
            parts.append(f"### {group}\n\n{table(header, body)}")
    return "\n\n".join(parts) or "No cases were run yet."


def versions_table() -> str:
    """What the index has."""
    rows = read("compatibility.csv")
    names = ["python", "versions", "resolves", "anomalib", "lightning", "torch", "torchvision", "timm", "imports"]
    return table(names, [[row[name] for name in names] for row in rows]) if rows else "Not measured yet."


def soak_table() -> str:
    """Memory over the long run, and the suite with failures."""
    rows = read("soak.csv")
    parts = []
    if len(rows) > 1:
        warm = rows[len(rows) // 10 :]
        minutes = [float(row["minutes"]) for row in warm]
        memory = [float(row["rss_mb"]) for row in warm]
        centre = sum(minutes) / len(minutes)
        spread = sum((m - centre) ** 2 for m in minutes) or 1.0
        slope = sum((m - centre) * r for m, r in zip(minutes, memory, strict=True)) / spread
        last = rows[-1]
        header = ["minutes", "images", "refused files", "RSS after a tenth", "RSS at the end", "highest", "MB an hour"]
        body = [
            last["minutes"], last["images"], last["refused"], f"{memory[0]:.0f} MB", f"{memory[-1]:.0f} MB",
            f"{max(memory):.0f} MB", f"{60 * slope:+.1f}",
        ]  # fmt: skip
        parts.append(table(header, [body]))
    if suite := read("suite.csv"):
        header = ["after", "what was done", "what happened", "rows kept", "rows lost"]
        body = [[r["runs_done"], r["event"], r["message"][:220], r["rows_kept"], r["rows_lost"]] for r in suite]
        parts.append(table(header, body))
    return "\n\n".join(parts) or "Not measured yet."


def write_page() -> None:
    """Put the tables between their marks."""
    text = PAGE.read_text(encoding="utf-8")
    for name, content in (("cases", case_tables()), ("versions", versions_table()), ("soak", soak_table())):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=5, help="how often (%(default)s)")
    parser.add_argument("-k", default="", metavar="WORDS", help="only the cases that pytest selects by these words")
    parser.add_argument("--fresh", action="store_true", help="forget earlier tries")
    parser.add_argument("--table-only", action="store_true", help="write the page from the result files there are")
    arguments = parser.parse_args()
    tries = RESULTS / "tries"
    if not arguments.table_only:
        for old in tries.glob("*.xml") if arguments.fresh else ():
            old.unlink()
        for index in range(arguments.tries):
            report = tries / f"{index}.xml"
            if not report.is_file():
                run_once(report, arguments.k)
        rows = gather(sorted(tries.glob("*.xml")), read("cases.csv") if arguments.k else [])
        with (RESULTS / "cases.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        otherwise = [row["case"] for row in rows if row["tries"] != row["as_it_shall"]]
        print(f"{len(rows)} cases, not as they shall: {', '.join(otherwise) or 'none'}")
    write_page()


if __name__ == "__main__":
    main()
