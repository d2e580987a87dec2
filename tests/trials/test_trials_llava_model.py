"""The model is transformers' own; its base is a folder; a trial changes nothing that is shared."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from llava_tokenizers import TOKENIZERS, byte_level, word_level
from llava_world import PIXELS, language, tower, write_base, write_fine
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    ConvNextModel,
)

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.llava.base import LlavaBaseConfig
from djsandbox_ray.trials.llava.base_folder import join, joined, load_base
from djsandbox_ray.trials.llava.fine import empty_fine, fine_settings, load_fine
from djsandbox_ray.trials.llava.flops import count_parts
from djsandbox_ray.trials.llava.modules import (
    Mining,
    Reader,
    adapt,
    open_language,
    projector_of,
    trial_model,
)
from djsandbox_ray.trials.llava.pixels import Pixels
from djsandbox_ray.trials.llava.small import small_configurations
from djsandbox_ray.trials.model_folders import folder_content, shipped_arch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "base")


def inputs(image_id: int, images: int = 4) -> tuple[Any, Any, Any]:
    """Return ids of two texts with an image each, their mask, and pixels."""
    ids = torch.tensor([[1, *[image_id] * images, 9, 10, 11], [1, *[image_id] * images, 9, 0, 0]])
    mask = torch.tensor([[1] * 8, [1] * 6 + [0] * 2])
    return ids, mask, torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_it_reads_as_transformers_does(folder: Path) -> None:
    base = load_base(folder)
    ids, mask, pixels = inputs(base.words.image_id)
    with torch.no_grad():
        model = trial_model(base.llava, "mlp2x_gelu", 3)
        whole = model.llava(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits
        places = torch.tensor([5, 6, 13])
        ours = model(ids, mask, places, pixels)
    assert torch.allclose(ours, whole.flatten(0, 1)[places], atol=1e-5)
    blind = model(ids, mask, places, pixels.roll(1, 0))
    assert not torch.allclose(ours, blind, atol=1e-3)


def test_text_alone_leaves_the_projector_a_gradient_of_zero(folder: Path) -> None:
    base = load_base(folder)
    model = trial_model(base.llava, "mlp2x_gelu", 3)
    ids, mask = torch.tensor([[1, 9, 10, 11]]), torch.ones(1, 4, dtype=torch.int64)
    places = torch.tensor([1, 2])
    plain = model(ids, mask, places, None).detach()
    said = model(ids, mask, places, torch.zeros(1, 3, 16, 16), blank=True)
    assert torch.equal(said.detach(), plain)
    said.sum().backward()
    grads = [value.grad for value in model.parameters() if value.requires_grad]
    assert all(grad is not None and not grad.any() for grad in grads)


def test_a_base_is_what_was_saved(folder: Path) -> None:
    base = load_base(folder)
    assert (base.words.image_tokens, base.words.pixels) == (4, PIXELS)
    assert base.words.tokenizer.padding_side == "left"
    assert base.words.image_id == word_level().convert_tokens_to_ids("<image>")
    assert not list(folder.glob("*.bin"))
    again = load_base(folder).llava.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in base.llava.state_dict().items())


def test_how_a_base_would_generate_is_not_asked(tmp_path: Path) -> None:
    """Folders of chat models draw tokens by chance, and end where their own files say."""
    made = write_base(tmp_path / "base")
    drawing = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "max_length": 3}
    (made / "generation_config.json").write_text(json.dumps(drawing))
    found = load_base(made).llava.generation_config.to_diff_dict()
    assert not found.keys() & drawing.keys()


def test_a_trial_leaves_the_base_as_it_is(folder: Path) -> None:
    base = load_base(folder)
    before = {name: value.clone() for name, value in base.llava.state_dict().items()}
    model = trial_model(base.llava, "linear", 1)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {
        f"llava.model.multi_modal_projector.linear.{name}" for name in ("weight", "bias")
    }
    tower_weight = model.llava.model.vision_tower.state_dict()["pre_layrnorm.weight"]
    shared = base.llava.model.vision_tower.state_dict()["pre_layrnorm.weight"]
    assert tower_weight.data_ptr() == shared.data_ptr()
    open_language(model)
    for value in model.parameters():
        if value.requires_grad:
            value.data.add_(1.0)
    after = base.llava.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert not any("vision_tower" in name for name in trained)
    assert any("embed_tokens" in name for name in trained)
    assert any("lm_head" in name for name in trained)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    base = load_base(write_base(tmp_path / "tied", tied=True))
    model = trial_model(base.llava, "linear", 1)
    open_language(model)
    head, table = model.llava.lm_head.weight, model.llava.get_input_embeddings().weight
    assert head is table
    assert head.requires_grad
    assert head.data_ptr() != base.llava.lm_head.weight.data_ptr()


def test_the_projector_is_of_the_seed_and_of_torchs_size(folder: Path) -> None:
    base = load_base(folder)

    def weight(seed: int) -> Any:
        model = trial_model(base.llava, "mlp2x_gelu", seed)
        return model.llava.model.multi_modal_projector.linear_1.weight.detach()

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))
    assert weight(1).std() == pytest.approx(1 / np.sqrt(3 * 24), rel=0.2)


def test_adapters_begin_as_the_base_and_are_all_that_is_trained(folder: Path) -> None:
    base = load_base(folder)
    ids, mask, pixels = inputs(base.words.image_id)
    places = torch.tensor([5, 6, 13])
    plain, adapted = (trial_model(base.llava, "mlp2x_gelu", 3) for _ in range(2))
    adapt(adapted, 4, 8, ("q_proj", "down_proj"), seed=5)
    with torch.no_grad():
        assert torch.equal(plain(ids, mask, places, pixels), adapted(ids, mask, places, pixels))
    trained = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert len([name for name in trained if "lora_" in name]) == 2 * 2 * 2
    assert all("lora_" in name or "projector" in name for name in trained)
    again = trial_model(base.llava, "mlp2x_gelu", 3)
    adapt(again, 4, 8, ("q_proj", "down_proj"), seed=5)
    first = {n: v for n, v in adapted.named_parameters() if "lora_A" in n}
    assert all(torch.equal(value, dict(again.named_parameters())[n]) for n, value in first.items())
    with pytest.raises(BadInput, match=r"no linear layers qproj \(there are down_proj, gate_proj"):
        adapt(trial_model(base.llava, "linear", 0), 4, 8, ("qproj",), 0)


def test_mining_looks_at_the_cells_behind_each_token() -> None:
    torch.manual_seed(0)
    mining = Mining(wide=8, fine=6, width=10)
    features, fine = torch.randn(2, 4, 8), torch.randn(2, 6, 4, 4)
    out = mining(features, fine)
    assert out.shape == (2, 4, 10)
    # By hand: token 3 is the lower right one of 2 x 2, and has the cells 2..3 of rows 2..3.
    cells = fine[1, :, 2:, 2:].reshape(6, 4).T
    query = mining.query(features[1, 3])
    weights = (mining.key(cells) @ query / 8**0.5).softmax(0)
    mined = weights @ mining.value(cells)
    assert torch.allclose(out[1, 3], mining.project(features[1, 3] + mined), atol=1e-5)
    other = fine.clone()
    other[1, :, :2, :] += 1.0  # behind other tokens
    assert torch.allclose(mining(features, other)[1, 3], out[1, 3])
    with pytest.raises(BadInput, match="does not divide among 4 tokens"):
        mining(features, torch.randn(2, 6, 5, 5))


def test_the_second_tower_sees_pixels_as_it_knows_them(tmp_path: Path) -> None:
    folder = write_fine(tmp_path / "fine")
    fine = load_fine(folder, (-2, -1), PIXELS)
    squares = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    maps = fine(PIXELS.normalised(squares))
    assert maps.shape == (2, fine.channels, 8, 8)
    assert fine.channels == 18
    raw = (squares.permute(0, 3, 1, 2).float() / 255 - 0.1) / 2.0
    with torch.no_grad():
        theirs = ConvNextModel.from_pretrained(folder).eval()(raw, output_hidden_states=True)
    assert torch.allclose(maps[:, :8], theirs.hidden_states[-2], atol=1e-4)
    with pytest.raises(BadInput, match=r"there is no layer 4 \(-4 to 3\)"):
        load_fine(folder, (4,), PIXELS)
    with pytest.raises(BadInput, match="no tower can be loaded"):
        load_fine(tmp_path, (-1,), PIXELS)


def test_the_second_tower_may_be_one_of_open_clip(tmp_path: Path) -> None:
    """As Mini-Gemini's is; of the CLIP, the trunk of the tower is read."""
    shape = {"timm_model_name": "test_convnext", "timm_drop_path": 0.5, "image_size": 64}
    words = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    settings = {"embed_dim": 8, "vision_cfg": shape, "text_cfg": words}
    seen = {"mean": [0.1] * 3, "std": [2.0] * 3}
    written = {"model_cfg": settings, "preprocess_cfg": seen}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(written))
    with pytest.raises(BadInput, match="no tower can be loaded"):
        load_fine(tmp_path, (-1,), PIXELS)
    clip = open_clip.CLIP(**settings)
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    fine = load_fine(tmp_path, (1, 2), PIXELS)
    squares = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    maps = fine.train()(PIXELS.normalised(squares))  # it never trains
    raw = (squares.permute(0, 3, 1, 2).float() / 255 - 0.1) / 2.0
    with torch.no_grad():
        first, second, *_ = clip.visual.trunk.eval().forward_intermediates(
            raw, intermediates_only=True
        )
    assert torch.allclose(maps[:, : first.shape[1]], first, atol=1e-4)
    wider = torch.nn.functional.interpolate(second, first.shape[-2:], mode="bilinear")
    assert torch.allclose(maps[:, first.shape[1] :], wider, atol=1e-4)
    with torch.device("meta"):
        assert empty_fine(fine_settings(tmp_path), (1, 2)).channels == fine.channels


