"""Detection by a description, with a tiny random SAM 3 from transformers' own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit.errors import MaskError, ModelError
from lora_edit.masks import sam3_detector, segmenter_registry
from lora_edit.masks.sam2 import SAM3_STATISTICS, Sam2Segmenter, preprocess_frame
from lora_edit.masks.sam3_detector import Detection, Sam3Detector, check_detector, drop_overlapping
from lora_edit.masks.segmenter_registry import check_text_prompt, detect_prompts, make_segmenter_absolute, takes_text
from lora_edit.types import Box
from masks.synthetic_clips import disc_clip

SQUARE, WIDTH = 112, 128
WORDS = ("the</w>", "red</w>", "car</w>", "t", "h", "e</w>", "r", "e", "d</w>", "c", "a", "r</w>")


def make_tiny_model() -> Any:
    """Create detector and tracker of SAM 3 with some ten thousand random weights."""
    import transformers

    vision = {
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": SQUARE, "pretrain_image_size": SQUARE, "patch_size": 14, "window_size": 4, "global_attn_indexes": [1],
        },
        "fpn_hidden_size": WIDTH, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }  # fmt: skip
    attention = {"hidden_size": WIDTH, "num_attention_heads": 2}
    layers = {**attention, "num_layers": 1, "intermediate_size": 32}
    detector = {
        "model_type": "sam3", "vision_config": {"model_type": "sam3_vision_model", **vision},
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": len(WORDS) + 2, "hidden_size": 32, "intermediate_size": 32, "projection_dim": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32, "bos_token_id": len(WORDS),
            "eos_token_id": len(WORDS) + 1,
        },
        "geometry_encoder_config": layers, "detr_encoder_config": layers, "detr_decoder_config": {**layers, "num_queries": 6},
        "mask_decoder_config": attention,
    }  # fmt: skip
    tracker = {
        "model_type": "sam3_tracker_video", "vision_config": {"model_type": "sam3_vision_model", **vision}, "image_size": SQUARE,
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": SQUARE, "patch_size": 14, "mask_input_channels": 8},
        "mask_decoder_config": {"hidden_size": WIDTH, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 1, "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [8, 8], "memory_encoder_hidden_size": WIDTH, "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": WIDTH, "memory_fuser_embed_dim": WIDTH, "memory_fuser_intermediate_dim": 32,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Sam3VideoModel(transformers.Sam3VideoConfig(detector_config=detector, tracker_config=tracker)).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        torch.nn.init.constant_(model.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias, 1e4)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPTokenizer

    path = tmp_path_factory.mktemp("sam3")
    make_tiny_model().save_pretrained(path)
    vocabulary = {word: number for number, word in enumerate([*WORDS, "<|startoftext|>", "<|endoftext|>"])}
    (path / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (path / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    CLIPTokenizer.from_pretrained(path).save_pretrained(path)
    return path


def test_detections_match_the_output_of_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `Sam3ImageProcessor.post_process_instance_segmentation`, which needs torchvision."""
    from transformers import AutoTokenizer, Sam3Model

    frame = disc_clip(frames=1)[0][0]
    monkeypatch.setattr(sam3_detector, "SCORE_THRESHOLD", 0.0)
    monkeypatch.setattr(sam3_detector, "MAX_OVERLAP", 1.0)
    ours = Sam3Detector(str(folder), "cpu").detect(frame, "the red car")
    model, tokens = Sam3Model.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    text = tokens("the red car", return_tensors="pt", padding="max_length", max_length=32)
    with torch.inference_mode():
        output = model(pixel_values=preprocess_frame(frame, SQUARE, *SAM3_STATISTICS)[None], **text)
    scores = torch.sigmoid(output.pred_logits[0]) * torch.sigmoid(output.presence_logits[0])
    order = scores.argsort(descending=True)
    corners = output.pred_boxes[0][order] * torch.tensor([frame.shape[1], frame.shape[0]] * 2)
    assert len(ours) == 6
    torch.testing.assert_close(torch.tensor([each.score for each in ours]), scores[order])
    torch.testing.assert_close(torch.tensor([[each.box.left, each.box.top] for each in ours]), corners[:, :2])
    sides = torch.tensor([[each.box.width, each.box.height] for each in ours])
    torch.testing.assert_close(sides, (corners[:, 2:] - corners[:, :2]).clamp(min=1))


def test_the_text_matters(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam3_detector, "SCORE_THRESHOLD", 0.0)
    detector, frame = Sam3Detector(str(folder), "cpu"), disc_clip(frames=1)[0][0]
    assert detector.detect(frame, "the red car") != detector.detect(frame, "car")


def test_the_checkpoint_serves_as_tracker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, _ = disc_clip(frames=3)
    boxes = [Detection(Box(30, 28, 40, 40), 0.9), Detection(Box(80, 20, 20, 30), 0.8)]
    monkeypatch.setattr(Sam3Detector, "detect", lambda self, frame, text: boxes)
    prompts = detect_prompts(f"sam2:{folder}", clip[0], "red car")
    assert [(each.name, each.frame, each.box) for each in prompts] == [("red car 1", 0, boxes[0].box), ("red car 2", 0, boxes[1].box)]
    masks = Sam2Segmenter(str(folder), "cpu").segment(clip, prompts)
    assert {name: mask.frames.shape for name, mask in masks.items()} == dict.fromkeys(("red car 1", "red car 2"), clip.shape[:3])


def test_nothing_found_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sam3Detector, "detect", lambda self, frame, text: [])
    with pytest.raises(MaskError, match="--segment a dog: nothing like that"):
        detect_prompts(f"sam2:{folder}", disc_clip(frames=1)[0][0], "a dog")


def test_overlapping_detections_are_dropped() -> None:
    masks = torch.zeros(4, 10, 10, dtype=torch.bool)
    masks[0, :5], masks[1, :4], masks[2, 6:], masks[3, 8:] = True, True, True, True
    assert drop_overlapping(masks) == [0, 2]
    assert drop_overlapping(masks[:0]) == []


@pytest.mark.parametrize(("text", "name", "message"), [
    (" ", "embedded", "the text is empty"),
    ("a cat", "embedded", "add --segmenter sam2:FOLDER"),
    ("a cat", "sam3", "no such segmenter"),
])  # fmt: skip
def test_invalid_requests(text: str, name: str, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        check_text_prompt(text, name)


def test_models_without_detector_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "sam2_video"}', "utf-8")
    with pytest.raises(ModelError, match="sam2_video takes no text; --segment needs a SAM 3 model"):
        check_detector(str(tmp_path))
    assert not takes_text(f"sam2:{tmp_path}")


def test_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert make_segmenter_absolute(f"sam2:{folder.name}") == f"sam2:{folder}"
    assert make_segmenter_absolute("sam2:facebook/sam3") == "sam2:facebook/sam3"
    assert takes_text(f"sam2:{folder}") and not takes_text(segmenter_registry.EMBEDDED)
