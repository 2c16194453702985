"""What a model's folder may hold beside the parts that diffusers knows; docs/architecture.md, "The data shapes"."""

ADAPTER = "lora"
"""The adapter by itself, in diffusers' own form, where one was trained; it is merged into the UNet as well."""

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