def test_mining_reads_both_towers(folder: Path, tmp_path: Path) -> None:
    base, fine = load_base(folder), load_fine(write_fine(tmp_path / "fine"), (-2, -1), PIXELS)
    model = trial_model(base.llava, "mining", 3, fine)
    ids, mask, _ = inputs(base.words.image_id)
    squares = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    pixels = PIXELS.normalised(squares)
    said = model(ids, mask, torch.tensor([5, 6, 13]), pixels)
    said.sum().backward()
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert all("multi_modal_projector" in name for name in trained)
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    # The first tower sees the same square made smaller; details are the second one's.
    detail = pixels.clone()
    detail[:, :, ::2] += 0.5
    detail[:, :, 1::2] -= 0.5
    assert torch.allclose(model.features(detail), model.features(pixels), atol=0.2)
    assert not torch.allclose(model.project(detail), model.project(pixels), atol=1e-3)
    # Not smoothed, as in Mini-Gemini's code: of 4 x 4 pixels it takes the mean of the middle four.
    middle = pixels.unflatten(3, (16, 4)).unflatten(2, (16, 4))[:, :, :, 1:3, :, 1:3].mean((3, 5))
    assert torch.allclose(model.features(pixels), model.features(middle), atol=1e-5)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_base_is_joined_of_two_folders(kind: str, tmp_path: Path) -> None:
    sees, reads, whole = (tmp_path / name for name in ("tower", "language", "base"))
    config = CLIPConfig(
        vision_config=tower().config.to_dict(),
        text_config=CLIPTextConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ).to_dict(),
        projection_dim=8,
    )
    clip = CLIPModel(config)
    clip.save_pretrained(sees)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(sees)
    tokenizer = TOKENIZERS[kind]()
    model = language(tokenizer)
    model.save_pretrained(reads)
    tokenizer.save_pretrained(reads)
    whole.mkdir()
    join(sees, reads, whole, -2)
    base = load_base(whole)
    assert base.words.pixels.side == 16
    text = "a red circle on a white background"
    assert base.words.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    known = base.llava.model.language_model.state_dict()
    assert all(torch.equal(value, known[name]) for name, value in model.model.state_dict().items())
    seen = base.llava.model.vision_tower.state_dict()
    mine = clip.vision_model.state_dict()
    assert all(torch.equal(value, mine[name]) for name, value in seen.items())
    content = folder_content(str(whole))
    assert set(content) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert Reader(base.llava).image_tokens == 4


