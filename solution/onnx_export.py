"""A model -> the bytes of an ONNX graph that does the same, from uint8 images on, and the proof that it does.

    graph = exported(spec, models.load(spec, weights))
"""

import numpy as np
import torch
from torch import nn

from solution import fusion, models, recipe
from solution.onnx_engine import INPUT, OUTPUT, OnnxEngine

TOLERANCE = 5e-5  # of embeddings of length 1; a cosine of two of them is then off by 1e-4 at most


class FromPixels(nn.Module):
    """Images (n, size, size, 3) uint8 -> embeddings (n, width): `models.normalised` and the model.

    The channels come first before anything is computed: whole planes minus one number are a sixth of a small model faster.
    """

    def __init__(self, model: models.EmbeddingModel, wanted: recipe.Model) -> None:
        super().__init__()
        self.model, self.grey = model, wanted.grey
        self.mean, self.std, self.luminance = (torch.tensor(values)[:, None, None] for values in (wanted.mean, wanted.std, models.LUMINANCE))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = (pixels * self.luminance).sum(1, keepdim=True) if self.grey else pixels
        return self.model((pixels - 255 * self.mean) / (255 * self.std))


def exported(spec: recipe.Spec, model: models.EmbeddingModel) -> bytes:
    """Empty where the graph does not give the model's embeddings. Torch's exporter raises whatever it raises."""
    graph = graph_of(spec, model)
    return graph if difference(spec, model, OnnxEngine(spec, graph, 1)) <= TOLERANCE else b""


def graph_of(spec: recipe.Spec, model: models.EmbeddingModel) -> bytes:
    """Exported with two images, then freed to any number of them: with a free number from the start torch takes three times as long."""
    whole = FromPixels(model, spec.model).eval().requires_grad_(False)
    images = torch.zeros(2, spec.test_size, spec.test_size, 3, dtype=torch.uint8)
    with torch.no_grad():
        proto = torch.onnx.export(whole, (images,), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]).model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    del proto.graph.value_info[:]  # the shapes in between, each with its two
    return proto.SerializeToString()


def difference(spec: recipe.Spec, model: models.EmbeddingModel, engine: OnnxEngine) -> float:
    """The largest distance of the engine's embeddings from the model's own, all of length 1, on noise and on coarse patches."""
    random, patch = np.random.default_rng(0), np.arange(spec.test_size) * 8 // spec.test_size
    noise = random.integers(0, 256, (1, spec.test_size, spec.test_size, 3), dtype=np.uint8)
    images = np.concatenate([noise, random.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)[:, patch][:, :, patch]])
    with torch.no_grad():
        wanted = model(models.normalised(torch.from_numpy(images), spec.model)).numpy()
    unit = [fusion.to_unit_length(rows) for rows in (wanted, engine(images))]
    return float(np.linalg.norm(unit[0] - unit[1], axis=1).max())
