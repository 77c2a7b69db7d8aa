"""Two text encoders: BERT (Devlin et al. 2019) spelt out as it is usually exported, with separate
query, key and value projections, and one made of torch's own `nn.TransformerEncoder`.

Annotations are evaluated here: torch.jit.script reads those of buffers as types, not strings.
"""

import math

import torch
from torch import Tensor, nn


class Embeddings(nn.Module):
    """Word, learned position and token type embeddings, summed and normalised."""

    position_ids: Tensor
    token_type_ids: Tensor

    def __init__(self, vocab: int, hidden: int, max_length: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, hidden, padding_idx=0)
        self.position_embeddings = nn.Embedding(max_length, hidden)
        self.token_type_embeddings = nn.Embedding(2, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("position_ids", torch.arange(max_length).expand(1, -1))
        self.register_buffer("token_type_ids", torch.zeros(1, max_length, dtype=torch.long))

    def forward(self, input_ids: Tensor) -> Tensor:
        batch, length = input_ids.size(0), input_ids.size(1)
        types = self.token_type_ids[:, :length].expand(batch, length)
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(types)
        x = x + self.position_embeddings(self.position_ids[:, :length])
        return self.dropout(self.LayerNorm(x))


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with separate projections."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = hidden // heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(0.1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.heads, self.head_dim).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            self._split(self.query(x)),
            self._split(self.key(x)),
            self._split(self.value(x)),
        )
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.head_dim)
        weights = self.dropout(torch.softmax(scores, dim=-1))
        context = torch.matmul(weights, value).permute(0, 2, 1, 3).contiguous()
        return context.view(context.size(0), context.size(1), self.heads * self.head_dim)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with a residual and LayerNorm after it."""

    def __init__(self, hidden: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.attention = SelfAttention(hidden, heads)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.intermediate = nn.Linear(hidden, intermediate)
        self.output = nn.Linear(intermediate, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.dropout(self.attention_output(self.attention(x)))
        x = self.attention_norm(attended + x)
        fed = self.dropout(self.output(nn.functional.gelu(self.intermediate(x))))
        return self.output_norm(fed + x)


class BertEncoder(nn.Module):
    """Embeddings, layers, and the pooler over the first token."""

    def __init__(
        self, *, layers: int, hidden: int, heads: int, vocab: int, intermediate: int, length: int
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(vocab, hidden, length)
        self.layer = nn.ModuleList(
            [EncoderLayer(hidden, heads, intermediate) for _ in range(layers)]
        )
        self.pooler = nn.Linear(hidden, hidden)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embeddings(input_ids)
        for layer in self.layer:
            x = layer(x)
        return x, torch.tanh(self.pooler(x[:, 0]))


def bert_encoder(
    layers: int = 2,
    hidden: int = 128,
    heads: int = 4,
    *,
    vocab: int = 1000,
    intermediate: int | None = None,
    max_length: int = 512,
) -> BertEncoder:
    """A BERT encoder; `layers=12, hidden=768, heads=12, vocab=30522` is BERT-base."""
    if hidden % heads:
        raise ValueError(f"hidden={hidden} does not divide into {heads} heads")
    return BertEncoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        vocab=vocab,
        intermediate=intermediate or 4 * hidden,
        length=max_length,
    )


class TextClassifier(nn.Module):
    """`nn.TransformerEncoder` between an embedding with a bare position parameter and a head."""

    def __init__(
        self, *, layers: int, hidden: int, heads: int, vocab: int, length: int, num_classes: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.position = nn.Parameter(torch.randn(1, length, hidden) * 0.02)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, dim_feedforward=4 * hidden, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids) + self.position[:, : input_ids.size(1)]
        return self.head(self.encoder(x).mean(1))


def transformer_encoder(
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    *,
    vocab: int = 1000,
    length: int = 16,
    num_classes: int = 10,
) -> TextClassifier:
    """A classifier over `nn.TransformerEncoder(batch_first=True)`. Traced in eval mode it records
    torch's fused encoder operators."""
    return TextClassifier(
        layers=layers,
        hidden=hidden,
        heads=heads,
        vocab=vocab,
        length=length,
        num_classes=num_classes,
    )
