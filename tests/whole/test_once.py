"""What the tests do sooner than the packages that it belongs to comes out the same."""

import copy
import itertools

import pytest
import signatures
import torch
import yaml
from copies import SLOWLY
from jaxtyping import Float, Int64, Shaped
from jaxtyping._storage import get_shape_memo, pop_shape_memo, push_shape_memo
from omegaconf import DictConfig, ListConfig, OmegaConf
from tiny import compose_config
from torch import Tensor


def held(node):
    """All that a node of a configuration holds."""
    content = node.__dict__.get("_content", node.__dict__.get("_val"))
    if isinstance(content, dict):
        content = {key: held(value) for key, value in content.items()}
    elif isinstance(content, list):
        content = [held(value) for value in content]
    return type(node), node._metadata, content


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    words = ["experiment=digits", "machines=[bbels,is]", "data.root='é'", "+note='1: # x'"]
    return compose_config("train", tmp_path_factory.mktemp("once"), words, hydra=True)


def slowly(config, monkeypatch):
    with monkeypatch.context() as patch:
        for kind, copied in SLOWLY.items():
            patch.setattr(kind, "__deepcopy__", copied)
        return copy.deepcopy(config)


def test_configurations_are_copied_as_omegaconf_copies_them(config, monkeypatch):
    for part in (config, config.trainer, config.machines, config.hydra.overrides.task):
        assert isinstance(part, DictConfig | ListConfig)
        found = copy.deepcopy(part)
        assert held(found) == held(slowly(part, monkeypatch)) == held(part)
        assert found._get_parent() is part._get_parent()
    found = copy.deepcopy(config)
    found.trainer.max_epochs = config.trainer.max_epochs + 1
    OmegaConf.set_struct(found.trainer, False)
    found.trainer.another = 1
    assert "another" not in config.trainer
    assert found.trainer._get_parent() is found


def test_configurations_are_written_so_that_they_are_read_as_the_same(config):
    text = OmegaConf.to_yaml(config)
    assert OmegaConf.create(text) == config
    written = yaml.dump(OmegaConf.to_container(config.data), default_flow_style=False, sort_keys=False)
    assert yaml.safe_load(written) == yaml.safe_load(OmegaConf.to_yaml(config.data))


def test_tensors_are_what_a_hint_says_exactly_where_jaxtyping_says_so():
    words = (
        "batch channel height width",
        "batch 3 h w",
        "... h w",
        "n n",
        "_ n",
        "*many n",
        "#n n",
        "n n+1",
        "",
        "...",
    )
    hints = [kind[Tensor, word] for kind in (Float, Int64, Shaped) for word in words]
    assert sum(signatures._plain(hint) is not None for hint in hints) >= 12
    shapes = ((), (3,), (3, 3), (3, 4), (2, 3, 4, 5), (2, 3, 5, 5))
    values = [torch.zeros(shape, dtype=dtype) for shape in shapes for dtype in (torch.float32, torch.int64)]
    for first, second in itertools.product(
        itertools.product(hints[:12], values[::2]), itertools.product(hints, values)
    ):
        seen = []
        for look in (signatures._looked, signatures._looks):
            push_shape_memo({})
            try:
                answers = [attempt(look, *asked) for asked in (first, second)]
                seen.append((answers, dict(get_shape_memo()[0])))
            finally:
                pop_shape_memo()
        assert seen[0] == seen[1], (first[0], first[1].shape, second[0], second[1].shape)


def attempt(look, hint, value):
    try:
        return look(hint, value)
    except Exception as error:  # a dimension of unknown names
        return type(error)
