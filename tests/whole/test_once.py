"""What the tests do sooner than the packages that it belongs to comes out the same."""

import copy

import pytest
import yaml
from copies import SLOWLY
from omegaconf import DictConfig, ListConfig, OmegaConf
from tiny import compose_config


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
