"""The networks of gm_jax.models.cyclegan in PyTorch, as the authors of CycleGAN wrote them. Images are NCHW."""

from torch import Tensor, nn
from torch.nn import functional as F


def norm(x: Tensor) -> Tensor:
    return F.instance_norm(x)


class ResidualGenerator(nn.Module):
    """Down twice, residual blocks, up twice."""

    def __init__(self, channels=3, width=64, blocks=9):
        super().__init__()
        self.blocks, wide = blocks, 4 * width
        self.enter = nn.Conv2d(channels, width, 7)
        self.down1 = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.down2 = nn.Conv2d(2 * width, wide, 3, 2, 1)
        for i in range(blocks):
            self.add_module(f"block{i}_1", nn.Conv2d(wide, wide, 3))
            self.add_module(f"block{i}_2", nn.Conv2d(wide, wide, 3))
        self.up1 = nn.ConvTranspose2d(wide, 2 * width, 3, 2, 1, output_padding=1)
        self.up0 = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
        self.leave = nn.Conv2d(width, channels, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(norm(self.enter(F.pad(x, (3, 3, 3, 3), "reflect"))))
        h = F.relu(norm(self.down1(h)))
        h = F.relu(norm(self.down2(h)))
        for i in range(self.blocks):
            r = F.relu(norm(getattr(self, f"block{i}_1")(F.pad(h, (1, 1, 1, 1), "reflect"))))
            h = h + norm(getattr(self, f"block{i}_2")(F.pad(r, (1, 1, 1, 1), "reflect")))
        h = F.relu(norm(self.up1(h)))
        h = F.relu(norm(self.up0(h)))
        return self.leave(F.pad(h, (3, 3, 3, 3), "reflect")).tanh()


class PatchGAN(nn.Module):
    """4x4 convolutions: strided ones, then two that are not."""

    def __init__(self, channels=3, width=64, layers=3):
        super().__init__()
        self.layers = layers
        self.enter = nn.Conv2d(channels, width, 4, 2, 1)
        before = width
        for i in range(1, layers):
            features = width * min(2**i, 8)
            self.add_module(f"down{i}", nn.Conv2d(before, features, 4, 2, 1))
            before = features
        self.wide = nn.Conv2d(before, width * min(2**layers, 8), 4, 1, 1)
        self.leave = nn.Conv2d(width * min(2**layers, 8), 1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.enter(x), 0.2)
        for i in range(1, self.layers):
            h = F.leaky_relu(norm(getattr(self, f"down{i}")(h)), 0.2)
        h = F.leaky_relu(norm(self.wide(h)), 0.2)
        return self.leave(h)[:, 0]
