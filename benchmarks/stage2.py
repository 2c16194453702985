"""What the two parts of Stage II add: the demo with both, with each alone, and with neither.

    .venv/bin/python -m benchmarks.stage2 [--gesture four] [--images 200] [--root artifacts]

The four runs share everything else, so what they have in common is computed once. Prints a Markdown table.
"""

import argparse

from benchmarks.runs import demo_inputs, measured, print_table

VARIANTS: dict[str, dict[str, int]] = {
    "both": {},
    "fusion alone": {"refine_steps": 0},
    "refinement alone": {"fusion_steps": 0},
    "neither": {"fusion_steps": 0, "refine_steps": 0},
}


def main() -> None:
    """Run the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gesture", default="four")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--root", default="artifacts")
    inputs = demo_inputs(**vars(parser.parse_args()))
    print_table("Stage II", {name: measured(inputs, stage2=changes) for name, changes in VARIANTS.items()})


if __name__ == "__main__":
    main()
