import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from hetmorph.evaluation import Curves, Prediction
from hetmorph.evaluation.cases import foreground
from hetmorph.evaluation.uncertainty import CALIBRATION, DISPLACEMENT, judge
from hetmorph.metrics import ause, reliability_curve, sparsification, standardised
from hetmorph.metrics.calibration import calibration_error
from tests.evaluation.fakes import constant, evaluate, evaluate_pair, pair, shifted_pair

SHAPE = (32, 32)


@pytest.fixture
def sample(rng):
    """A pair whose true displacement and noise are known, and differ from place to place."""
    truth = np.zeros((*SHAPE, 2), np.float32)
    truth[..., 0] = -3 + np.linspace(-2, 2, 32)[:, None]
    return shifted_pair(3, displacement=truth, sigma=rng.uniform(0.01, 0.1, SHAPE).astype(np.float32))


@pytest.fixture
def log_variance(rng):
    return rng.normal(-5, 1, SHAPE).astype(np.float32)


def prediction_of(sample, log_variance):
    return constant((-1, 2), log_variance)(sample.moving, sample.fixed)


def test_columns_are_the_metrics_of_residual_and_sigma(sample, log_variance):
    prediction, inside = prediction_of(sample, log_variance), foreground(sample)
    row = evaluate_pair(constant((-1, 2), log_variance), sample)
    residual, sigma = sample.fixed - prediction.moved, np.exp(0.5 * log_variance)
    for region, mask in (("", np.ones(SHAPE, bool)), ("_foreground", inside)):
        z = (residual[mask] / sigma[mask]).astype(np.float64)
        expected = {
            "coverage1": np.mean(np.abs(z) <= 1),
            "coverage2": np.mean(np.abs(z) <= 2),
            "z_mean": z.mean(),
            "z_sd": z.std(),
            "z_normal_distance": stats.kstest(z, "norm").statistic,
            "sigma_ece": calibration_error(reliability_curve(residual[mask], sigma[mask])),
        }
        assert tuple(expected) == CALIBRATION
        for name, value in expected.items():
            assert row[f"registered_{name}{region}"] == pytest.approx(value, rel=1e-4), f"{name}{region}"


def test_true_displacement_errors_are_judged_as_squared_endpoint_errors(sample, log_variance):
    row = evaluate_pair(constant((-1, 2), log_variance), sample)
    squared = (-1 - sample.displacement[..., 0]) ** 2 + (2 - sample.displacement[..., 1]) ** 2
    assert row["registered_ause_displacement"] == pytest.approx(ause(squared, log_variance), rel=1e-5)
    inside = foreground(sample)
    expected = ause(squared[inside], log_variance[inside])
    assert row["registered_ause_displacement_foreground"] == pytest.approx(expected, rel=1e-5)
    perfect = evaluate_pair(constant((-1, 2), np.log(squared + 1e-6)), sample)
    assert perfect["registered_ause_displacement"] == pytest.approx(0, abs=1e-9)


def test_what_is_not_known_has_no_column(log_variance):
    row = evaluate_pair(constant((-1, 2), log_variance), shifted_pair(3))
    assert not {f"registered_{name}" for name in (*DISPLACEMENT, "sigma_correlation")} & set(row)
    assert np.isfinite(row["registered_coverage1"])


def test_rank_correlation_agrees_with_scipy_and_ignores_the_scale(sample):
    rounded = dataclasses.replace(sample, sigma=np.round(sample.sigma, 2))
    sigma = rounded.sigma**3 + 0.001
    row = evaluate_pair(constant((-1, 2), 2 * np.log(sigma)), rounded)
    assert row["registered_sigma_rank_correlation"] == pytest.approx(1, abs=1e-6)
    assert row["registered_sigma_correlation"] < 0.99
    other = np.roll(sigma, 5, 0) + sigma
    row = evaluate_pair(constant((-1, 2), 2 * np.log(other)), rounded)
    expected = stats.spearmanr(np.exp(np.log(other)).round(12).ravel(), rounded.sigma.ravel()).statistic
    assert row["registered_sigma_rank_correlation"] == pytest.approx(expected, abs=0.02)
    inside = foreground(rounded)
    expected = stats.spearmanr(other[inside], rounded.sigma[inside]).statistic
    assert row["registered_sigma_rank_correlation_foreground"] == pytest.approx(expected, abs=0.02)


def test_a_sigma_of_the_noise_itself_is_calibrated(rng):
    size = (64, 64)
    sigma = np.broadcast_to(np.linspace(0.01, 0.1, 64), size)
    still = np.full(size, 0.5, np.float32)
    noisy = (still + sigma * rng.normal(size=size)).astype(np.float32)
    sample = dataclasses.replace(pair(), moving=still, fixed=noisy, moving_labels=None, fixed_labels=None)
    right, wrong = (
        evaluate_pair(
            lambda moving, fixed, k=k: Prediction(np.zeros((*size, 2)), moving, 2 * np.log(k * sigma)), sample
        )
        for k in (1, 3)
    )
    assert right["registered_coverage1"] == pytest.approx(0.683, abs=0.03)
    assert right["registered_coverage2"] == pytest.approx(0.954, abs=0.02)
    assert right["registered_z_sd"] == pytest.approx(1, abs=0.05)
    assert 3 * right["registered_sigma_ece"] < wrong["registered_sigma_ece"]
    assert right["registered_z_normal_distance"] < wrong["registered_z_normal_distance"] / 3


