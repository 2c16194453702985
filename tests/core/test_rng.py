"""Random draws that are keyed by what they are for."""

import torch

from hand1000.core.rng import derived_seed, derived_seeds, noise_and_timesteps, shuffled_batch


def test_random_draws_are_keyed_and_pinned() -> None:
    """A change of these constants would break every unfinished run."""
    assert derived_seed(1000, "unet", 3) == 7941601416609399165 != derived_seed(1000, "unet", 4)
    for last in (3, 'ä quote"', ""):
        assert derived_seeds(1000, "unet", 7)(last) == derived_seed(1000, "unet", 7, last)
    noise, timesteps = noise_and_timesteps((1, 2, 2), 0, "refine", [("a", 0), ("b", 0)], 1000)
    again, same = noise_and_timesteps((1, 2, 2), 0, "refine", [("b", 0)], 1000)
    assert torch.equal(noise[1:], again) and torch.equal(timesteps[1:], same)
    assert int(timesteps.min()) >= 0 and int(timesteps.max()) < 1000


def test_every_epoch_shows_every_item_once() -> None:
    seen = [index for step in range(10) for index in shuffled_batch(5, 2, step, 0, "unet")]
    for epoch in range(4):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert seen[:5] != seen[5:10]
