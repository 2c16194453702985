"""Code and commands that use a registered model, for a report and for the end of a run."""

import json
import shlex


def usage_snippets(model_uri: str, prompt: str, registry: str = "") -> tuple[str, str]:
    """Python code that loads the model and generates an image, and a shell command that generates several.

    `registry` is the address of the MLflow of a `models:` address, "" if the default finds it.
    """
    argument = f", registry={json.dumps(registry)}" if registry else ""
    python = (
        "from hand1000 import load_pipeline\n\n"
        f'pipeline = load_pipeline("{model_uri}"{argument})\n'
        f'pipeline({json.dumps(prompt, ensure_ascii=False)}).images[0].save("out.png")'
    )
    return python, shell_snippet(model_uri, prompt, registry)


def shell_snippet(model_uri: str, prompt: str, registry: str = "") -> str:
    """A shell command that loads the model and generates images; `registry` is that of `usage_snippets`."""
    option = f" --registry {shlex.quote(registry)}" if registry else ""
    return f"hand1000 generate --model {model_uri}{option} --prompt {shlex.quote(prompt)} --num 8 --out grid.png"
