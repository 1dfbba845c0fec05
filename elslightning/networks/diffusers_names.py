"""The files of a folder of diffusers, and what such a folder is known by."""

from pathlib import Path

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = "model_index.json"
UNET = "config.json"
SCHEDULER = "scheduler_config.json"


def is_diffusers(path: str | Path) -> bool:
    """Whether a path looks like a folder of diffusers: of a pipeline, or of a model alone."""
    path = Path(path)
    return any((path / name).is_file() for name in (INDEX, f"unet/{UNET}")) or (
        (path / UNET).is_file() and any(path.glob("diffusion_pytorch_model*"))
    )
