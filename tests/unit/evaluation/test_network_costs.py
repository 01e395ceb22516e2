import pytest
import torch

from separation.evaluation.network_costs import multiply_adds

nn = torch.nn


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_multiply_adds_of_recurrent_layers(kind, gates, bidirectional):
    layer = getattr(nn, kind)(10, 8, 2, bidirectional=bidirectional, batch_first=True)
    directions, steps, batch = 1 + bidirectional, 5, 2
    of_first, of_second = gates * 8 * (10 + 8), gates * 8 * (8 * directions + 8)
    assert multiply_adds(layer, torch.randn(batch, steps, 10)) == batch * steps * directions * (of_first + of_second)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Linear(10, 7), (4, 10), 4 * 10 * 7),
        (nn.Conv1d(3, 5, 4, stride=2), (2, 3, 20), 2 * 5 * 3 * 4 * 9),
        (nn.ConvTranspose1d(3, 5, 4, stride=2), (2, 3, 20), 2 * 5 * 3 * 4 * 20),
    ],
)
def test_multiply_adds_of_layers_in_inference_mode(layer, shape, expected):
    def call(data):
        with torch.inference_mode():
            layer(data)

    assert multiply_adds(call, torch.randn(shape)) == expected
