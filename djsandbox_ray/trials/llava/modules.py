"""The parts of the model as torch modules: projectors, and the whole with its loss in mind.

Importing this imports torch: who may be without it imports it where it is used.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.lora import put_adapters

torch = require("torch", "clip")
nn = require("torch.nn", "clip")

_OF_FEATURES = 3
"""Dimensions of what a tower sees; its pixels have one more."""


class Reader(nn.Module):  # type: ignore[misc, name-defined]
    """A LLaVA of transformers that reads texts with images, and foretells chosen tokens.

    Training and answering go the same way: features of the tower, projected, in the places of the
    image's tokens. Of a long text in a large vocabulary, only the logits that are asked for are
    computed.

    Args:
        llava: a ``LlavaForConditionalGeneration``.
        fine: a second tower, for a projector that reads its map, too.
    """

    def __init__(self, llava: Any, fine: Any | None = None) -> None:
        super().__init__()
        self.llava, self.fine = llava, fine

    @property
    def image_tokens(self) -> int:
        """How many tokens stand for an image."""
        return int(self.llava.config.image_seq_length)

    def features(self, pixels: Any) -> Any:
        """Return what the tower sees, without gradients; shape (images, tokens, width).

        Args:
            pixels: normalised, shape (images, 3, side, side); larger squares than the tower reads
                are made smaller as Mini-Gemini does it, which does not smooth them.
        """
        config = self.llava.config
        tower, side = self.llava.model.vision_tower, config.vision_config.image_size
        if pixels.shape[-1] != side:
            pixels = nn.functional.interpolate(
                pixels, size=(side, side), mode="bilinear", align_corners=False
            )
        layers = config.vision_feature_layer
        with torch.no_grad():
            seen = tower(pixels.to(tower.dtype), output_hidden_states=True).hidden_states
            chosen = [seen[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
            if config.vision_feature_select_strategy == "default":
                chosen = [one[:, 1:] for one in chosen]
            return torch.cat(chosen, dim=-1)

    def project(self, images: Any) -> Any:
        """Return the embeddings of images; shape (images, tokens, width of the language model).

        Args:
            images: normalised pixels, shape (images, 3, side, side); or :meth:`features` of them.
        """
        projector = self.llava.model.multi_modal_projector
        dtype = next(projector.parameters()).dtype
        maps = () if self.fine is None else (self.fine(images).to(dtype),)
        features = images if images.ndim == _OF_FEATURES else self.features(images)
        return projector(features.to(dtype), *maps)

    def placed(self, ids: Any, images: Any | None) -> Any:
        """Return the embeddings of texts, with those of images in their places.

        Args:
            ids: shape (texts, length).
            images: embeddings of all images, in the order of their places; None without any.

        Returns:
            Shape (texts, length, width).
        """
        embedded = self.llava.get_input_embeddings()(ids)
        if images is None:
            return embedded
        places = (ids == self.llava.config.image_token_id).unsqueeze(-1)
        if int(places.sum()) != images.shape[0] * images.shape[1]:
            raise BadInput(
                f"{int(places.sum())} tokens stand for images, but these have "
                f"{images.shape[0] * images.shape[1]} embeddings"
            )
        return embedded.masked_scatter(places, images.to(embedded.dtype))

    def foretold(self, embedded: Any, mask: Any, places: Any) -> Any:
        """Return the logits of the tokens behind some places; shape (places, vocabulary).

        Args:
            embedded: texts with their images, shape (texts, length, width).
            mask: 1 where there is a token, shape (texts, length).
            places: numbers into the flattened texts, shape (places,).
        """
        hidden = self.llava.model.language_model(
            inputs_embeds=embedded, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return self.llava.lm_head(hidden.flatten(0, 1)[places])

    def forward(
        self, ids: Any, mask: Any, places: Any, images: Any | None, blank: bool = False
    ) -> Any:
        """Return the logits of the tokens behind some places of texts with images.

        Args:
            ids: padded, shape (texts, length).
            mask: 1 where there is a token, shape (texts, length).
            places: numbers into the flattened ``ids``, shape (places,).
            images: all of them in the order of their places, as :meth:`project` is given them; None
                without any.
            blank: whether they are looked at, but have no place in the texts. Workers wait for the
                gradients of whatever is trained, and where they have shared out the tower, for each
                other in every layer of it: so in training all of them look at something.
        """
        # Blank or not, first of all: ZeRO brings weights and gradients of workers together in the
        # order in which each of them passes the layers.
        seen = None if images is None else self.project(images)
        embedded = self.placed(ids, None if blank else seen)
        if blank and seen is not None:
            embedded = embedded + 0.0 * seen.sum()
        return self.foretold(embedded, mask, places)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Have the language model compute activations again on the way back."""
        self.llava.model.language_model.gradient_checkpointing_enable(**settings)


class Blindfold(Reader):
    """Reads words, in place of images, as noisy embeddings: how a small language model learns to
    read what a projector will once put before its text.
    """  # noqa: D205

    def forward(  # type: ignore[override]  # it is given words, and no pixels
        self, ids: Any, mask: Any, places: Any, words: Any, noise: Any
    ) -> Any:
        """Return the logits of the tokens behind some places.

        Args:
            ids: see :class:`Reader`.
            mask: likewise.
            places: likewise.
            words: ids of words in the place of images, shape (images, tokens).
            noise: in units of the embeddings' standard deviation, shape (images, tokens, width).
        """
        table = self.llava.get_input_embeddings()
        images = table(words) + noise * table.weight.detach().std()
        return self.foretold(self.placed(ids, images), mask, places)


