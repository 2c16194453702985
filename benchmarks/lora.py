"""Stage III with all weights against adapters, on the demo: the figures side by side.

    .venv/bin/python -m benchmarks.lora [--gesture four] [--images 200] [--root artifacts]

The two runs share everything before Stage III. Prints a Markdown table.
"""

from benchmarks.runs import demo_inputs, demo_parser, measured, print_table

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]
VARIANTS: dict[str, dict] = {
    "all weights": {},
    "adapters of rank 32": {
        "tune": "lora",
        "lora": {"rank": 32, "alpha": 32, "targets": LAYERS},
        "learning_rate": 2e-3,
    },
}


def main() -> None:
    """Run both and print the table."""
    inputs = demo_inputs(demo_parser(__doc__).parse_args())
    print_table("Stage III", {name: measured(inputs, stage3=changes) for name, changes in VARIANTS.items()})


if __name__ == "__main__":
    main()
