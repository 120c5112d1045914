"""What a job of `hetmorph register` has done."""

from dataclasses import dataclass, field
from pathlib import Path

from hetmorph import viz
from hetmorph.cli.outcome import Outcome, mean_line
from hetmorph.registration import Alignment


@dataclass
class Done:
    """What a job has done.

    Attributes:
        paths: the files written.
        outcomes: scores of the pair, or of each frame.
        verdict: on the pair; of a sequence that on its worst frame.
        doubts: sentences on what else looks wrong.
        seconds: time that registration and writing took.
        notes: further sentences.
        affine: what the affine stage found; None without one.
    """

    paths: list[Path] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    verdict: viz.Verdict | None = None
    doubts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    affine: Alignment | None = None

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        of_all = self.outcomes[0].lines() if len(self.outcomes) == 1 else [mean_line(self.outcomes)]
        verdict = self.verdict.flag if self.warned else self.judgement
        return [
            *([] if self.affine is None else [str(self.affine)]),
            *of_all,
            *self.notes,
            f"verdict: {verdict}",
            f"took {self.seconds:.1f} s",
            *(f"wrote {path}" for path in self.paths),
        ]

    @property
    def judgement(self) -> str:
        """The verdict and its reason."""
        return f"{self.verdict.flag}: {self.verdict.reason}"

    @property
    def warned(self) -> bool:
        """Whether the verdict is one to be warned of."""
        return self.verdict.flag != "accept"

    def warnings(self) -> list[str]:
        """What a user has to know even if nobody reads what was done."""
        return [*([self.judgement] if self.warned else []), *self.doubts]
