"""Which architectures, in which forms."""

from __future__ import annotations

from dataclasses import dataclass

from bench.zoo.language import FAMILIES


@dataclass(frozen=True)
class Case:
    """One architecture in one form of upload."""

    collection: str
    name: str
    form: str


TORCHVISION = (
    "alexnet", "convnext_base", "convnext_small", "convnext_tiny", "densenet121", "densenet161",
    "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2",
    "mobilenet_v3_large", "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf",
    "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf",
    "regnet_y_800mf", "regnet_y_8gf", "resnet101", "resnet152", "resnet18", "resnet34",
    "resnet50", "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0",
    "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11",
    "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16",
    "vit_b_32", "wide_resnet101_2", "wide_resnet50_2",
)  # fmt: skip
"""Classification."""
TORCHVISION_OTHERS = (
    "fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large", "r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b",
    "mvit_v2_s", "swin3d_t", "raft_small", "raft_large",
)  # fmt: skip
"""Segmentation, video and optical flow."""
TIMM = (
    "beit_base_patch16_224", "test_byobnet", "coat_tiny", "convmixer_768_32", "cpubone_nano",
    "csatv2", "cspnext_tiny", "deit_tiny_patch16_224", "dla46x_c", "edgenext_xx_small",
    "efficientformerv2_s0", "efficientvim_m1", "efficientvit_m0", "fasternet_t0",
    "focalnet_tiny_srf", "ghostnet_050", "hgnetv2_b0", "sam2_hiera_tiny", "iformer_t",
    "inception_resnet_v2", "inception_v4", "levit_128s", "test_mambaout", "poolformerv2_s12",
    "mobilenetv3_small_050", "mobilevit_xxs", "naflexvit_base_patch16_parfac_gap", "nest_tiny",
    "test_nfnet", "pnasnet5large", "qwen3_vit_88m", "regnetx_002", "repvit_m1", "resnest14d",
    "resnetv2_18", "selecsls42", "sequencer2d_s", "skresnet18", "swiftformer_xs",
    "swinv2_tiny_window8_256", "tiny_vit_5m_224", "tresnet_m", "visformer_tiny",
    "vit_tiny_r_s16_p8_224", "samvit_base_patch16_224", "volo_d1_224", "legacy_xception",
    "xcit_nano_12_p8_224",
)  # fmt: skip
"""One of each family of timm."""

CASES = [
    *(Case("torchvision", name, "traced") for name in (*TORCHVISION, *TORCHVISION_OTHERS)),
    *(Case("timm", name, "traced") for name in TIMM),
    *(Case("transformers", name, "traced") for name in FAMILIES),
    *(Case("transformers", f"{name}+eager", "traced") for name in FAMILIES),
    *(Case("torchvision", name, "scripted") for name in (*TORCHVISION, *TORCHVISION_OTHERS)),
]
