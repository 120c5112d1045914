"""`--verbose`: how long what took."""

import re

from hetmorph.cli import phases
from tests.cli.test_register import register


def test_a_phase_inside_another_takes_its_time_from_it(monkeypatch):
    clock = iter([0, 2, 5, 9, 20, 21])
    monkeypatch.setattr(phases.time, "perf_counter", lambda: next(clock))
    phase = phases.Phases()
    with phase("registration"):  # 0 to 2, 5 to 9
        phase("writing")(lambda: None)()  # 2 to 5
    with phase("writing"):  # 20 to 21
        pass
    assert phase.seconds == {"registration": 6, "writing": 4}
    assert str(phase) == "registration 6.0 s, writing 4.0 s"


def test_a_command_tells_its_phases_when_asked(hetmorph, stack):
    said = register(hetmorph, stack, "undeformed", "--verbose").stdout.splitlines()[-1]
    phase = r"(\w+) \d+\.\d s"
    assert re.fullmatch(rf"{phase}(, {phase})*", said)
    assert re.findall(phase, said) == ["imports", "model", "registration", "reading", "writing"]
    assert "imports" not in register(hetmorph, stack, "undeformed").stdout
