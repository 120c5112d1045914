"""The methods one can train by name: which losses, with which weights, on which kind of model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hetmorph.losses import (
    KL,
    LNCC,
    MIND,
    MSE,
    NCC,
    NGF,
    AdaFrame,
    Grad,
    MutualInformation,
    SmoothPosterior,
    SquaredLNCC,
)
from hetmorph.objectives import terms
from hetmorph.objectives.likelihoods import Heteroscedastic, JointLikelihood
from hetmorph.objectives.sampled import JacobianInverseConsistency, SampledCorrelation, SmallCodes
from hetmorph.objectives.terms import GradientInverseConsistency, InverseConsistency, Landmarks, Overlap, Term


@dataclass(frozen=True)
class Recipe:
    """A similarity plus `λ·m·‖∇v‖²`; m, the `resolution`, is VoxelMorph's: 2 for an integrated velocity, otherwise 1.

    Attributes:
        smoothness: λ.
        landmark_weight: weight of `Landmarks`, beside everything else.
        dice_weight: weight of `Overlap`, of the training pairs' labels, beside everything else.
        model: kind of model that trains it; `hetmorph.networks.build` knows the class.
        samples: whether the velocity is a distribution that training samples from.
        transforms: whether its terms look at the transforms of both directions as functions of points, which only a
            model made of steps has.
    """

    smoothness: float = 0.01
    landmark_weight: float = 0.0
    dice_weight: float = 0.0
    model: ClassVar[str] = "plain"
    samples: ClassVar[bool] = False
    transforms: ClassVar[bool] = False

    def __post_init__(self):
        if not self.smoothness >= 0:
            raise ValueError(f"smoothness must be λ ≥ 0, got {self.smoothness!r}")
        # The parts know which of their numbers make sense: here they say so before any data are read.
        self.image_loss(), self.field_loss(1.0, 2), self.all_terms(), self.model_arguments()

    def image_loss(self):
        """Loss object of the fixed and the moved image; None where terms alone compare them."""
        return MSE()

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        """Loss object of the predicted field, and its weight."""
        return Grad("l2", loss_mult=resolution), self.smoothness

    def terms(self) -> list[Term]:
        """What is minimised besides, see `hetmorph.objectives.Term`."""
        return []

    def all_terms(self, labels: Sequence[int] = (1,)) -> list[Term]:
        """Those of the method, and of landmarks and labels where they have a weight.

        Args:
            labels: values of the structures in the training data.
        """
        others = [Landmarks(self.landmark_weight), Overlap(self.dice_weight, labels)]
        return [*self.terms(), *(term for term in others if term.weight)]

    def model_arguments(self) -> dict:
        """Constructor arguments of the model."""
        return {"use_probs": True} if self.samples else {}

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the numbers and choices it understands."""
        return tuple(field.name for field in dataclasses.fields(cls))


@dataclass(frozen=True)
class Mse(Recipe):
    """Mean squared difference, every voxel alike.

    Attributes:
        residual_smoothing: scale of a Gaussian over the difference, voxels; see `hetmorph.losses.MSE`.
    """

    residual_smoothing: float = 0.0

    def image_loss(self):
        return MSE(smoothing=self.residual_smoothing)


@dataclass(frozen=True)
class Ncc(Recipe):
    """Squared local cross-correlation in a window of `window` voxels a side."""

    window: int = 9

    def image_loss(self):
        return NCC(win=self.window)


@dataclass(frozen=True)
class Mi(Recipe):
    """Mutual information from histograms of `bins` bins."""

    bins: int = 32

    def image_loss(self):
        return MutualInformation(nb_bins=self.bins)


@dataclass(frozen=True)
class Nll(Recipe):
    """Gaussian likelihood with a predicted variance, one loss for both networks, nothing detached.

    Attributes:
        variance_resolution: see `hetmorph.networks.NllVxmDense`.
    """

    variance_resolution: int = 1
    model: ClassVar[str] = "joint likelihood"

    def likelihood(self) -> JointLikelihood:
        """What the two networks minimise."""
        return JointLikelihood(0.0)

    def model_arguments(self) -> dict:
        own = {"variance_resolution": self.variance_resolution}
        return super().model_arguments() | dataclasses.asdict(self.likelihood()) | own


