"""What decides a result of `hetmorph register` beside the images."""

from dataclasses import dataclass

from hetmorph.cli import guidance
from hetmorph.cli.files import refuse
from hetmorph.cli.models import OF_MODEL, Optimisation, affine_of_run, calibration_of, find_model, load_model
from hetmorph.cli.options import AFFINE
from hetmorph.cli.phases import phase
from hetmorph.evaluation import Predictor
from hetmorph.io import itk
from hetmorph.registration import linear_search
from hetmorph.uncertainty import estimate_names
from hetmorph.uncertainty.estimates import AT_ONCE

EQUIVARIANCE = "equivariance"
_NO_MILLIMETRES = (*AT_ONCE, "ensemble")


@dataclass(frozen=True)
class Settings:
    """What decides a result beside the images, as the options are called."""

    model: str
    passes: int = 1
    spacing: float | None = None
    instance_optimise: int | None = None
    instance_similarity: str | None = None
    instance_of: str | None = None
    instance_window: int | None = None
    instance_lambda: float | None = None
    method: str | None = None
    draws: int = 50
    seed: int = 0
    format: str | None = None
    reference: str | None = None
    inverse_tolerance: float = 1.0
    calibration: str | None = None
    affine: str | None = None
    affine_start: str | None = None
    affine_metric: str | None = None
    points_weight: float | None = None
    points_frame: str = "LPS"
    dice_weight: float | None = None
    modality_moving: str | None = None
    modality_fixed: str | None = None
    ct_window: list[float] | None = None
    mri_quantiles: list[float] | None = None
    mask_input: bool = False
    conserve_mass: bool = False

    @phase("model")
    def predictor(self, few: bool = False) -> Predictor:
        """Load the model.

        Args:
            few: as of `hetmorph.evaluation.load`.
        """
        model = load_model(find_model(self.model), self.passes, compiled=self.instance_of in OF_MODEL, few=few)
        guidance.check_modalities(self, model)
        return Optimisation.asked(self).after(model)

    def judging(self):
        """The calibration to judge by, or None, and a line on it."""
        refined = self.instance_optimise is not None
        return calibration_of(self.calibration, find_model(self.model), self.passes, refined)

    def check(self) -> None:
        """Raise ValueError for what does not go together."""
        Optimisation.asked(self).check()
        names = [name for name in estimate_names() if name not in _NO_MILLIMETRES]
        refuse(
            {
                f"--method {self.method}: expected one of {', '.join(names)}": self.method not in (None, *names),
                "--affine is of a pair, not of a sequence": self.aligns and self.of_sequence,
                "--affine-start has no effect without --affine": self.affine_start and not self.aligns,
                "--affine-metric has no effect without --affine": self.affine_metric and not self.aligns,
                "--calibration is of pairs, not of a sequence": self.calibration and self.of_sequence,
            }
        )
        guidance.scales(self)
        guidance.check_mass(self)
        if self.aligns:
            itk.package(linear_search.NEEDS)
        if self.calibration:
            self.judging()

    @property
    def estimate(self) -> str:
        """The estimate of uncertainty where no calibration tells the error to be expected, or another is asked for."""
        return self.method or EQUIVARIANCE

    @property
    def aligns(self) -> bool:
        """Whether an affine stage comes before the model."""
        return self.affine_kind != AFFINE[0]

    @property
    def affine_kind(self) -> str:
        """Of `AFFINE`: what was asked for, else what the model was trained behind; of a sequence, none."""
        if self.affine is not None or self.of_sequence:
            return self.affine or AFFINE[0]
        return affine_of_run(find_model(self.model))[0]

    @property
    def of_sequence(self) -> bool:
        """Whether the frames of a sequence are registered, not a pair."""
        return self.reference is not None
