"""The network of FID in PyTorch, written as pytorch-fid has it, and so independent of ours."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


class BasicConv2d(nn.Module):
    def __init__(self, inputs, outputs, **settings):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, bias=False, **settings)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def average(x):
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class InceptionA(nn.Module):
    def __init__(self, inputs, pool_features, n):
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64 // n, kernel_size=1)
        self.branch5x5_1 = BasicConv2d(inputs, 48 // n, kernel_size=1)
        self.branch5x5_2 = BasicConv2d(48 // n, 64 // n, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64 // n, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv2d(64 // n, 96 // n, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96 // n, 96 // n, kernel_size=3, padding=1)
        self.branch_pool = BasicConv2d(inputs, pool_features // n, kernel_size=1)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class InceptionB(nn.Module):
    def __init__(self, inputs, n):
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384 // n, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64 // n, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv2d(64 // n, 96 // n, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96 // n, 96 // n, kernel_size=3, stride=2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionC(nn.Module):
    def __init__(self, inputs, inner, n):
        super().__init__()
        c, last = inner // n, 192 // n
        self.branch1x1 = BasicConv2d(inputs, last, kernel_size=1)
        self.branch7x7_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch7x7_2 = BasicConv2d(c, c, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7_3 = BasicConv2d(c, last, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch7x7dbl_2 = BasicConv2d(c, c, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = BasicConv2d(c, c, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = BasicConv2d(c, c, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = BasicConv2d(c, last, kernel_size=(1, 7), padding=(0, 3))
        self.branch_pool = BasicConv2d(inputs, last, kernel_size=1)

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class InceptionD(nn.Module):
    def __init__(self, inputs, n):
        super().__init__()
        c = 192 // n
        self.branch3x3_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch3x3_2 = BasicConv2d(c, 320 // n, kernel_size=3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch7x7x3_2 = BasicConv2d(c, c, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(c, c, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(c, c, kernel_size=3, stride=2)

    def forward(self, x):
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([three, seven, F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionE(nn.Module):
    def __init__(self, inputs, pool, n):
        super().__init__()
        self.pool = pool
        c = 384 // n
        self.branch1x1 = BasicConv2d(inputs, 320 // n, kernel_size=1)
        self.branch3x3_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch3x3_2a = BasicConv2d(c, c, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3_2b = BasicConv2d(c, c, kernel_size=(3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448 // n, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv2d(448 // n, c, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(c, c, kernel_size=(1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = BasicConv2d(c, c, kernel_size=(3, 1), padding=(1, 0))
        self.branch_pool = BasicConv2d(inputs, 192 // n, kernel_size=1)

    def forward(self, x):
        three = self.branch3x3_1(x)
        three = torch.cat([self.branch3x3_2a(three), self.branch3x3_2b(three)], 1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        return torch.cat([self.branch1x1(x), three, double, self.branch_pool(self.pool(x))], 1)


class Inception(nn.Module):
    """The features of every layer are divided by n."""

    def __init__(self, n=1):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32 // n, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32 // n, 32 // n, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32 // n, 64 // n, kernel_size=3, padding=1)
        self.pool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Conv2d_3b_1x1 = BasicConv2d(64 // n, 80 // n, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80 // n, 192 // n, kernel_size=3)
        self.pool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Mixed_5b = InceptionA(192 // n, 32, n)
        self.Mixed_5c = InceptionA(256 // n, 64, n)
        self.Mixed_5d = InceptionA(288 // n, 64, n)
        self.Mixed_6a = InceptionB(288 // n, n)
        self.Mixed_6b = InceptionC(768 // n, 128, n)
        self.Mixed_6c = InceptionC(768 // n, 160, n)
        self.Mixed_6d = InceptionC(768 // n, 160, n)
        self.Mixed_6e = InceptionC(768 // n, 192, n)
        self.Mixed_7a = InceptionD(768 // n, n)
        self.Mixed_7b = InceptionE(1280 // n, average, n)
        self.Mixed_7c = InceptionE(2048 // n, nn.MaxPool2d(kernel_size=3, stride=1, padding=1), n)
        self.fc = nn.Linear(2048 // n, 1008)

    def forward(self, x):
        """x [B, 3, H, W] -> (features, logits without bias, {name: the output of each child})."""
        outputs = OrderedDict()
        for name, child in self.named_children():
            if name != "fc":
                outputs[name] = x = child(x)
        features = F.adaptive_avg_pool2d(x, output_size=(1, 1)).flatten(1)
        return features, features @ self.fc.weight.T, outputs


def trained(network, images, seed=0):
    """Give it random parameters and statistics; the last block has those of images [B, 3, H, W].

    So no feature is all but zero, and no block before the last blows up differences in rounding, as normalising what
    random layers leave would.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            value.data = noise * (2 / value[0].numel()) ** 0.5
        elif value.ndim == 1:
            value.data = (0.2 * noise).exp() if name.endswith(("bn.weight", "running_var")) else 0.2 * noise
    network.eval()
    last = [module for module in network.Mixed_7c.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in last:
        module.momentum = 1.0  # forget what was before
        module.train()
    with torch.no_grad():
        network(images)
    return network.eval()
