"""The exported folder: loaded by `transformers`, and by the very code that its README shows."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import medfilip
from medfilip import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.checkpoint import Versions, save_checkpoint
from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.encoders import build_vision
from medfilip.model.exporting import export_model
from medfilip.model.tokenizer import Tokenizer
from tests.support.hub_models import save_bert, save_roberta, save_vision

TEXTS = ["no mass", "effusions", "Wort", "mass"]


@pytest.fixture(scope="module", params=["preset", "vit+bert", "dinov2_registers+roberta", "resnet+bert"])
def exported(request, tiny_checkpoint, tmp_path_factory):
    """Return checkpoint and exported folder; the original encoders are gone."""
    root = tmp_path_factory.mktemp("exported")
    checkpoint = tiny_checkpoint
    if request.param != "preset":
        vision, text = request.param.split("+")
        vision = save_vision(vision, root / "vision")
        text = (save_bert if text == "bert" else save_roberta)(root / "text")
        config = ModelConfig(image_size=32, embed_dim=8, max_tokens=12, grid=2, vision=vision, text=text)
        model = DualEncoder(config, Tokenizer.of_pretrained(text, config.max_tokens))
        torch.nn.init.normal_(model.bias)
        versions = Versions(load_ontology().fingerprint, load_knowledge().fingerprint, synthetic=True)
        checkpoint = root / "checkpoint"
        save_checkpoint(checkpoint, model, versions)
        shutil.rmtree(vision)
        shutil.rmtree(text)
    return checkpoint, export_model(checkpoint, root / "out" / "exported")


@pytest.fixture(scope="module")
def expected(exported):
    """Return pixels [N, 1, S, S], and the embeddings of `medfilip.load`."""
    model = medfilip.load(exported[0])
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 1, 32, 32, generator=generator) * 3 + 1
    return (
        pixels,
        torch.from_numpy(model.diagnoser.encode_images(pixels.numpy())),
        torch.from_numpy(model.encode_text(TEXTS)),
    )


def test_the_code_in_the_readme_gives_the_embeddings(exported, expected, monkeypatch):
    readme = (exported[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert "@" not in code.replace("@torch", "").replace(" @ texts", "") and "trust_remote_code" not in code
    monkeypatch.chdir(exported[1])
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    pixels, image, text = expected
    torch.testing.assert_close(names["encode_image"](pixels), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(names["encode_text"](TEXTS), text, atol=1e-5, rtol=0)
    logits = medfilip.load(exported[0]).diagnoser.model.logits(image, text)
    torch.testing.assert_close(names["logits"](image, text), logits.detach(), atol=1e-5, rtol=0)


def test_automodel_loads_the_whole(exported, expected):
    import medfilip.model.hugging_face

    pixels, image, text = expected
    model, loading = AutoModel.from_pretrained(exported[1], output_loading_info=True)
    assert not any(loading.values()), loading
    assert not model.training
    tokens = AutoTokenizer.from_pretrained(exported[1])(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(model.get_image_features(pixels), image, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.get_text_features(**tokens), text, atol=1e-5, rtol=0)
        found = model(pixel_values=pixels, **tokens)
    expected_logits = medfilip.load(exported[0]).diagnoser.model.logits(image, text).detach()
    torch.testing.assert_close(found.logits_per_image, expected_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.logits_per_text, found.logits_per_image.T)


def test_a_part_can_be_trained_on(exported):
    vision, config = build_vision(ModelConfig(image_size=32, vision=str(exported[1] / "vision")), pretrained=True)
    stored = medfilip.load(exported[0]).diagnoser.model.image.backbone.state_dict()
    mine = {name.removeprefix("net."): value for name, value in vision.backbone.state_dict().items()}
    assert mine.keys() == stored.keys() and all(torch.equal(mine[name], stored[name]) for name in stored)
    again, _ = build_vision(ModelConfig(image_size=32, vision="/gone", vision_config=config), pretrained=False)
    again.load_state_dict(vision.state_dict())
    pixels = torch.rand(1, 1, 32, 32)
    assert torch.equal(again.eval()(pixels), vision.eval()(pixels))


def test_the_folder_says_what_it_is_and_holds_no_code(exported):
    folder = exported[1]
    assert "synthetic training data" in (folder / "README.md").read_text()
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"calibration.json", "versions.json", "heads.safetensors", "vision/model.safetensors"} <= names
    assert {name.rsplit(".", 1)[-1] for name in names} <= {"json", "safetensors", "md"}
    assert not any("auto_map" in path.read_text() for path in folder.rglob("*.json"))
    # where the encoders came from stays on the machine that trained the model
    texts = [path for path in folder.rglob("*") if path.suffix in (".json", ".md")]
    assert not any(str(folder.parent.parent) in path.read_text() for path in texts)
    assert [path.name for path in folder.parent.iterdir()] == ["exported"]


def test_a_folder_that_holds_something_is_left_alone(tiny_checkpoint, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(MedfilipError, match="not empty") as caught:
        export_model(tiny_checkpoint, tmp_path)
    assert caught.value.code == ErrorCode.CONFIG_INVALID
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_of_an_export_that_fails(tmp_path):
    with pytest.raises(MedfilipError):
        export_model(tmp_path / "nowhere", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
