"""The search: design space, ask/tell study with its journal, Bayesian optimisation, baselines."""

from optimize.design_space import DesignSpace
from optimize.sampling import random_trials, sobol_points
from optimize.study import Study
from optimize.trial import Estimate, Trial

__all__ = ["DesignSpace", "Estimate", "Study", "Trial", "random_trials", "sobol_points"]