def without_image_token() -> tuple[Any, int]:
    """Return a tokenizer that has no token for images, and the id that this had."""
    tokenizer = byte_level()
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
    assert "<image>" in tokenizer.get_vocab()
    vocabulary["added_tokens"] = [
        token for token in vocabulary["added_tokens"] if token["content"] != "<image>"
    ]
    place = vocabulary["model"]["vocab"].pop("<image>")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    assert "<image>" not in bare.get_vocab()
    return bare, place


@pytest.mark.parametrize("tied", [False, True])
def test_a_tokenizer_without_a_token_for_images_gets_one(tied: bool, tmp_path: Path) -> None:
    """What reads words and what foretells them both grow by a row, and stay one if they are."""
    bare, place = without_image_token()
    base = load_base(write_base(tmp_path / "base", bare, tied))
    assert base.words.image_id not in (place, None)
    table, head = base.llava.get_input_embeddings().weight, base.llava.lm_head.weight
    assert table.shape[0] == base.words.image_id + 1
    assert head.shape == table.shape
    assert (head is table) == tied
    adapted = trial_model(base.llava.requires_grad_(False), "linear", 1)
    adapt(adapted, 4, 8, ("q_proj",), seed=5)
    assert (adapted.llava.lm_head.weight is adapted.llava.get_input_embeddings().weight) == tied
    assert not adapted.llava.lm_head.weight.requires_grad
    open_language(opened := trial_model(base.llava, "linear", 1))
    assert (opened.llava.lm_head.weight is opened.llava.get_input_embeddings().weight) == tied
    assert opened.llava.lm_head.weight.requires_grad


