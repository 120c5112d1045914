import json

import pytest

from hetmorph import config
from hetmorph.config import TrainConfig


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_round_trip(tmp_path, suffix):
    values = config.to_dict(TrainConfig())
    values["network"]["features"] = [[8, 8], [8, 8, 8]]
    values["objective"]["warm_start"] = 2
    original = config.from_dict(values)
    path = tmp_path / f"c.{suffix}"
    config.save(original, path) if suffix == "yaml" else path.write_text(json.dumps(values))
    assert config.load(path) == original


def test_files_in_the_repository_load():
    from pathlib import Path

    files = sorted((Path(__file__).parents[1] / "training" / "configs").glob("*.yaml"))
    assert files
    for path in files:
        config.load(path)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"optimiser": {}}, "unknown key optimiser; known keys are data, network"),
        ({"data": {"folder": "x"}}, "unknown key data.folder"),
        ({"schedule": {"steps": "many"}}, "schedule.steps must be of type int, got 'many'"),
        ({"schedule": {"steps": 0}}, "schedule.steps must be at least 1"),
        ({"schedule": {"pre_registered": 1.5}}, "schedule.pre_registered must be a share from 0 to 1, got 1.5"),
        ({"schedule": {"pre_registered": 0.01}}, "schedule.pre_registered must be at least a pair of a batch of 8"),
        ({"schedule": {"pre_registered": 0.5}, "network": {"bidir": True}}, "pre_registered must be 0 with bidir"),
        ({"optimizer": {"decay": "steps"}}, "optimizer.decay must be 'cosine', 'poly' or 'none'"),
        ({"objective": {"smoothness": -1.0}}, "λ ≥ 0"),
        ({"objective": {"warm_start": 20}}, "warm_start must be at least 0 and fewer than half of the 30 epochs"),
        ({"data": {"size": 128}}, "data.size must be a list"),
        ({"data": {"augment": 1}}, "data.augment must be of type bool"),
        ({"data": "acdc"}, "must be a mapping"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        config.from_dict(values)


def test_broken_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        config.load(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("data: [")
    with pytest.raises(ValueError, match="neither YAML nor JSON"):
        config.load(tmp_path / "broken.yaml")
