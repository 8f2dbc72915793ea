import pytest

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.models.input_spec import resolve_sampling
from vidcls_batch.types import Sampling

STRIDE = Sampling(num_frames=16, rule="stride", stride=4)
UNIFORM = Sampling(num_frames=8)


@pytest.mark.parametrize(
    ("default", "override", "expected"),
    [
        (STRIDE, {}, STRIDE),
        (STRIDE, {"stride": 2}, Sampling(16, "stride", stride=2)),
        (STRIDE, {"views": 5}, Sampling(16, "stride", stride=4, views=5)),
        (STRIDE, {"views": 5, "crops": 3}, Sampling(16, "stride", stride=4, views=5, crops=3)),
        (STRIDE, {"rule": "uniform"}, Sampling(16)),
        (STRIDE, {"fps": 7.5}, Sampling(16, "fps", fps=7.5)),
        (UNIFORM, {"stride": 8}, Sampling(8, "stride", stride=8)),
        (UNIFORM, {"num_frames": 12}, Sampling(12)),
    ],
)
def test_the_config_changes_only_what_it_names(
    default: Sampling, override: dict[str, object], expected: Sampling
) -> None:
    assert resolve_sampling(default, SamplingConfig(**override), fixed_frames=False) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"rule": "stride"}, "needs sampling.stride"),
        ({"rule": "fps"}, "needs sampling.fps"),
        ({"stride": 2, "fps": 3.0}, "stride or fps, not both"),
        ({"rule": "uniform", "stride": 2}, "means nothing with sampling.rule 'uniform'"),
    ],
)
def test_samplings_that_cannot_be_are_refused(override: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_sampling(UNIFORM, SamplingConfig(**override), fixed_frames=False)


def test_a_network_of_fixed_length_refuses_another_number_of_frames() -> None:
    assert resolve_sampling(STRIDE, SamplingConfig(num_frames=16), fixed_frames=True) == STRIDE
    with pytest.raises(ConfigError, match="takes exactly 16 frames"):
        resolve_sampling(STRIDE, SamplingConfig(num_frames=8), fixed_frames=True)