def test_the_new_row_of_a_base_is_the_same_each_time() -> None:
    bare, _ = without_image_token()
    model, rows = language(bare), []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.manual_seed(seed)
            made = joined(tower(), copy.deepcopy(model), copy.deepcopy(bare), PIXELS, -2)
            rows.append(made.get_input_embeddings().weight[-1])
    assert rows[0].any()
    assert torch.equal(rows[0], rows[1])


def test_what_is_no_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no LLaVA"):
        load_base(tmp_path)
    with pytest.raises(BadInput, match="there is no such folder"):
        folder_content(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="a LLaVA is needed, not 'bert'"):
        load_base(tmp_path)
    with pytest.raises(BadInput, match="no weights as safetensors"):
        folder_content(str(tmp_path))
    with pytest.raises(ValueError, match="one of these is needed: path;"):
        LlavaBaseConfig()
    with pytest.raises(ValueError, match="vision_tower and language_model go together"):
        LlavaBaseConfig(vision_tower="x")
    with pytest.raises(ValueError, match="unknown base 'tini'; did you mean 'tiny'"):
        LlavaBaseConfig(build="tini", train={"dataset": {"type": "shapes", "samples": 1}})


def picture(width: int, height: int) -> bytes:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def test_a_cropped_square_is_what_the_image_processor_makes() -> None:
    data = picture(96, 64)  # whose sides become whole pixels: they cut where Pillow rounds
    pixels = Pixels(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    processor = CLIPImageProcessor(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_mean=list(pixels.mean),
        image_std=list(pixels.std),
    )
    theirs = np.asarray(
        processor(Image.open(io.BytesIO(data)), return_tensors="pt")["pixel_values"][0]
    )
    ours = pixels.normalised(torch.from_numpy(pixels.square(data, "crop")[None].copy()))[0].numpy()
    assert np.abs(ours - theirs).mean() < 0.02  # their bicubic is torchvision's, or Pillow's


def test_a_padded_square_has_all_of_the_image_and_the_mean_colour_beside_it() -> None:
    pixels = Pixels(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    square = pixels.square(picture(64, 32), "pad")
    assert square.shape == (32, 32, 3)
    assert np.all(square[:6] == (127, 102, 76))
    assert np.all(square[-6:] == (127, 102, 76))
    small = Image.open(io.BytesIO(picture(64, 32))).resize((32, 16), Image.Resampling.BICUBIC)
    assert np.abs(square[9:23].astype(int) - np.asarray(small)[1:15].astype(int)).mean() < 2
    normal = pixels.normalised(torch.from_numpy(square[None].copy()))
    assert normal.shape == (1, 3, 32, 32)
    assert normal[0, 0, 0, 0] == pytest.approx((127 / 255 - 0.5) / 0.2, abs=1e-5)


def test_other_image_processors_are_read_or_refused() -> None:
    usual = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    assert Pixels.read({**usual, "size": {"height": 384, "width": 384}}, "f").side == 384
    assert Pixels.read({**usual, "size": 224}, "f").side == 224
    with pytest.raises(BadInput, match="square images are needed"):
        Pixels.read({**usual, "size": {"height": 384, "width": 224}}, "f")
    with pytest.raises(BadInput, match="square images are needed"):
        Pixels.read(usual, "f")
    with pytest.raises(BadInput, match="do_normalize is false"):
        Pixels.read({**usual, "size": 224, "do_normalize": False}, "f")
    with pytest.raises(BadInput, match="three numbers each"):
        Pixels.read({"size": 224}, "f")


def test_operations_are_counted_by_parts() -> None:
    sees, reads = small_configurations(shipped_arch("djsandbox_ray.trials.llava", "tiny"))
    parts = count_parts(sees, reads, lambda: projector_of("mlp2x_gelu", 96, 96), 64)
    # A multiplication and an addition for every weight and token, and in attention twice for
    # every two tokens.
    matrices = 2 * (4 * 96 * 96 + 3 * 96 * 192) + 96 * 100
    assert parts.language == 2 * 64 * matrices + 2 * 2 * 2 * 64 * 64 * 96
    assert 1.9 < parts.language_frozen / parts.language < 2.2
    assert 2.7 < parts.language_trained / parts.language < 3.1
    assert parts.training("projector") < parts.training("full")
    # Two matrices, 16 tokens, forward and back; the first one's input needs no gradient.
    assert parts.projector == pytest.approx(5 * 2 * 16 * 96 * 96, rel=0.01)
    # Beside the matrices: embeddings, and the weights of five norms.
    assert parts.parameters == matrices + 96 * 100 + 5 * 96
    once = parts.tower + parts.projector / 3
    assert parts.weighing == once + parts.language
    assert parts.answering(2) == once + 2 * parts.parameters * 66
