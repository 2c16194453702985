"""The number of PyTorch's threads beside other threads."""

import pytest
import torch

from hand1000.core.threads import limit_torch_threads


@pytest.mark.parametrize(("limit", "expected"), [(0, 1), (2, 2), (8, 3)])
def test_a_limit_holds_inside_its_context_only(limit: int, expected: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match="inside"), limit_torch_threads(limit):
            assert torch.get_num_threads() == expected
            raise ValueError("inside")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
