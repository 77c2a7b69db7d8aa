"""Encoders and decoders of the transformers library, small configurations with random weights.

Sizes are reduced (4 layers and the like); the structure is the library's own: attention kinds,
position codes, tied embeddings, gates, normalisations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_LENGTH = 16
_TEXT = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 512,
}
_GROUPED = {**_TEXT, "num_key_value_heads": 2}
_VISION = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 512,
    "image_size": 64,
    "patch_size": 8,
}


class PlainOutput(nn.Module):
    """The library's module behind a forward that takes and gives tensors only."""

    def __init__(self, model: nn.Module, argument: str, output: str | None, extra: str | None):
        super().__init__()
        self.model = model
        self._argument = argument
        self._output = output
        self._extra = extra

    def forward(self, first: Tensor, second: Tensor | None = None) -> Any:
        """The wanted output of the model."""
        arguments = {self._argument: first}
        if self._extra is not None:
            arguments[self._extra] = second
        found = self.model(**arguments, return_dict=True)
        return found[self._output] if self._output else found[0]


@dataclass(frozen=True)
class Language:
    """How one family is built and called."""

    model: str
    config: str
    options: dict[str, Any]
    kind: str = "tokens"
    extra: str | None = None
    part: str | None = None

    def build(self, attention: str) -> nn.Module:
        """The module with random weights."""
        from bench.zoo.torchvision_operators import declare  # noqa: PLC0415

        declare()
        import transformers  # noqa: PLC0415

        config = getattr(transformers, self.config)(**self.options)
        config._attn_implementation = attention
        if hasattr(config, "use_cache"):
            config.use_cache = False
        model = getattr(transformers, self.model)(config)
        if self.part is not None:
            model = getattr(model, self.part)
        argument = {"tokens": "input_ids", "images": "pixel_values", "audio": "input_values"}
        name = argument.get(self.kind, "input_features")
        return PlainOutput(model, name, None, self.extra)

    def inputs(self) -> Callable[[int], list[Tensor]]:
        """Example arguments by batch size."""

        def batch(size: int) -> list[Tensor]:
            generator = torch.Generator().manual_seed(size)
            if self.kind == "images":
                side = self.options.get("image_size", 64)
                return [torch.randn(size, 3, side, side, generator=generator)]
            if self.kind == "audio":
                return [torch.randn(size, 4000, generator=generator)]
            if self.kind == "spectrogram":
                return [torch.randn(size, 16, 2 * 64, generator=generator)]
            tokens = torch.randint(5, 1000, (size, _LENGTH), generator=generator)
            if self.extra == "decoder_input_ids":
                return [tokens, tokens.flip(1)]
            if self.extra == "attention_mask":
                mask = torch.ones_like(tokens)
                mask[:, -3:] = 0
                return [tokens, mask]
            return [tokens]

        return batch


