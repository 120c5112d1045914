"""What benchmarks/artefacts.py makes of rows and slices; the optimisations themselves take minutes."""

import sys

import numpy as np
import pytest

from hetmorph import data
from hetmorph.evaluation import Prediction
from tests.documentation import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import artefacts  # noqa: E402

TRUTH, KIND, LEVEL = artefacts.WARP, "void", 0.5


@pytest.fixture
def pair():
    return data.phantom.generate(3, size=(48, 48), noise=False)


def rows(errors, method="mse", smoothness=0.01, level=LEVEL):
    """A row of each patient with this error."""
    about = {"method": method, "smoothness": smoothness, "condition": [TRUTH, KIND if level else "", level]}
    return [
        about | {"case_id": f"p{number}", "patient": f"p{number}", "registered_epe_artefact": error}
        for number, error in enumerate(errors)
    ]


def test_the_best_smoothness_is_that_of_the_least_error():
    tried = rows([2, 4], smoothness=0.1) + rows([1, 2], smoothness=0.4) + rows([0, 9], smoothness=1.6)
    assert artefacts.tuned(tried, TRUTH, "mse") == 0.4
    best = {TRUTH: {"mse": 0.4, "ncc": 0.3}}
    assert artefacts.chosen(tried + rows([3, 3], "ncc", 0.3), best, TRUTH, ("ncc", "mse")) == "mse"


def test_clean_pairs_are_not_among_those_with_artefacts():
    every = rows([1, 2]) + rows([7, 7], level=0.0) + rows([5, 5], level=1.0)
    assert len(artefacts.of(every, TRUTH, "mse")) == 4
    assert artefacts.mean(artefacts.of(every, TRUTH, "mse", KIND, LEVEL), "epe_artefact") == 1.5
    assert artefacts.mean(artefacts.of(every, TRUTH, "mse", "", 0.0), "epe_artefact") == 7
    assert np.isnan(artefacts.mean(every, "epe_around"))


def test_a_difference_of_errors_is_told_as_a_share_too():
    first, second = rows([2.0, 4.0, 3.0, 3.0]), rows([1.0, 3.0, 2.0, 2.0], "mse, weighted")
    assert artefacts.difference(first, second, "epe_artefact").startswith("-1.00 (-1.00 … -1.00), -33 %, p = ")


def test_the_true_mask_takes_the_artefact_out_and_keeps_the_mean(pair):
    spoilt = artefacts.Condition(artefacts.WARP, "void", 1.0)
    spoilt = artefacts.replace(spoilt, truth=artefacts.MOTION).of(pair)
    assert spoilt.artefact_fixed.any() and spoilt.case_id.endswith("ED to ES void 1")
    answer = Prediction(np.zeros((48, 48, 2), np.float32), spoilt.moving)
    weight = artefacts.masked(spoilt, answer).weight
    assert weight.mean() == pytest.approx(1) and not weight[spoilt.artefact_fixed].any()
    assert (artefacts.masked(pair, answer).weight == 1).all()


def test_a_perfect_answer_has_no_error_anywhere(pair):
    known = artefacts.Condition(artefacts.WARP, "flow", 1.0)
    spoilt = data.add_artefact(data.warp_known(pair, amplitude=3.0), known.kind, known.level)
    scores = artefacts.scored(spoilt, spoilt.displacement, 2)
    assert scores["epe_labels"] == scores["epe_artefact"] == scores["epe_around"] == 0 and scores["dice_myo"] > 0.9
    answer = Prediction(spoilt.displacement, spoilt.moving, np.where(spoilt.artefact_fixed, -1.0, -5.0))
    assert 0.5 < artefacts.marked(spoilt, answer)["sigma_auroc_foreground"] <= 1


def test_slices_come_evenly_from_each_stack():
    pairs = data.phantom.read_pairs("phantom000", size=(32, 32), noise=False)
    assert [pair.slice_index for pair in artefacts.slices(pairs, 2, 1)] == [4]
    assert [pair.slice_index for pair in artefacts.slices(pairs, 2, 3)] == [2, 4, 5]