def test_curves_are_the_mean_over_pairs(rng, sample):
    curves, expected = Curves(), []
    pairs = [sample, dataclasses.replace(sample, case_id="b", fixed=sample.fixed[::-1])]
    maps = rng.normal(-5, 1, (2, *SHAPE))
    for one, log_variance in zip(pairs, maps, strict=True):
        evaluate(constant((0, 0), log_variance), [one], progress=False, curves=curves)
        expected.append(sparsification((one.fixed - one.moving) ** 2, log_variance))
    np.testing.assert_allclose(curves.mean("residual"), np.mean(expected, 0), rtol=1e-6)
    rows = [row for row in curves.table() if row["error"] == "residual"]
    assert [row["removed"] for row in rows] == pytest.approx([k / 50 for k in range(50)])
    assert [row["remaining"] for row in rows] == pytest.approx(np.mean([e.curve for e in expected], 0))
    assert {row["random"] for row in rows} == {rows[0]["remaining"]}, "whatever is removed, the mean stays"
    assert {row["pairs"] for row in rows} == {2}
    assert {row["error"] for row in curves.table()} == {
        "residual", "displacement", "residual_foreground", "displacement_foreground",
    }  # fmt: skip


def test_pooled_calibration_is_over_all_voxels(rng, sample, log_variance):
    curves, z = Curves(), []
    for shift in ((-1, 2), (-3, 0)):
        evaluate(constant(shift, log_variance), [sample], progress=False, curves=curves)
        residual = sample.fixed - constant(shift)(sample.moving, sample.fixed).moved
        z.append(standardised(residual, np.exp(0.5 * log_variance), foreground(sample)))
    z = np.concatenate(z)
    values = curves.calibration()["foreground"]
    assert values["voxels"] == z.size
    assert (values["z_mean"], values["z_sd"]) == pytest.approx((z.mean(), z.std()), rel=1e-4)
    assert values["coverage2"] == pytest.approx(np.mean(np.abs(z) <= 2), rel=1e-6)
    assert sum(values["histogram"]["count"]) == sum(values["reliability"]["count"]) == z.size
    edges = values["histogram"]["edges"]
    np.testing.assert_allclose(values["histogram"]["count"][1:-1], np.histogram(z, edges)[0], atol=2)
    observed, count = (np.array(values["reliability"][key]) for key in ("observed", "count"))
    sigma = np.tile(np.exp(0.5 * log_variance)[foreground(sample)], 2)
    assert (observed**2 * count).sum() == pytest.approx(((z * sigma) ** 2).sum(), rel=1e-4)


def test_the_state_survives_json(sample, log_variance):
    curves = Curves()
    judgement = judge(sample, prediction_of(sample, log_variance), foreground(sample))
    curves.add(judgement)
    again = Curves.from_state(json.loads(json.dumps(curves.state())))
    for one in (curves, again):
        one.add(judgement)
    assert again.table() == curves.table() and again.calibration() == curves.calibration()


def test_curves_of_one_pair_each_join_to_those_of_all(rng, sample):
    whole, joined = Curves(), Curves()
    for log_variance in rng.normal(-5, 1, (3, *SHAPE)):
        judgement, one = judge(sample, prediction_of(sample, log_variance), foreground(sample)), Curves()
        whole.add(judgement)
        one.add(judgement)
        joined.join(Curves.from_state(json.loads(json.dumps(one.state()))))
    joined.join(Curves())
    assert joined.table() == whole.table() and joined.calibration() == whole.calibration()


def test_a_model_without_variance_and_a_broken_one_leave_no_curves(sample, log_variance):
    curves = Curves()
    evaluate(constant((0, 0)), [sample], progress=False, curves=curves)
    evaluate(constant((0, 0), np.full(SHAPE, np.nan)), [sample], progress=False, curves=curves)
    assert not curves and curves.table() == [] and curves.calibration() == {}


def test_an_empty_foreground_is_left_out_of_the_curves(log_variance):
    empty = dataclasses.replace(pair(), moving=np.zeros(SHAPE, np.float32), fixed=np.zeros(SHAPE, np.float32))
    curves = Curves()
    row = evaluate(constant((0, 0), log_variance), [empty], progress=False, curves=curves)[0]
    assert np.isnan(row["registered_ause_foreground"]) and np.isnan(row["registered_coverage1_foreground"])
    assert row["registered_coverage1"] == 1
    assert set(curves.sparsification) == {"residual"}
    assert curves.calibration()["foreground"] == {"voxels": 0}
