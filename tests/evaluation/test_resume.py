import json
import math

import numpy as np
import pytest

from hetmorph.evaluation import Curves, Partial, fingerprint
from tests.evaluation.fakes import constant, evaluate, shifted_pair

SETTINGS = {"model": "x.keras", "size": (32, 32)}


@pytest.fixture
def known():
    curves = Curves()
    rows = evaluate(constant((0, 0), np.zeros((32, 32))), [shifted_pair(3)], progress=False, curves=curves)
    return rows, curves


def test_rows_and_curves_come_back_as_they_were(known, tmp_path):
    rows, curves = known
    path = tmp_path / "new" / "p.json"
    Partial(path, SETTINGS).write(rows, curves, now=True)
    read_rows, read_curves = Partial(path, SETTINGS).read()
    assert len(read_rows) == 1 and read_rows[0].keys() == rows[0].keys()
    for name, value in rows[0].items():
        same = isinstance(value, float) and math.isnan(value) and math.isnan(read_rows[0][name])
        assert same or read_rows[0][name] == value
    assert read_curves.table() == curves.table()


def test_nothing_yet_is_nothing(tmp_path):
    rows, curves = Partial(tmp_path / "p.json", SETTINGS).read()
    assert rows == [] and not curves


def test_other_settings_are_named_and_refused(known, tmp_path):
    Partial(tmp_path / "p.json", SETTINGS).write(*known, now=True)
    with pytest.raises(ValueError, match="another noise, size;"):
        Partial(tmp_path / "p.json", SETTINGS | {"size": (16, 16), "noise": 0.1}).read()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {}}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match="p.json is damaged"):
        Partial(tmp_path / "p.json", SETTINGS).read()


def test_writes_now_and_then(known, tmp_path, monkeypatch):
    clock = iter([0.0, 1.0, 12.0, 12.0, 13.0])
    monkeypatch.setattr("hetmorph.evaluation.resume.time.monotonic", lambda: next(clock))
    partial = Partial(tmp_path / "p.json", SETTINGS)
    partial.write(*known)
    assert not partial.path.exists()
    partial.write(*known)
    assert json.loads(partial.path.read_text())["settings"]["size"] == [32, 32]
    partial.remove()
    partial.write(*known)
    assert not partial.path.exists()
    partial.remove()


def test_a_model_written_anew_is_another(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    before = fingerprint(tmp_path / "m"), fingerprint(tmp_path / "m" / "a")
    assert before[0] == before[1]
    (tmp_path / "m" / "a").write_text("12")
    assert fingerprint(tmp_path / "m") != before[0] and fingerprint("demons") == []
