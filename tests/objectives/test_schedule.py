import pytest

from hetmorph.objectives import Heteroscedastic, Phase, phase


def test_warm_start_then_joint():
    phases = [phase(e, 10, 2) for e in range(10)]
    assert phases == [Phase.DISPLACEMENT] * 2 + [Phase.VARIANCE] * 2 + [Phase.JOINT] * 6


def test_default_is_the_papers_share():
    lengths = {p: sum(phase(e, 300) is p for e in range(300)) for p in Phase}
    assert lengths == {Phase.DISPLACEMENT: 20, Phase.VARIANCE: 20, Phase.JOINT: 260}


def test_short_trainings_start_jointly():
    assert phase(0, 1) is Phase.JOINT and phase(0, 100, 0) is Phase.JOINT


@pytest.mark.parametrize("bad", [{"snr": "poster"}, {"relative": "batch"}, {"gamma": 0.0}, {"beta": 1.5}])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Heteroscedastic(**bad)
