from __future__ import annotations

from pathlib import Path

import pytest

from lbkit.errors import ConfigError
from training.config import read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.toml"))

MINIMAL = """
model = "cnn"
[[sources]]
name = "a"
annotations = "a.json"
images = "a"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_reads(path: Path) -> None:
    assert read_recipe(path).model in path.stem


def test_settings_replace_keys_and_nested_keys(tmp_path: Path) -> None:
    recipe = read_recipe(
        write(tmp_path, MINIMAL), settings=["epochs=3", "augmentation.flip=0", "init_from=a/b.safetensors"]
    )
    assert (recipe.epochs, recipe.augmentation.flip, recipe.init_from) == (3, 0.0, "a/b.safetensors")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (MINIMAL, ["epoch=3"], "unknown field epoch"),
        (MINIMAL, ["augmentation.flop=1"], r"unknown field augmentation\.flop"),
        (MINIMAL, ["epochs=many"], "epochs should be int"),
        (MINIMAL, ["epochs=0"], "must be at least 1"),
        (MINIMAL, ["epochs"], "should be key=value"),
        (MINIMAL, ["input_height=250"], "multiples of 32"),
        (MINIMAL, ["optimizer=sgd"], "optimizer should be one of adam, adamw"),
        ("model = 'cnn'", [], "missing field sources"),
        ("model = 'cnn'\n[[sources]]\nname = 'a'", [], "source a needs annotations and images"),
        ("model =", [], "is not TOML"),
        (MINIMAL, ["model.x=1"], r"--set model.x=1: model is no table of keys; give the whole of it"),
        (MINIMAL, ["sources.0.repeat=2"], "sources is no table of keys"),
        (MINIMAL, ["learning_rate=nan"], "learning_rate and loss_scale must be positive"),
        (MINIMAL, ["sigma=0"], "sigma, learning_rate and loss_scale must be positive"),
        (MINIMAL, ["input_height=0"], "input_height must be at least 32 and at most 4096, got 0"),
        (MINIMAL, ["warmup=1.5"], "warmup must be at least 0 and at most 1, got 1.5"),
        (MINIMAL, ["ema_decay=nan"], "ema_decay must be at least 0 .* got nan"),
        (MINIMAL, ["seed=-1"], "seed must be at least 0"),
        (MINIMAL, ["workers=-1"], "workers must be at least 0"),
        (MINIMAL, ["augmentation.flip=3"], "augmentation: flip must be at least 0 and at most 1, got 3.0"),
        (MINIMAL, ["augmentation.scale=1"], "scale must be at least 0 and at most 0.9"),
        (MINIMAL + "repeat = inf", [], r"sources\[0\]: repeat must be at least 0 and at most 1e\+09, got inf"),
        (MINIMAL + "[[sources]]\nname = 'synthetic'", [], "source synthetic needs persons, at least 1"),
        (MINIMAL + MINIMAL.split("\n", 2)[2], [], "each source needs a name of its own, got a, a"),
    ],
)
def test_misfits_are_named(tmp_path: Path, text: str, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path, text), settings=settings)


def test_a_missing_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        read_recipe(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path)
