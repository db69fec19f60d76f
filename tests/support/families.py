"""Tiny random models of the families that transformers ships: sizes of tests, weights that make
gradients differ from row to row. Nothing is fetched.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from slow_tests import EVERY_TEST
from tiny_models import VOCABULARY, WIDTH
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)


@dataclass(frozen=True, slots=True)
class Family:
    """What the configuration of a model type needs beside SIZES, and without those sizes that are
    `...`. `refused` are the words that a family is refused with, `quick` ones are in every run of the
    suite.
    """

    kind: str
    sizes: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    reads_images: bool = False
    refused: str = ""


SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
# Experts of DeepSeek's kind: the first block has none, all others one that every token passes.
SHARED_EXPERT = {
    **EXPERTS,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {  # attention over compressed keys and values
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
WINDOW = {"sliding_window": 16}
LAYERS = ["linear_attention", "full_attention", "linear_attention"]
LINEAR = {
    "layer_types": LAYERS,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
MAMBA = {"state_size": 8, "time_step_rank": 4}
MAMBA2 = {
    "mamba_d_state": 8,
    "mamba_expand": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
SHARED_KEYS = {  # the last two blocks read the keys and values of the first two
    **WINDOW,
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "pad_token_id": 0,
}
# As deep as the text model.
TOWER = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "depth": 3,
    "num_attention_heads": 4,
    "num_heads": 4,
    "intermediate_size": 64,
    "image_size": 28,
    "patch_size": 14,
    "out_hidden_size": WIDTH,
}
ROTATED = {
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
}


def _see(text: dict[str, Any], tower: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Sizes of a model that reads images: a text model's, and a vision tower's."""
    return {
        "text_config": {**SIZES, **text},
        "vision_config": {**TOWER, **(tower or {})},
        **more,
    }