@dataclass(frozen=True)
class BetaNll(Nll):
    """The same with the factor sg(σ²)^β, which keeps voxels of large variance from losing their gradient."""

    beta: float = 0.5

    def likelihood(self) -> JointLikelihood:
        return JointLikelihood(self.beta)


@dataclass(frozen=True)
class Adaframe(Recipe):
    """Squared difference with less weight on voxels of outstanding residual."""

    def image_loss(self):
        return AdaFrame()


@dataclass(frozen=True)
class Adareg(Recipe):
    """Squared difference; the field may be rougher where the residual is large."""

    model: ClassVar[str] = "adaptive field"


@dataclass(frozen=True)
class VxmDiff(Recipe):
    """VoxelMorph-diff: a distribution of velocities, sampled in training, and its divergence from a smooth prior.

    The divergence is weighted so that its ‖∇μ‖² has the weight that λ gives it in "mse".

    Attributes:
        prior_lambda: precision of the prior.
    """

    prior_lambda: float = 10.0
    samples: ClassVar[bool] = True

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        # KL holds ¼·N·(prior precision)·‖∇μ‖².
        return KL(self.prior_lambda), 4 * self.smoothness * resolution / (ndims * self.prior_lambda)


@dataclass(frozen=True)
class Weighted(Recipe):
    """A voxelwise dissimilarity weighted by the relative signal-to-noise ratio of a predicted variance.

    Attributes:
        gamma, beta, snr, relative, foreground: see `Heteroscedastic`.
        warm_start, variance_pass, variance_resolution: see `hetmorph.networks.HetVxmDense`.
    """

    gamma: float = 0.5
    beta: float = 0.5
    snr: str = "paper"
    relative: str = "sample"
    foreground: bool = False
    warm_start: int | None = None
    variance_pass: str = "reuse"
    variance_resolution: int = 1
    model: ClassVar[str] = "heteroscedastic"

    def likelihood(self) -> Heteroscedastic:
        """What the two networks minimise."""
        return Heteroscedastic(self.gamma, self.beta, self.snr, self.relative, self.foreground)

    def model_arguments(self) -> dict:
        own = {name: getattr(self, name) for name in ("warm_start", "variance_pass", "variance_resolution")}
        return super().model_arguments() | dataclasses.asdict(self.likelihood()) | own


@dataclass(frozen=True)
class Het(Weighted):
    """The heteroscedastic method: squared difference, weighted.

    Attributes:
        residual_smoothing: scale of the displacement's loss, as for `Mse`; the variance remains that of the difference.
    """

    residual_smoothing: float = 0.0

    def image_loss(self):
        return MSE(smoothing=self.residual_smoothing)


@dataclass(frozen=True)
class HetNcc(Weighted):
    """The same weights on squared local correlation; the variance remains that of the intensities' difference.

    Attributes:
        window: voxels a side of the window.
    """

    window: int = 9

    def image_loss(self):
        return NCC(win=self.window)


@dataclass(frozen=True)
class HetZ(Het):
    """The same with a distribution of velocities: uncertainty of the noise and of the displacement.

    Attributes:
        alpha: weight α of `E[σ_z² − log σ_z²]`.
    """

    alpha: float = 1e-4
    samples: ClassVar[bool] = True

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        return SmoothPosterior(self.smoothness, self.alpha, resolution), 1.0


@dataclass(frozen=True)
class Diffusion(Recipe):
    """A similarity of the user's choice and `λ·m·‖∇v‖²` of the predicted field, a displacement where there are steps.

    Attributes:
        similarity: one of `SIMILARITIES`.
        window: "ncc": voxels a side of the window.
        sigma: "lncc", "lncc2": standard deviation of the Gaussian window, voxels.
    """

    smoothness: float = 1.0
    similarity: str = "lncc"
    window: int = 9
    sigma: float = 5.0

    def image_loss(self):
        if self.similarity not in SIMILARITIES:
            raise ValueError(f"similarity must be one of {', '.join(SIMILARITIES)}, got {self.similarity!r}")
        return SIMILARITIES[self.similarity](self)


