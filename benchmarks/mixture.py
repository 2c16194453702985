"""What one model of several gestures costs each of them: its accuracy in a model of its own and in the mixture.

    .venv/bin/python -m benchmarks.mixture [--gesture call,four,...] [--images 200] [--steps 9000] [--root artifacts]

The demo, once for each gesture and once for all; parts that are finished under the root are not computed again. Each
accuracy is over as many held-out prompts, `generation.num_images` of a gesture. Prints a Markdown table.
"""

from benchmarks.runs import demo_inputs, demo_parser, registered

SIX = "call,four,like,mute,ok,palm"
"""Those of the paper."""


def main() -> None:
    """Run the models and print the table."""
    parser = demo_parser(__doc__, gesture=SIX)
    parser.add_argument("--steps", type=int, default=9000, help="of the mixture's Stage III")
    options = parser.parse_args()
    inputs = demo_inputs(options)
    rows = {}
    together = registered(inputs, stage3={"steps": options.steps})["gesture_accuracy"]
    for gesture in options.gesture.split(","):
        alone = registered(inputs | {"gesture": gesture})["gesture_accuracy"]
        rows[gesture] = (alone[gesture]["tuned"], together[gesture]["tuned"])
    rows["mean"] = tuple(sum(column) / len(rows) for column in zip(*rows.values(), strict=True))
    print("| gesture | its own model | the mixture | difference |\n| --- | --- | --- | --- |")
    for gesture, (own, mixed) in rows.items():
        print(f"| {gesture} | {own:.3g} | {mixed:.3g} | {mixed - own:+.3f} |")


if __name__ == "__main__":
    main()
