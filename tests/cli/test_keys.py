"""The keys of the configurations, for people: what they mean, what can be chosen, and what the tab key makes of it."""

import os
import shutil
import subprocess
import sys

import pytest
from tiny import cli

from elslightning.cli.completing import SCRIPTS, candidates
from elslightning.cli.explaining import VERBS as EXPLAINED
from elslightning.cli.keys import choices, composed, keys, meaning, shown
from elslightning.cli.main import VERBS
from elslightning.cli.tools import TOOLS


@pytest.fixture(scope="module")
def config():
    return composed("train")


def test_the_verbs_with_keys_are_those_of_the_command_line():
    assert set(EXPLAINED) == set(VERBS)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("data_changed", "the images are not those that the training began with"),  # a comment of the verb's file
        ("denoiser.prediction", "What it is trained to return: eps, v or x0."),  # of the group's file
        ("denoiser.width", "feature channels, a multiple of 8"),  # an argument of our class
        ("trainer.max_epochs", "Stop training once this number of epochs is reached"),  # of Lightning's
        ("denoiser", "The paper's ResNet."),  # the top of the file
        ("seed", "the same seed gives the same run"),
    ],
)
def test_what_a_key_means_is_found_where_it_is_said(config, key, says):
    assert says in meaning(key, config)


def test_a_meaning_ends_where_the_next_argument_begins(config):
    assert meaning("data.channels", config) == "channels the images must have."


def test_the_keys_are_those_that_can_be_typed(config):
    found = keys(config)
    assert {"seed", "denoiser", "denoiser.width", "callbacks.ema.decay"} <= set(found)
    assert not any(key.split(".")[0] in ("hydra", "paths", "verb") or "_target_" in key for key in found)
    assert shown(found["calibration.patch_sizes"]) == "[3,5,7,9,11,13,15,17]"
    assert (shown(found["compare"]), shown(found["resume"])) == ("true", "null")


def test_words_that_do_not_compose_do_not_hide_the_others():
    assert "denoiser.num_levels" in keys(composed("train", ["denoiser=unet", "nothing=3"]))


def test_a_key_is_explained_with_its_value_and_its_choices():
    done = cli("explain", "denoiser", "denoiser=unet")
    assert (done.code, done.err) == (0, "")
    assert f"denoiser={'|'.join(choices()['denoiser'])}; here unet" in done.out
    assert "  denoiser.num_levels = 3\n" in done.out
    assert "denoiser.num_layers" not in done.out


def test_keys_of_other_verbs_and_groups_are_explained_too():
    done = cli("explain", "num_samples", "network")
    assert done.code == 0
    assert "num_samples = 16 (sample)" in done.out
    assert "smalldiffusion" in done.out


def test_a_key_that_means_something_else_to_another_verb_is_explained_for_both():
    said = cli("explain", "label").out
    assert "label = null (sample)" in said
    assert "label = null (create)" in said
    assert cli("explain", "seed").out.count("seed = 0") == 1


def test_without_a_key_all_groups_are_listed():
    done = cli("explain")
    assert done.code == 0
    assert all(f"{group}=" in done.out for group in choices())


def test_an_unknown_key_is_not_explained():
    done = cli("explain", "denoiser.widht")
    assert done.code == 2
    assert done.err == "elslightning: error: there is no key denoiser.widht; did you mean denoiser.width?\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("elslightning tra", ["train"]),
        ("elslightning ", [*VERBS, *TOOLS]),
        ("elslightning train denoiser.pa", ["denoiser.padding_mode="]),
        ("elslightning train denoi", ["denoiser.", "denoiser="]),
        ("elslightning train denoiser=un", ["denoiser=unet"]),
        ("elslightning train denoiser=unet denoiser.num_l", ["denoiser.num_levels="]),
        ("elslightning train experiment=fol", ["experiment=folder"]),
        ("elslightning compare comparison.num_p", ["comparison.num_pairs="]),
        ("elslightning explain denoiser.wi", ["denoiser.width"]),
        ("elslightning completion z", ["zsh"]),
        ("elslightning train data.root=", []),
        ("elslightning doctor ", []),
    ],
)
def test_the_last_word_of_a_line_is_completed(line, expected):
    assert candidates(line, list(VERBS), list(TOOLS)) == expected


def test_completion_is_there_for_three_shells_and_no_other():
    for shell, script in SCRIPTS.items():
        assert cli("completion", shell).out == script
    done = cli("completion", "cmd")
    assert done.code == 2
    assert "bash, zsh, fish" in done.err


DRIVERS = {
    # Ends of words as bash has them: `=` is one.
    "bash": """
eval "$SCRIPT"
COMP_LINE="elslightning train denoiser=un"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(elslightning train denoiser = un)
COMP_CWORD=4
_elslightning
echo "${COMPREPLY[@]}"
""",
    "zsh": """
compdef() { : }
compadd() { shift 4; print -r -- "$@" }
eval "$SCRIPT"
LBUFFER="elslightning train denoiser=un"
_elslightning
""",
    "fish": """
echo "$SCRIPT" | source
complete -C "elslightning train denoiser=un"
""",
}


@pytest.mark.parametrize("shell", [shell for shell in DRIVERS if shutil.which(shell)])
def test_the_script_of_a_shell_completes(tmp_path, shell):
    program = tmp_path / "elslightning"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m elslightning "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "SCRIPT": SCRIPTS[shell]}
    done = subprocess.run([shell, "-c", DRIVERS[shell]], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == {"bash": "unet"}.get(shell, "denoiser=unet")
