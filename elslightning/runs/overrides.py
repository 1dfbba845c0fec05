"""The `key=value` of a command line."""

from collections.abc import Iterable


def key_of(override: str) -> str:
    """The key that a `key=value` sets, adds (+) or takes away (~).

    >>> key_of("+logger.wandb.entity=me"), key_of("~callbacks.ema")
    ('logger.wandb.entity', 'callbacks.ema')
    """
    return override.lstrip("+~").split("=", 1)[0]


def keys_of(overrides: Iterable[str]) -> list[str]:
    """The keys of several, in their order."""
    return [key_of(override) for override in overrides]
