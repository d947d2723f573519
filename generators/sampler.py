"""The few-step sampler: from noise to soft phases along the probability-flow ODE."""

import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from jaxtyping import Float, Int
from torch import Tensor

from generators.denoiser import PhaseDenoiser
from generators.fractions import balance
from generators.given_voxels import pin_given, show_given
from generators.guidance import GuidedDenoiser
from generators.smoothing import smooth, smooth_in_place

# At the lowest level the net still decides interfaces; further steps trust the noise more and
# roughen them.
SIGMA_MIN, SIGMA_MAX = 1.0, 30.0
MOST_STEPS = 16


def sample_logits(
    denoiser: PhaseDenoiser | GuidedDenoiser,
    noise: Float[Tensor, "batch phase *space"],
    condition: Float[Tensor, "batch features"],
    *,
    steps: int,
    fractions: Float[Tensor, "batch phase"] | None,
    given: Int[Tensor, "*space"] | None = None,
    sloped: int | None = None,
) -> Float[Tensor, "batch phase *space"]:
    """Return the logits of the phases at the end of the ODE that starts from unit noise.

    DPM-Solver++ (2M; Lu et al. 2022) on the noise levels of Karras et al. (2022), one net
    evaluation per step. With `fractions` the logits of every step are shifted per phase so that
    their mean probability is the wanted fraction: the image grows towards its exact cut instead
    of being cut against its own will at the end; the ODE then starts from noise around the mean
    image, which is not small beside the noise. Given voxels are certain at every step, so the rest
    of the image grows around them. The last logits are smoothed as the denoiser says, without
    `fractions` so that every sample keeps its amounts. Slopes run through the last `sloped` net
    evaluations, through all when None.
    """
    first_sloped = 0 if sloped is None else steps - sloped
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=1.0, solver_order=2
    )
    scheduler.set_timesteps(steps)
    x = noise * SIGMA_MAX
    if fractions is not None:
        x = x + _per_phase(2 * fractions.to(x) - 1, x.ndim)
    logits = x
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index]
        with torch.set_grad_enabled(torch.is_grad_enabled() and index >= first_sloped):
            shown = show_given(x, given, float(sigma))
            logits = denoiser(shown, sigma.expand(len(x)).to(x.dtype), condition)
            if fractions is not None:
                offsets = balance(pin_given(logits, given).detach(), fractions)
                logits = logits + _per_phase(offsets, x.ndim)
            denoised = 2 * F.softmax(pin_given(logits, given), 1) - 1
            output = _as_model_output(denoised, x, sigma)
            x = scheduler.step(output, timestep, x, return_dict=False)[0]
    even_out = smooth_in_place if fractions is None else smooth
    smoothed = even_out(logits, denoiser.smoothing, periodic=denoiser.config["periodic"])
    return pin_given(smoothed, given)


def _per_phase(values: Tensor, ndim: int) -> Tensor:
    return values.view(*values.shape, *[1] * (ndim - 2))


def _as_model_output(denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    # The scheduler expects the raw net of Karras et al.: D = c_skip x + c_out F with
    # sigma_data = 1; ours predicts D itself.
    c_skip = 1 / (1 + sigma**2)
    c_out = sigma / (1 + sigma**2).sqrt()
    return (denoised - c_skip * x) / c_out