def _list_families() -> dict[str, Family]:
    dense, experts, hybrid = "dense", "mixture of experts", "hybrid"
    state, images = "state space", "text model of one that reads images"
    window = "sliding windows"
    return {
        "llama": Family(dense, quick=True),
        "qwen2": Family(dense),
        "qwen3": Family(dense),
        "phi": Family(dense, quick=True),
        "phi3": Family(dense, WINDOW),
        "gemma": Family(dense, quick=True),
        "gpt2": Family(dense, {"n_inner": 64}),
        "gpt_neox": Family(dense),
        "gptj": Family(dense, {"rotary_dim": 4}),
        "gpt_bigcode": Family(dense, {"n_inner": 64}),
        "openai-gpt": Family(dense, quick=True),
        "codegen": Family(dense, {"rotary_dim": 4}),
        "opt": Family(dense, {"ffn_dim": 64, "word_embed_proj_dim": 16}, quick=True),
        "bloom": Family(dense, quick=True),
        "mpt": Family(
            dense, {"d_model": WIDTH, "n_heads": 4, "n_layers": 3, "max_seq_len": 512}, quick=True
        ),
        "falcon": Family(dense, {"alibi": False, "head_dim": ...}, quick=True),
        "olmo": Family(dense),
        "olmo2": Family(dense, quick=True),
        "stablelm": Family(dense),
        "cohere": Family(dense, quick=True),
        "granite": Family(dense, {"logits_scaling": 3.0}, quick=True),
        "glm": Family(dense),
        "glm4": Family(dense, quick=True),
        "smollm3": Family(dense),
        "ernie4_5": Family(dense),
        "helium": Family(dense),
        "nemotron": Family(dense),
        "persimmon": Family(dense),
        "seed_oss": Family(dense),
        "apertus": Family(dense),
        "arcee": Family(dense),
        "hunyuan_v1_dense": Family(dense),
        "bitnet": Family(dense),
        "nanochat": Family(dense, quick=True),
        "minicpm3": Family(dense, LATENT),
        "youtu": Family(dense, LATENT),
        "diffllama": Family(dense),
        "biogpt": Family(dense),
        "ctrl": Family(dense, {"dff": 64}),
        "mistral": Family(window, WINDOW, quick=True),
        "ministral": Family(window, WINDOW),
        "gemma2": Family(
            window,
            {**WINDOW, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
            quick=True,
        ),
        "gemma3_text": Family(
            window, {**WINDOW, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2}, quick=True
        ),
        "vaultgemma": Family(window, {**WINDOW, "query_pre_attn_scalar": 8}),
        "gpt_neo": Family(
            window,
            {
                "attention_types": [[["global", "local"], 2]],
                "num_layers": 4,
                "num_hidden_layers": 4,
                "window_size": 16,
            },
        ),
        "olmo3": Family(window, WINDOW),
        "starcoder2": Family(window, WINDOW),
        "cohere2": Family(window, WINDOW),
        "exaone4": Family(window, WINDOW),
        "cwm": Family(window, {**WINDOW, "bos_token_id": 1}),
        "modernbert-decoder": Family(
            window,
            {
                "local_attention": 16,
                "global_attn_every_n_layers": 2,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "cls_token_id": 1,
                "sep_token_id": 2,
            },
        ),
        "gemma4_text": Family(
            "keys and values shared between blocks",
            {**SHARED_KEYS, "global_head_dim": 8},
            quick=True,
        ),
        "mixtral": Family(experts, EXPERTS, quick=True),
        "qwen2_moe": Family(experts, {**EXPERTS, "shared_expert_intermediate_size": 16}),
        "qwen3_moe": Family(experts, EXPERTS, quick=True),
        "olmoe": Family(experts, EXPERTS, quick=True),
        "flex_olmo": Family(experts, EXPERTS),
        "deepseek_v2": Family(experts, {**SHARED_EXPERT, **LATENT}, quick=True),
        "deepseek_v3": Family(experts, {**SHARED_EXPERT, **LATENT}, quick=True),
        "gpt_oss": Family(experts, {**EXPERTS, **WINDOW}, quick=True),
        "granitemoe": Family(experts, EXPERTS),
        "granitemoeshared": Family(experts, {**EXPERTS, "shared_intermediate_size": 16}),
        "glm4_moe": Family(experts, SHARED_EXPERT, quick=True),
        "glm4_moe_lite": Family(experts, {**SHARED_EXPERT, **LATENT}),
        "dots1": Family(experts, SHARED_EXPERT),
        "solar_open": Family(experts, SHARED_EXPERT),
        "ernie4_5_moe": Family(
            experts, {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1}
        ),
        "phimoe": Family(experts, EXPERTS),
        "dbrx": Family(
            experts,
            {
                "d_model": WIDTH,
                "n_heads": 4,
                "n_layers": 3,
                "max_seq_len": 512,
                "ffn_config": {
                    "ffn_hidden_size": 64,
                    "moe_num_experts": 4,
                    "moe_top_k": 2,
                    "hidden_size": WIDTH,
                },
                "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
            },
        ),
        "jetmoe": Family(experts, {**EXPERTS, "kv_channels": 8}),
        "minimax": Family(experts, {**EXPERTS, "block_size": 16}, quick=True),
        "minimax_m2": Family(experts, EXPERTS),
        "hunyuan_v1_moe": Family(experts, {**EXPERTS, "moe_topk": 2}),
        "longcat_flash": Family(
            experts,
            {
                **EXPERTS,
                **LATENT,
                "ffn_hidden_size": 64,
                "expert_ffn_hidden_size": 16,
                "zero_expert_num": 2,
                "moe_topk": 2,
                "num_layers": 3,
                "num_hidden_layers": 6,
            },
            quick=True,
        ),
        "lfm2_moe": Family(
            experts,
            {**EXPERTS, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
        ),
        "afmoe": Family(
            experts, {**EXPERTS, **WINDOW, "num_dense_layers": 1, "num_shared_experts": 1}
        ),
        "llama4_text": Family(
            experts, {**EXPERTS, "intermediate_size_mlp": 64, "attention_chunk_size": 32}
        ),
        "exaone_moe": Family(
            experts, {**EXPERTS, **WINDOW, "n_group": 1, "topk_group": 1, "num_shared_experts": 1}
        ),
        "cohere2_moe": Family(experts, {**EXPERTS, **WINDOW}),
        "mimo_v2_flash": Family(experts, {**EXPERTS, **WINDOW}),
        "doge": Family(experts, {**EXPERTS, "keep_window_size": 512}),
        "granitemoe_swa": Family(experts, {**EXPERTS, **WINDOW}),
        "jamba": Family(
            hybrid,
            {
                **EXPERTS,
                "mamba_d_state": 8,
                "mamba_dt_rank": 4,
                "attn_layer_period": 2,
                "attn_layer_offset": 1,
                "expert_layer_period": 2,
                "expert_layer_offset": 1,
                "use_mamba_kernels": False,
            },
            quick=True,
        ),
        "qwen3_next": Family(
            hybrid, {**EXPERTS, **LINEAR, "shared_expert_intermediate_size": 16}, quick=True
        ),
        "qwen3_5_text": Family(hybrid, LINEAR),
        "qwen3_5_moe_text": Family(
            hybrid, {**EXPERTS, **LINEAR, "shared_expert_intermediate_size": 16}
        ),
        "nemotron_h": Family(
            hybrid,
            {
                **EXPERTS,
                "ssm_state_size": 8,
                "mamba_num_heads": 4,
                "mamba_head_dim": 16,
                "n_groups": 1,
                "chunk_size": 16,
                "layers_block_type": ["mamba", "attention", "moe", "mamba"],
                "num_hidden_layers": 4,
                "moe_shared_expert_intermediate_size": 16,
                "n_group": 1,
                "topk_group": 1,
                "use_mamba_kernels": False,
            },
            quick=True,
        ),
        "lfm2": Family(
            hybrid,
            {"layer_types": ["conv", "full_attention", "conv"], "block_ff_dim": 64},
            quick=True,
        ),
        "recurrent_gemma": Family(
            hybrid,
            {
                "lru_width": WIDTH,
                "attention_window_size": 16,
                "block_types": ["recurrent", "attention", "recurrent"],
            },
            quick=True,
        ),
        "falcon_h1": Family(hybrid, {**MAMBA2, "mamba_d_ssm": 64}, quick=True),
        "bamba": Family(hybrid, {**MAMBA2, "attn_layer_indices": [1]}),
        "granitemoehybrid": Family(
            hybrid,
            {
                **EXPERTS,
                **MAMBA2,
                "shared_intermediate_size": 16,
                "layer_types": ["mamba", "attention", "mamba"],
            },
        ),
        "zamba2": Family(
            hybrid,
            {
                "mamba_d_state": 8,
                "n_mamba_heads": 4,
                "mamba_headdim": 16,
                "mamba_ngroups": 1,
                "chunk_size": 16,
                "layers_block_type": ["mamba", "hybrid", "mamba"],
                "hybrid_layer_ids": [1],
                "num_mem_blocks": 1,
                "adapter_rank": 4,
                "use_mem_rope": True,
                "head_dim": ...,
                "attention_head_dim": 16,
            },
        ),
        "olmo_hybrid": Family(hybrid, LINEAR),
        "mamba": Family(state, MAMBA, quick=True),
        "mamba2": Family(
            state,
            {
                "state_size": 8,
                "num_heads": 4,
                "head_dim": 16,
                "n_groups": 1,
                "chunk_size": 16,
                "expand": 2,
            },
            quick=True,
        ),
        "falcon_mamba": Family(state, MAMBA),
        "rwkv": Family(state, {"attention_hidden_size": WIDTH}, quick=True),
        "gemma3": Family(
            images,
            _see(
                {**WINDOW, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2},
                mm_tokens_per_image=4,
                image_token_index=299,
            ),
            quick=True,
            reads_images=True,
        ),
        "gemma4": Family(
            images,
            _see({**SHARED_KEYS, "global_head_dim": 8}, audio_config=None),
            reads_images=True,
        ),
        "qwen2_vl": Family(images, _see(ROTATED, {"embed_dim": WIDTH}), reads_images=True),
        "qwen2_5_vl": Family(
            images, _see(ROTATED, {"fullatt_block_indexes": [1]}), quick=True, reads_images=True
        ),
        "qwen3_vl": Family(
            images,
            _see(ROTATED, {"deepstack_visual_indexes": [1], "num_position_embeddings": 16}),
            quick=True,
            reads_images=True,
        ),
        "qwen3_vl_moe": Family(
            images,
            _see(
                {**EXPERTS, **ROTATED},
                {"deepstack_visual_indexes": [1], "num_position_embeddings": 16},
            ),
            reads_images=True,
        ),
        "qwen3_5": Family(
            images, _see(LINEAR, {"num_position_embeddings": 16}), quick=True, reads_images=True
        ),
        "qwen3_5_moe": Family(
            images,
            _see(
                {**EXPERTS, **LINEAR, "shared_expert_intermediate_size": 16},
                {"num_position_embeddings": 16},
            ),
            reads_images=True,
        ),
        "llava": Family(
            images,
            _see({"model_type": "llama"}, {"model_type": "clip_vision_model"}),
            quick=True,
            reads_images=True,
        ),
        "llava_onevision": Family(
            images,
            _see({"model_type": "qwen2"}, {"model_type": "siglip_vision_model"}),
            reads_images=True,
        ),
        "mistral3": Family(
            images,
            _see({"model_type": "mistral"}, {"model_type": "pixtral", "head_dim": 8}),
            quick=True,
            reads_images=True,
        ),
        "internvl": Family(
            images,
            _see({"model_type": "qwen2"}, {"image_size": [28, 28], "patch_size": [14, 14]}),
            reads_images=True,
        ),
        "smolvlm": Family(images, _see({"model_type": "llama"}), reads_images=True),
        "idefics3": Family(images, _see({"model_type": "llama"}), reads_images=True),
        "llama4": Family(
            images,
            _see(
                {**EXPERTS, "intermediate_size_mlp": 64, "attention_chunk_size": 32},
                {
                    "vision_output_dim": WIDTH,
                    "projector_input_dim": WIDTH,
                    "projector_output_dim": WIDTH,
                },
            ),
            reads_images=True,
        ),
        "glm4v": Family(images, _see(ROTATED), reads_images=True),
        "lfm2_vl": Family(
            images,
            _see(
                {
                    "model_type": "lfm2",
                    "layer_types": ["conv", "full_attention", "conv"],
                    "block_ff_dim": 64,
                },
                {"model_type": "siglip2_vision_model", "num_patches": 16},
            ),
            reads_images=True,
        ),
        "gemma3n_text": Family(
            "several states a token",
            {
                **SHARED_KEYS,
                "laurel_rank": 4,
                "intermediate_size": [64] * 4,
                "activation_sparsity_pattern": [0.0] * 4,
            },
            quick=True,
            refused="the states before its block 0 have the shape (4, 2, 2, 32), not (2, 2, 32)",
        ),
        "mllama": Family(
            "blocks for images alone",
            _see(
                {
                    "bos_token_id": 1,
                    "pad_token_id": 0,
                    "cross_attention_layers": [1],
                    "num_hidden_layers": 4,
                }
            ),
            quick=True,
            reads_images=True,
            refused="text alone does not go through block 1 of its blocks 0 to 3",
        ),
        "paligemma": Family(
            "prompts read in both directions",
            _see({"model_type": "gemma"}, {"projection_dim": WIDTH}, projection_dim=WIDTH),
            quick=True,
            reads_images=True,
            refused="its tokens see later ones",
        ),
    }


FAMILIES = _list_families()


def list_families(refused: bool = False) -> list[str]:
    """The names of those that are supported, or of those that are refused; only the quick ones but
    where all tests run.
    """
    names = []
    for name, family in FAMILIES.items():
        if bool(family.refused) == refused and (family.quick or EVERY_TEST):
            names.append(name)
    return names


def build_family(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model of 3 or 4 blocks."""
    family = FAMILIES[name]
    torch.manual_seed(seed)
    if family.reads_images:
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(name, **family.sizes)
        )
        return model.eval()
    sizes = {**SIZES, **family.sizes}
    kept = {size: value for size, value in sizes.items() if value is not ...}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **kept))
    return model.eval()