FAMILIES: dict[str, Language] = {
    "bert": Language("BertForSequenceClassification", "BertConfig", _TEXT, extra="attention_mask"),
    "roberta": Language("RobertaModel", "RobertaConfig", _TEXT),
    "electra": Language("ElectraModel", "ElectraConfig", {**_TEXT, "embedding_size": 64}),
    "distilbert": Language(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 1000, "dim": 128, "n_layers": 4, "n_heads": 8, "hidden_dim": 512},
    ),
    "albert": Language("AlbertModel", "AlbertConfig", {**_TEXT, "embedding_size": 64}),
    "deberta_v2": Language(
        "DebertaV2Model",
        "DebertaV2Config",
        {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
    "mpnet": Language("MPNetModel", "MPNetConfig", _TEXT),
    "gpt2": Language(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 1000, "n_embd": 128, "n_layer": 4, "n_head": 8, "n_positions": 64},
    ),
    "gpt_neox": Language("GPTNeoXForCausalLM", "GPTNeoXConfig", _TEXT),
    "gptj": Language(
        "GPTJForCausalLM",
        "GPTJConfig",
        {"vocab_size": 1000, "n_embd": 128, "n_layer": 4, "n_head": 8, "rotary_dim": 8},
    ),
    "opt": Language(
        "OPTForCausalLM",
        "OPTConfig",
        {
            "vocab_size": 1000,
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "ffn_dim": 512,
            "word_embed_proj_dim": 128,
            "max_position_embeddings": 64,
        },
    ),
    "bloom": Language(
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 1000, "hidden_size": 128, "n_layer": 4, "n_head": 8},
    ),
    "llama": Language("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "mistral": Language("MistralForCausalLM", "MistralConfig", _GROUPED),
    "qwen2": Language("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3": Language("Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 16}),
    "gemma": Language("GemmaForCausalLM", "GemmaConfig", {**_GROUPED, "head_dim": 16}),
    "phi": Language("PhiForCausalLM", "PhiConfig", _TEXT),
    "falcon": Language(
        "FalconForCausalLM",
        "FalconConfig",
        {
            "vocab_size": 1000,
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
        },
    ),
    "t5_encoder": Language(
        "T5EncoderModel",
        "T5Config",
        {
            "vocab_size": 1000,
            "d_model": 128,
            "d_kv": 16,
            "d_ff": 512,
            "num_layers": 4,
            "num_heads": 8,
        },
    ),
    "bart": Language(
        "BartModel",
        "BartConfig",
        {
            "vocab_size": 1000,
            "d_model": 128,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 512,
            "decoder_ffn_dim": 512,
            "max_position_embeddings": 64,
        },
        extra="decoder_input_ids",
    ),
    "vit": Language("ViTForImageClassification", "ViTConfig", _VISION, kind="images"),
    "deit": Language("DeiTForImageClassification", "DeiTConfig", _VISION, kind="images"),
    "dinov2": Language("Dinov2Model", "Dinov2Config", _VISION, kind="images"),
    "beit": Language("BeitForImageClassification", "BeitConfig", _VISION, kind="images"),
    "swin": Language(
        "SwinForImageClassification",
        "SwinConfig",
        {"image_size": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4],
         "window_size": 4},
        kind="images",
    ),
    "convnext": Language(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"image_size": 64, "hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1]},
        kind="images",
    ),
    "segformer": Language(
        "SegformerForSemanticSegmentation", "SegformerConfig", {"image_size": 64}, kind="images"
    ),
    "resnet": Language("ResNetForImageClassification", "ResNetConfig", {}, kind="images"),
    "clip_text": Language("CLIPTextModel", "CLIPTextConfig", _TEXT),
    "clip_vision": Language("CLIPVisionModel", "CLIPVisionConfig", _VISION, kind="images"),
    "siglip_vision": Language("SiglipVisionModel", "SiglipVisionConfig", _VISION, kind="images"),
    "wav2vec2": Language(
        "Wav2Vec2Model",
        "Wav2Vec2Config",
        {**_TEXT, "conv_dim": (64, 64, 64), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3),
         "num_feat_extract_layers": 3},
        kind="audio",
    ),
    "hubert": Language(
        "HubertModel",
        "HubertConfig",
        {**_TEXT, "conv_dim": (64, 64, 64), "conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3),
         "num_feat_extract_layers": 3},
        kind="audio",
    ),
    "whisper_encoder": Language(
        "WhisperModel",
        "WhisperConfig",
        {
            "vocab_size": 1000,
            "d_model": 128,
            "encoder_layers": 4,
            "decoder_layers": 2,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 512,
            "decoder_ffn_dim": 512,
            "num_mel_bins": 16,
            "max_source_positions": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        kind="spectrogram",
        part="encoder",
    ),
}  # fmt: skip


def language(name: str) -> tuple[Callable[[], nn.Module], Callable[[int], list[Tensor]]]:
    """Builder and inputs of a family; `llama+eager` computes attention in plain products."""
    family, _, attention = name.partition("+")
    found = FAMILIES[family]
    return lambda: found.build(attention or "sdpa"), found.inputs()
