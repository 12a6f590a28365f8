"""SAM 2 and its relatives by transformers' own classes, with make_tiny_model random weights, behind the segmenters' interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit.errors import ModelError
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.sam2 import IMAGENET_STATISTICS, MODEL_CLASSES, Sam2Segmenter, add_prompt, preprocess_frame
from lora_edit.masks.segmenter import Click, Prompt, group_by_object
from lora_edit.types import Box
from masks.synthetic_clips import HEIGHT, WIDTH, disc_clip

SQUARE = 64
PROMPTS: list[Prompt] = [KeyframeBox(Box(30, 28, 40, 40), 1), Click(52, 50, frame=1), Click(5, 5, is_positive=False, frame=1)]


def make_tiny_model() -> Any:
    """Create a model of a few thousand random weights."""
    import transformers

    vision = {
        "backbone_config": {
            "hidden_size": 8, "num_attention_heads": 1, "image_size": [SQUARE, SQUARE], "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 4], "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3], "window_positional_embedding_background_size": [2, 2], "model_type": "sam2_hiera_det_model",
        },
        "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]], "fpn_hidden_size": 128,
        "model_type": "sam2_vision_model",
    }  # fmt: skip
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": SQUARE, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
        image_size=SQUARE, memory_attention_hidden_size=128, memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4], memory_encoder_hidden_size=128, memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128, memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Sam2VideoModel(config).eval()
        # Default initial weights predict no object. Larger ones and a bias on the object score give a mask that varies over the frame.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 1e4)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam2")
    make_tiny_model().save_pretrained(path)
    return path


def test_every_object_has_a_mask_of_the_whole_clip(folder: Path) -> None:
    clip, _ = disc_clip(frames=4)
    counts: list[int] = []
    prompts = [*PROMPTS, Click(20, 20, frame=2, name="other")]
    masks = Sam2Segmenter(str(folder)).segment(clip, prompts, lambda done, total: counts.append(done))
    assert {name: mask.frames.shape for name, mask in masks.items()} == {"1": clip.shape[:3], "other": clip.shape[:3]}
    assert counts == list(range(1, 9))
    alone = Sam2Segmenter(str(folder)).segment(clip, PROMPTS)["1"].frames
    assert torch.equal(masks["1"].frames, alone)
    assert 0.02 < float(alone.float().mean()) < 0.98


def test_segment_frame_matches_segment_at_the_prompted_frame(folder: Path) -> None:
    clip, _ = disc_clip(frames=4)
    segmenter = Sam2Segmenter(str(folder))
    assert torch.equal(segmenter.segment_frame(clip, PROMPTS, 1), segmenter.segment(clip, PROMPTS)["1"].frames[1])


def test_masks_match_the_loop_of_transformers(folder: Path) -> None:
    """Frames are preprocessed ahead, prompts added, and masks propagated by the model's own iterator."""
    from transformers import Sam2VideoInferenceSession, Sam2VideoModel

    clip, _ = disc_clip(frames=4)
    model = Sam2VideoModel.from_pretrained(folder).eval()
    video = torch.stack([preprocess_frame(frame, SQUARE, *IMAGENET_STATISTICS) for frame in clip])
    session = Sam2VideoInferenceSession(video=video, video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32)
    add_prompt(session, group_by_object(PROMPTS)["1"][0], SQUARE)
    logits = {}
    with torch.inference_mode():
        model(session, frame_idx=1)
        for reverse in (False, True):
            for output in model.propagate_in_video_iterator(session, 1, reverse=reverse):
                logits[output.frame_idx] = output.pred_masks[:1].reshape(1, 1, *output.pred_masks.shape[-2:])
    masks = Sam2Segmenter(str(folder)).segment(clip, PROMPTS)["1"].frames
    for number in (1, 2, 3):  # backward from a prompt that loop also attends to the frames tracked forward, which `Sam2Segmenter` clears
        large = torch.nn.functional.interpolate(logits[number], (SQUARE, SQUARE), mode="bilinear")
        large = torch.nn.functional.interpolate(large, (HEIGHT, WIDTH), mode="bilinear")
        assert torch.equal(masks[number], large[0, 0] > 0)


def test_correction_changes_its_frame(folder: Path) -> None:
    clip, _ = disc_clip(frames=5)
    segmenter = Sam2Segmenter(str(folder), "cpu")
    before = segmenter.segment(clip, PROMPTS)["1"].frames
    after = segmenter.segment(clip, [*PROMPTS, Click(60, 48, frame=3), Click(150, 90, is_positive=False, frame=3)])["1"].frames
    assert not torch.equal(after[3], before[3])
    assert torch.equal(segmenter.segment_frame(clip, PROMPTS, 3), before[3])


@pytest.mark.parametrize("name", sorted(set(MODEL_CLASSES.values())))
def test_transformers_has_every_class(name: str) -> None:
    import transformers

    assert hasattr(getattr(transformers, f"{name}Model"), "propagate_in_video_iterator")
    assert hasattr(getattr(transformers, f"{name}InferenceSession"), "add_point_inputs")


def test_prompts_match_the_processor_of_transformers() -> None:
    from transformers import Sam2VideoInferenceSession
    from transformers.models.sam2_video.processing_sam2_video import Sam2VideoProcessor

    ours, theirs = (Sam2VideoInferenceSession(video_height=HEIGHT, video_width=WIDTH) for _ in range(2))
    add_prompt(ours, group_by_object(PROMPTS)["1"][0], SQUARE)
    processor = Sam2VideoProcessor.__new__(Sam2VideoProcessor)  # processing pictures needs torchvision, processing prompts does not
    processor.target_size, processor.point_pad_value = SQUARE, -10
    points, labels = [[[[52.0, 50.0], [5.0, 5.0]]]], [[[1, 0]]]
    processor.add_inputs_to_inference_session(theirs, 1, 1, points, labels, input_boxes=[[[30, 28, 70, 68]]])
    for key, value in theirs.point_inputs_per_obj[0][1].items():
        assert torch.equal(ours.point_inputs_per_obj[0][1][key], value), key
    assert ours.obj_with_new_inputs == theirs.obj_with_new_inputs


def test_frames_match_the_processor_of_transformers() -> None:
    pytest.importorskip("torchvision")
    from transformers.models.sam2_video.video_processing_sam2_video import Sam2VideoVideoProcessor

    clip, _ = disc_clip(frames=2)
    theirs = Sam2VideoVideoProcessor(size={"height": SQUARE, "width": SQUARE})(videos=clip.permute(0, 3, 1, 2), return_tensors="pt")
    ours = torch.stack([preprocess_frame(frame, SQUARE, *IMAGENET_STATISTICS) for frame in clip])
    torch.testing.assert_close(ours, theirs.pixel_values_videos[0], atol=1 / 255 / 0.22, rtol=0)


@pytest.mark.parametrize("kind", ["nothing", "another"])
def test_folder_without_a_model_raises(tmp_path: Path, kind: str) -> None:
    if kind == "another":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="SAM 2 model"):
        Sam2Segmenter(str(tmp_path))


def test_uncached_hub_id_raises() -> None:
    with pytest.raises(ModelError, match=r"hf download facebook/sam2.1-nowhere"):
        Sam2Segmenter("facebook/sam2.1-nowhere")
