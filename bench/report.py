#!/usr/bin/env python3
"""Tables of what bench/compare.py measured.

    python3 bench/report.py sections runs.jsonl ..      # a table for each workload
    python3 bench/report.py overview runs.jsonl ..      # one table of all, for README.md
"""
import json, statistics, sys

NAMES = {"weft": "Weft", "polars": "Polars", "duckdb": "DuckDB", "datafusion": "DataFusion", "dask": "Dask", "spark": "Spark", "ray": "Ray",
         "ray_data": "Ray Data"}


def name(member):
    system, _, native = member.partition("-")
    return NAMES[system] + (", own expressions" if native else "")


def median(rows, field):
    return statistics.median(row[field] for row in rows)


def by_system(rows):
    """The runs of each system that has not failed, the fastest first."""
    systems = {}
    for row in rows:
        systems.setdefault(row["system"], []).append(row)
    sound = {member: runs for member, runs in systems.items() if not any("error" in run for run in runs)}
    return dict(sorted(sound.items(), key=lambda item: median(item[1], "wall_s")))


def agree(rows):
    """True if Weft has results, and all results are equal. Peers may have failed, which the table says."""
    failed = any("error" in row for row in rows if row["system"] == "weft")
    return not failed and len({row["digest"] for row in rows if "digest" in row}) == 1


def heading(rows):
    row = rows[0]
    machine, data, loads = row["machine"], row["data"], [row["load"] for row in rows]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    return (f"{data['bytes'] / 1e6:,.0f} MB in {data['files']} files; commit {commits}; {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB; {row['at'][:10]}; load {min(loads)} to {max(loads)}.")


def section(rows):
    """The table of one workload, in Markdown."""
    systems = by_system(rows)
    lines = [f"### {rows[0]['workload']}", "", heading(rows), "",
             "| system | runs | median | smallest to largest | peak memory | start | over Weft |", "|---|--:|--:|--:|--:|--:|--:|"]
    base = median(systems["weft"], "wall_s") if "weft" in systems else float("nan")
    for member, runs in systems.items():
        walls = [run["wall_s"] for run in runs]
        wall = statistics.median(walls)
        lines.append(f"| {name(member)} | {len(runs)} | {wall:.2f} s | {min(walls):.2f} to {max(walls):.2f} s | "
                     f"{median(runs, 'peak_mib'):.0f} MiB | {median(runs, 'startup_s'):.2f} s | {wall / base:.1f} |")
    return "\n".join(lines + ["", *verdict(rows)]) + "\n"


def verdict(rows):
    digests = {}
    for row in rows:
        digests.setdefault(row.get("digest"), set()).add(row["system"])
    for row in rows:
        if "error" in row:
            yield f"**{name(row['system'])} failed: {row['error']}**"
    digests.pop(None, None)
    if len(digests) == 1:
        yield f"All results are equal, digest {next(iter(digests))}."
    elif digests:
        yield "**Results differ: " + "; ".join(f"{digest} of {', '.join(sorted(who))}" for digest, who in digests.items()) + "**"


def overview(rows):
    """One table: a column for each system, a row for each workload, median and peak memory in each cell."""
    workloads = {}
    for row in rows:
        workloads.setdefault(row["workload"], []).append(row)
    members = [member for member in NAMES if any(row["system"] == member for row in rows)]
    lines = ["| job | input | " + " | ".join(map(name, members)) + " |", "|---|--:|" + "--:|" * len(members)]
    for workload, runs in workloads.items():
        systems = by_system(runs)
        cells = [cell(systems.get(member), systems.get(f"{member}-native")) for member in members]
        lines.append(f"| {workload} | {runs[0]['data']['bytes'] / 1e6:,.0f} MB | " + " | ".join(cells) + " |")
    machine, loads = rows[0]["machine"], [row["load"] for row in rows]
    commits, dates = sorted({row["commit"] for row in rows}), sorted({row["at"][:10] for row in rows})
    rounds = min(len(found) for runs in workloads.values() for found in by_system(runs).values())
    lines += ["", f"{machine['cores']} cores of {machine['cpu']}, commit {', '.join(commits)}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, load "
              f"{min(loads)} to {max(loads)}, {rounds} interleaved rounds or more: median and peak memory."]
    if not all(agree(runs) for runs in workloads.values()):
        lines.append("**Results differ: see bench/RESULTS.md.**")
    return "\n".join(lines) + "\n"


def cell(runs, native):
    """Where there are two forms, the faster counts."""
    found = [form for form in (runs, native) if form]
    if not found:
        return "–"
    best = min(found, key=lambda form: median(form, "wall_s"))
    return f"{median(best, 'wall_s'):.2f} s, {median(best, 'peak_mib'):.0f} MiB"


def main():
    what, *paths = sys.argv[1:]
    rows = []
    for path in paths:
        with open(path) as lines:
            rows.extend(json.loads(line) for line in lines)
    if what == "overview":
        print(overview(rows), end="")
    else:
        for workload in dict.fromkeys(row["workload"] for row in rows):
            print(section([row for row in rows if row["workload"] == workload]))


if __name__ == "__main__":
    main()