class Linear(nn.Module):  # type: ignore[misc, name-defined]
    """One matrix, as in the first LLaVA."""

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, width)

    def forward(self, features: Any) -> Any:
        """Project features; (images, tokens, wide) to (images, tokens, width)."""
        return self.linear(features)


class Perceptron(nn.Module):  # type: ignore[misc, name-defined]
    """Two matrices with GELU in between (``mlp2x_gelu``), as in LLaVA 1.5; named as there."""

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(wide, width), nn.Linear(width, width)

    def forward(self, features: Any) -> Any:
        """Project features; (images, tokens, wide) to (images, tokens, width)."""
        return self.linear_2(nn.functional.gelu(self.linear_1(features)))


class Mining(nn.Module):  # type: ignore[misc, name-defined]
    """Mini-Gemini's patch info mining (Li et al. 2024, arXiv 2403.18814, equation 1).

    Every token of the tower looks for details among the cells of a second, finer map that lie
    behind it: T = MLP(X + softmax(q(X) k(X')^T / sqrt d) v(X')).

    Args:
        wide: width of the tower's features.
        fine: width of the second map.
        width: of the language model.
    """

    def __init__(self, wide: int, fine: int, width: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, wide))
        self.key = nn.Sequential(nn.LayerNorm(fine), nn.Linear(fine, wide))
        self.value = nn.Sequential(nn.LayerNorm(fine), nn.Linear(fine, wide))
        self.project = Perceptron(wide, width)

    def forward(self, features: Any, fine: Any) -> Any:
        """Project features.

        Args:
            features: shape (images, tokens, wide); the tokens are a square, row by row.
            fine: the second map, shape (images, channels, rows, rows); as many cells behind every
                token.

        Returns:
            Shape (images, tokens, width).
        """
        images, tokens, wide = features.shape
        grid = round(tokens**0.5)
        cells = fine.shape[-1] // grid
        if grid * grid != tokens or fine.shape[-2:] != (grid * cells, grid * cells):
            raise BadInput(
                f"the second tower's map of {fine.shape[-2]} x {fine.shape[-1]} cells does not "
                f"divide among {tokens} tokens"
            )
        # (images, channels, grid, cells, grid, cells) to (images, tokens, cells^2, channels).
        behind = fine.unflatten(-1, (grid, cells)).unflatten(-3, (grid, cells))
        behind = behind.permute(0, 2, 4, 3, 5, 1).reshape(images, tokens, cells**2, -1)
        query = self.query(features).unsqueeze(2)
        scores = (query @ self.key(behind).transpose(-1, -2)) / wide**0.5
        mined = (scores.softmax(-1) @ self.value(behind)).squeeze(2)
        return self.project(features + mined)


def projector_of(kind: str, wide: int, width: int, channels: int = 0) -> Any:
    """Return a new projector.

    Args:
        kind: ``mlp2x_gelu``, ``linear`` or ``mining``.
        wide: width of the tower's features.
        width: of the language model.
        channels: of the second tower's maps, for ``mining``.
    """
    if kind == "mining":
        return Mining(wide, channels, width)
    return {"mlp2x_gelu": Perceptron, "linear": Linear}[kind](wide, width)


def trial_model(llava: Any, projector: str, seed: int, fine: Any | None = None) -> Reader:
    """Return a model with a projector of its own, which alone is trained.

    The projector's weights are drawn as torch does by default. transformers would draw every matrix
    with a standard deviation of .02, which in a narrow model shrinks what passes two of them many
    times over; LLaVA's own code takes torch's defaults, too.

    Args:
        llava: a base on its device. It stays as it is: all but the projector is shared with it.
        projector: its kind.
        seed: decides its weights.
        fine: the second tower on the same device, for ``mining``; it is shared, too.
    """
    memo: dict[int, Any] = {id(buffer): buffer for buffer in llava.buffers()}
    for parameter in llava.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False)
    own = copy.deepcopy(llava, memo)
    layers, config = llava.config.vision_feature_layer, llava.config
    wide = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = 0 if fine is None else fine.channels
        made = projector_of(projector, wide, config.text_config.hidden_size, channels)
    own.model.multi_modal_projector = made.to(llava.device)
    return Reader(own, fine)


def open_language(model: Reader) -> None:
    """Have the whole language model trained: it gets weights of its own, in float32."""
    for part in (model.llava.model.language_model, model.llava.lm_head):
        for parameter in part.parameters():
            if not parameter.requires_grad:  # tied weights come twice
                parameter.data = parameter.data.clone().float()
                parameter.requires_grad_(True)


def adapt(model: Reader, rank: int, alpha: float, targets: Sequence[str], seed: int) -> None:
    """Put adapters of low rank on the language model; they alone are trained of it.

    Args:
        model: as :func:`trial_model` gives it.
        rank: of the matrices.
        alpha: what they add is scaled by ``alpha / rank``.
        targets: names of linear layers.
        seed: decides the first matrix of each; the second one is zero.

    Raises:
        BadInput: the language model has no such layers.
    """
    where = "trials.model.finetune.lora.targets"
    put_adapters(model.llava.model.language_model, rank, alpha, targets, seed, where)
