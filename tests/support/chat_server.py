"""A real OpenAI-compatible server on the loopback, `transformers serve`, behind a proxy that records the requests."""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import ascii_uppercase, digits

import requests

from tests.support.mlflow_server import free_port, serving
from tests.support.tiny_captioners import word_tokenizer


@dataclass
class ChatServer:
    """The address of the server and the requests it received.

    Attributes:
        url: Value of the setting `url` of an endpoint.
        model: The server's name of its model.
        bodies: Bodies of all requests.
        keys: Distinct values of the requests' Authorization header.
        statuses: HTTP statuses of the answers.
    """

    url: str
    model: str
    bodies: list[dict] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)


def save_chat_model(folder: Path) -> Path:
    """A LLaMA with random weights: the trained ones cannot be downloaded here, so its answers are noise.

    An answer ends at a digit or a capital letter, so that it takes milliseconds.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }} {% endfor %}"
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [2, *tokenizer.convert_tokens_to_ids([*digits, *ascii_uppercase])]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextlib.contextmanager
def chat_server(folder: Path) -> Iterator[ChatServer]:
    """Serve the chat model in `folder` until the block ends."""
    upstream = f"http://127.0.0.1:{free_port()}"
    state = ChatServer("", str(folder))

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # The server ignores the key, so the proxy records it.
            state.keys.add(self.headers["Authorization"])
            state.bodies.append(json.loads(body))
            answer = requests.post(f"{upstream}{self.path}", data=body, headers={"Content-Type": "application/json"})
            state.statuses.append(answer.status_code)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", upstream.rpartition(":")[2], "--device", "cpu"]
    with (
        serving(command, f"{upstream}/health", folder / "server.log", {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}),
        ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield state
        server.shutdown()