@dataclass(frozen=True)
class VelocityDiffusion(Diffusion):
    """The same of every velocity that the registration is composed of, in both directions: of steps that have some."""

    smoothness: float = 5.0
    transforms: ClassVar[bool] = True

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        return None, 0.0

    def terms(self) -> list[Term]:
        return [terms.VelocityDiffusion(self.smoothness)]


@dataclass(frozen=True)
class Icon(Diffusion):
    """A similarity in both directions, and λ times how far the two transforms are from undoing each other."""

    smoothness: float = 1000.0
    transforms: ClassVar[bool] = True

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        return None, 0.0

    def terms(self) -> list[Term]:
        return [InverseConsistency(self.smoothness)]


@dataclass(frozen=True)
class GradIcon(Icon):
    """The same with the gradient of that error, which leaves room for motion and still keeps maps from folding.

    Attributes:
        delta: length of its differences, as a share of the image.
    """

    smoothness: float = 1.5
    delta: float = 1e-3

    def terms(self) -> list[Term]:
        return [GradientInverseConsistency(self.smoothness, self.delta)]


@dataclass(frozen=True)
class HetGradIcon(Weighted):
    """The weights of "het" on the squared difference in both directions, made regular as "gradicon".

    Attributes:
        delta: as "gradicon" has it.
    """

    smoothness: float = 0.05
    delta: float = 1e-3
    transforms: ClassVar[bool] = True

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        return None, 0.0

    def terms(self) -> list[Term]:
        return [GradientInverseConsistency(self.smoothness, self.delta)]


@dataclass(frozen=True)
class NePhi(Recipe):
    """Correlation of the images at random points, in both directions, which the transforms' Jacobians make inverse.

    No moved image is made, so that memory grows with the points; of any steps, though made for implicit ones.

    Attributes:
        points: where the images are compared; None takes 2 % of the voxels, from 1024 to 100,000.
        points_regular: where Jacobians are; None takes a ten-thousandth of the voxels, from 64 to 500.
        code_weight: weight of the length of the codes.
    """

    smoothness: float = 10.0
    points: int | None = None
    points_regular: int | None = None
    code_weight: float = 0.01
    transforms: ClassVar[bool] = True

    def image_loss(self):
        return None

    def field_loss(self, resolution: float, ndims: int) -> tuple:
        return None, 0.0

    def terms(self) -> list[Term]:
        return [
            SampledCorrelation(1.0, self.points),
            JacobianInverseConsistency(self.smoothness, self.points_regular),
            SmallCodes(self.code_weight),
        ]


# by the name that `--similarity` gives: a function of the recipe that holds its numbers
SIMILARITIES = {
    "mse": lambda recipe: MSE(),
    "ncc": lambda recipe: NCC(win=recipe.window),
    "lncc": lambda recipe: LNCC(recipe.sigma),
    "lncc2": lambda recipe: SquaredLNCC(recipe.sigma),
    "mind": lambda recipe: MIND(),
    "ngf": lambda recipe: NGF(),
}

RECIPES: dict[str, type[Recipe]] = {
    "mse": Mse,
    "ncc": Ncc,
    "mi": Mi,
    "nll": Nll,
    "beta-nll": BetaNll,
    "adaframe": Adaframe,
    "adareg": Adareg,
    "vxm-diff": VxmDiff,
    "het": Het,
    "het-ncc": HetNcc,
    "het-z": HetZ,
    "diffusion": Diffusion,
    "velocity-diffusion": VelocityDiffusion,
    "icon": Icon,
    "gradicon": GradIcon,
    "het-gradicon": HetGradIcon,
    "nephi": NePhi,
}


def recipe(options) -> Recipe:
    """The recipe that `options` (a `hetmorph.config.ObjectiveConfig`) names, with its numbers and choices.

    Args:
        options: name and options of the method.

    Raises:
        ValueError: an unknown name, a bad value, or an option that this recipe would ignore.
    """
    if options.name not in RECIPES:
        raise ValueError(f"objective.name must be one of {', '.join(RECIPES)}, got {options.name!r}")
    known = RECIPES[options.name].options()
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    given = {name: value for name, value in given.items() if value != getattr(type(options), name)}
    for name in given.keys() - {"name", *known}:
        raise ValueError(f"objective.{name} has no effect on objective {options.name}")
    # What is left out is the recipe's own.
    return RECIPES[options.name](**{name: given[name] for name in known if name in given})
