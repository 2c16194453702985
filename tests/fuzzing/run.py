"""`make fuzz`: give seeded bad inputs to every door and print a table; exit with 1 if one is a fault.

A run over all doors from the first seed on also puts the table into docs/malformed-inputs.md.

python -m tests.fuzzing.run [--inputs N] [--door NAME] [--seed N]
"""

import argparse
import sys
from pathlib import Path

from tests.fuzzing.harness import Door, DoorResult, call_door, find_doors, make_input, run_door

DEFAULT_INPUTS = 10_000
PAGE = Path(__file__).parents[2] / "docs/malformed-inputs.md"
BEGIN, END = "<!-- made by make fuzz: begin -->", "<!-- made by make fuzz: end -->"
_MAX_LISTED = 5


def main() -> int:
    """Run the doors, or show one input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=DEFAULT_INPUTS, help="number of inputs over all doors")
    parser.add_argument("--door", help="only the doors whose name contains this")
    parser.add_argument("--seed", type=int, help="only this input, in this process, with what became of it")
    parser.add_argument("--first-seed", type=int, default=0, help="the seed from which the inputs are counted")
    options = parser.parse_args()
    doors = [door for door in find_doors() if (options.door or "") in door.name]
    if options.seed is not None:
        for door in doors:
            print(door.name, repr(make_input(door, options.seed))[:5000], *call_door(door, options.seed), sep="\n")
        return 0
    results = []
    for door, count in zip(doors, share_inputs(doors, options.inputs), strict=True):
        results.append(run_door(door, range(options.first_seed, options.first_seed + count)))
        print(f"{door.name}: {count} inputs, {len(results[-1].faults)} faults", file=sys.stderr)
    table = "\n".join(make_table(results))
    print(table)
    if not options.door and not options.first_seed and options.inputs >= DEFAULT_INPUTS:
        before, after = PAGE.read_text().split(BEGIN)[0], PAGE.read_text().split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    for result in results:
        for seed, message in list(result.faults.items())[:_MAX_LISTED]:
            print(f"FAULT {result.name}, seed {seed}: {message}")
    return int(any(result.faults for result in results))


def share_inputs(doors: list[Door], inputs: int) -> list[int]:
    """Return the number of inputs of each door, at least `inputs` in all."""
    total = sum(door.weight for door in doors)
    return [-int(-inputs * door.weight // total) for door in doors]


def make_table(results: list[DoorResult]) -> list[str]:
    """Return the lines of the table, in Markdown."""
    rows = [
        [
            result.name,
            f"{result.tried:,}",
            f"{result.refused:,}",
            f"{result.accepted:,}",
            f"{len(result.faults):,}",
            f"{result.seconds:.2f} s",
            f"{max(result.growth, 0) >> 20} MiB",
        ]
        for result in results
    ]
    sums = [f"{sum(int(row[column].replace(',', '')) for row in rows):,}" for column in range(1, 5)]
    rows.append(["all", *sums, "", ""])
    head = ["door", "inputs", "refused in one line", "accepted", "faults", "slowest", "most memory"]
    return [f"| {' | '.join(row)} |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *rows]]


if __name__ == "__main__":
    sys.exit(main())
