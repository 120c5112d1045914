"""Published methods: how losses, weights and schedules go together."""

from hetmorph.objectives.heteroscedastic import Heteroscedastic
from hetmorph.objectives.schedule import Phase, phase

__all__ = ["Heteroscedastic", "Phase", "phase"]
