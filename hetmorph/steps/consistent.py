"""Steps that are inverse consistent by construction, one after the other."""

import keras

from hetmorph.steps.base import Step, moved_by
from hetmorph.transforms import Composition, Transform


@keras.saving.register_keras_serializable("hetmorph")
class TwoStepConsistent(Step):
    """Two steps after which the transforms of (A, B) and (B, A) are inverse to each other, if each alone has that.

    φ = r∘ψ∘r: r is the root of the first step's transform, r∘r = φ₁. Both images are moved half way towards each other,
    A∘r_AB and B∘r_BA, and ψ is the second step's transform of what comes of them. `Then` has no such symmetry: there
    the moving image goes all the way.

    Args:
        first: a step with a root, `Consistent`.
        second: a step that is consistent itself: `Consistent`, or again a `TwoStepConsistent`; so any number is nested.
        kwargs: further arguments of `keras.layers.Layer`.

    Raises:
        ValueError: a first step without a root.

    Reference:
        Greer et al., Inverse consistency by construction for multistep deep registration, MICCAI 2023,
        arXiv:2305.00087.
    """

    def __init__(self, first: Step, second: Step, **kwargs):
        super().__init__(**kwargs)
        if not hasattr(first, "root"):
            raise ValueError(
                f"expected a first step whose transform has a root, Consistent, received {type(first).__name__}; "
                "several steps are nested in the second"
            )
        self.first, self.second = first, second

    @property
    def invertible(self) -> bool:
        return self.first.invertible and self.second.invertible

    def transform(self, moving, fixed, training=None) -> Transform:
        root, back = self.first.root(moving, fixed, training=training)
        inner = self.second.transform(moved_by(root, moving), moved_by(back, fixed), training=training)
        return Composition(root, inner, root)

    def both(self, moving, fixed, training=None) -> tuple[Transform, Transform]:
        root, back = self.first.root(moving, fixed, training=training)
        there, return_ = self.second.both(moved_by(root, moving), moved_by(back, fixed), training=training)
        return Composition(root, there, root), Composition(back, return_, back)
