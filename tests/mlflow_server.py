"""A real MLflow server on the loopback, and a tiny model to put into it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run `mlflow server` over a sqlite file in `folder` until the block ends; gives its URI."""
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2]]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "server-artifacts")]
    with serving(command, f"{uri}/health", folder / "server.log"):
        yield uri


@contextlib.contextmanager
def serving(command: list[str], health: str, log: Path) -> Iterator[None]:
    """Run `command` until the block ends, entering it when `health` answers 200."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "PATH": path}, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 90
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2) as answer:
                    if answer.status == 200:
                        break
                time.sleep(0.1)
            yield
        finally:
            # The whole group: the servers fork workers that outlive them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(timeout=20)


def save_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A `Hand1000Pipeline` without fusion that draws 8 px noise in no time, random weights from `seed`."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from hand1000.diffusion.pipeline import Hand1000Pipeline
    from hand1000.diffusion.small_base import build_scheduler, build_tokenizer

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(["a person making phone call hand gesture"])
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=48,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=16,
    )
    vae = AutoencoderKL(block_out_channels=(16,), norm_num_groups=4)
    pipeline = Hand1000Pipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=build_scheduler(),
        mu=0.6, guidance_scale=2.0, num_inference_steps=2,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder
