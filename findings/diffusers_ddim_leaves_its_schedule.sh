#!/usr/bin/env bash
# diffusers 0.42.1, DDIMScheduler: for many numbers of steps the timesteps, or the steps between them, are not the schedule.
#
# "trailing" spacing counts with np.arange over a float, which rounds to one timestep too many, -1, for 62 of 1..1000 steps.
# "leading" spacing, with Stable Diffusion 1.5's steps_offset of 1, starts 400 steps at 799 and 600 steps at 600 instead of near
# 999, and 1,000 steps at 1000, which is beyond the table. `step` always moves by 1000 // steps timesteps, also where the next
# timestep is elsewhere: at 10 of 44 places of 45 trailing steps. Expected output:
#   trailing, one timestep too many: 62
#   leading, first timestep: 400 -> 799, 600 -> 600, 1000 -> 1000
#   leading, 1000 steps: IndexError
#   trailing, 45 steps: 10 of 44 transitions differ
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "diffusers==0.42.1" "torch==2.13.0" "numpy==1.26.4" "transformers==5.23.0"
cat > "$folder/steps.py" <<'PYTHON'
import torch
from diffusers import DDIMScheduler

trailing = DDIMScheduler(timestep_spacing="trailing")
leading = DDIMScheduler(timestep_spacing="leading", steps_offset=1, clip_sample=False, set_alpha_to_one=False)


def timesteps_of(scheduler, steps):
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


too_many = sum(timesteps_of(trailing, steps)[-1] == -1 for steps in range(1, 1001))
print(f"trailing, one timestep too many: {too_many}")
firsts = ", ".join(f"{steps} -> {timesteps_of(leading, steps)[0]}" for steps in (400, 600, 1000))
print(f"leading, first timestep: {firsts}")
try:
    latents = torch.zeros(1, 4, 8, 8)
    leading.step(latents, leading.timesteps[0], latents)
except IndexError as error:
    print(f"leading, 1000 steps: {type(error).__name__}")
timesteps = timesteps_of(trailing, 45)
differing = sum(first - 1000 // 45 != second for first, second in zip(timesteps, timesteps[1:]))
print(f"trailing, 45 steps: {differing} of {len(timesteps) - 1} transitions differ")
PYTHON
output=$("$folder/venv/bin/python" "$folder/steps.py" 2>/dev/null)
echo "$output"
test "$output" = "trailing, one timestep too many: 62
leading, first timestep: 400 -> 799, 600 -> 600, 1000 -> 1000
leading, 1000 steps: IndexError
trailing, 45 steps: 10 of 44 transitions differ"
