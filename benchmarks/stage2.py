"""What the two parts of Stage II add: the demo with both, with each alone, and with neither.

    .venv/bin/python -m benchmarks.stage2 [--gesture four] [--images 200] [--root artifacts]

The four runs share everything else, so what they have in common is computed once. Prints a Markdown table.
"""

from benchmarks.runs import demo_inputs, demo_parser, measured, print_table

VARIANTS: dict[str, dict[str, int]] = {
    "both": {},
    "fusion alone": {"refine_steps": 0},
    "refinement alone": {"fusion_steps": 0},
    "neither": {"fusion_steps": 0, "refine_steps": 0},
}


def main() -> None:
    """Run the variants and print the table."""
    inputs = demo_inputs(demo_parser(__doc__).parse_args())
    print_table("Stage II", {name: measured(inputs, stage2=changes) for name, changes in VARIANTS.items()})


if __name__ == "__main__":
    main()
