"""Embryos: ellipsoids of nuclei that divide with time.

Gives positions of nuclei in micrometer for a time; knows neither light nor cameras. The same seed gives the
same embryo.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SEMI_AXES_UM = np.array([25.0, 15.0, 15.0])
"""Half of about 50 x 30 x 30 micrometer, a C. elegans embryo in its shell."""
CYCLE_S = 2400.0
"""From one division to the next."""
GENERATIONS = 8
"""No nucleus divides more often: 256 of them."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """Nuclei at one time."""

    centers_um: NDArray[np.float64]
    """(nucleus, 3), x, y, z relative to the middle of the embryo."""
    radius_um: float
    brightness: float
    """Of each: one that is about to divide is drawn as two in the same place."""


@dataclass(slots=True)
class Embryo:
    """One embryo.

    Parameters
    ----------
    position_um
        Stage position (x, y) that centres it.
    seed
        Decides how it lies and how it divides.
    age
        Generations that it has behind it at time 0.
    """

    position_um: tuple[float, float]
    seed: int
    age: float = 3.5
    _generations: list[NDArray[np.float64]] = field(default_factory=list, init=False)
    _delay: list[NDArray[np.float64]] = field(default_factory=list, init=False)
    angle: float = field(default=0.0, init=False)
    """Of the long axis in the plane of the stage, in radian."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.angle = float(rng.uniform(0, np.pi))
        centers = np.zeros((1, 3))
        self._generations.append(centers)
        for generation in range(GENERATIONS):
            direction = rng.standard_normal(centers.shape)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            step = 0.55 * 0.8**generation * direction
            centers = np.stack([centers + step, centers - step], axis=1).reshape(-1, 3)
            # Nuclei keep inside the shell: what would stick out is drawn back to 0.85 of the way.
            radius = np.maximum(np.linalg.norm(centers, axis=1, keepdims=True) / 0.85, 1.0)
            centers = centers / radius
            self._generations.append(centers)
            self._delay.append(rng.uniform(0.0, 0.6, size=len(direction)))

    def nuclei(self, elapsed_s: float) -> Nuclei:
        """Where the nuclei are.

        Parameters
        ----------
        elapsed_s
            Time since the simulation began, in seconds.

        Returns
        -------
        Nuclei
            As many as there will be after the divisions that are going on.
        """
        age = min(self.age + elapsed_s / CYCLE_S, GENERATIONS - 1e-6)
        generation = int(age)
        mothers = np.repeat(self._generations[generation], 2, axis=0)
        daughters = self._generations[generation + 1]
        apart = np.clip((age - generation - np.repeat(self._delay[generation], 2)) / 0.3, 0.0, 1.0)
        apart = apart * apart * (3 - 2 * apart)
        centers = mothers + (daughters - mothers) * apart[:, None]
        turn = np.array([[np.cos(self.angle), -np.sin(self.angle)], [np.sin(self.angle), np.cos(self.angle)]])
        centers = centers * SEMI_AXES_UM
        centers[:, :2] = centers[:, :2] @ turn.T
        return Nuclei(centers, radius_um=3.6 * 0.87**age, brightness=1.0)
