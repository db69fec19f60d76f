"""Tiny random models of the families that transformers ships, by model type: sizes of tests, and
weights that make gradients differ from row to row. Nothing is fetched.
"""

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

IMAGES = "text model of one that reads images"
FAMILIES = {
    "dense": """
        llama qwen2 qwen3 phi phi3 gemma gpt2 gpt-sw3 gpt_neox gpt_neox_japanese gptj gpt_bigcode
        openai-gpt codegen opt bloom mpt falcon olmo olmo2 stablelm cohere granite glm glm4 smollm3
        ernie4_5 helium nemotron persimmon seed_oss apertus arcee hunyuan_v1_dense bitnet nanochat
        minicpm3 youtu diffllama biogpt ctrl hyperclovax internlm3 iquestcoder jais2 flint
        ministral3 bart bert roberta""",
    "sliding windows": """
        mistral ministral gemma2 gemma3_text vaultgemma gpt_neo olmo3 starcoder2 cohere2 exaone4
        granite_swa cwm modernbert-decoder""",
    "keys and values shared between blocks": "gemma4_text gemma4_unified_text",
    "mixture of experts": """
        mixtral qwen2_moe qwen3_moe olmoe flex_olmo deepseek_v2 deepseek_v3 deepseek_v32 gpt_oss
        granitemoe granitemoeshared granitemoe_swa glm4_moe glm4_moe_lite glm_moe_dsa dots1
        solar_open ernie4_5_moe phimoe dbrx jetmoe minimax minimax_m2 minimax_m3_vl_text
        hunyuan_v1_moe longcat_flash lfm2_moe afmoe llama4_text exaone_moe cohere2_moe mimo_v2_flash
        doge aria_text axk1 hy_v3 kolibri1 laguna mellum""",
    "hybrid": """
        jamba qwen3_next qwen3_5_text qwen3_5_moe_text nemotron_h lfm2 lfm3 recurrent_gemma
        falcon_h1 bamba granitemoehybrid zamba2 olmo_hybrid kimi_linear bailing_hybrid""",
    "state space": "mamba mamba2 falcon_mamba rwkv",
    IMAGES: """
        gemma3 gemma4 qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe llava llava_next
        llava_onevision vipllava mistral3 internvl smolvlm idefics2 idefics3 llama4 glm4v lfm2_vl
        lfm3_vl aria aya_vision deepseek_vl fuyu granite_docling kimi_k25 lighton_ocr mistral_large4
        step3p7 video_llama_3""",
    "several states a token": "gemma3n_text deepseek_v4 hy_v4 qwen4_exp_text",
    "blocks for images alone": "mllama",
    "prompts read in both directions": "paligemma",
}
READ_IMAGES = {*FAMILIES[IMAGES].split(), "mllama", "paligemma"}

# Every kind of them, in every run of the suite.
QUICK = """
    llama gemma openai-gpt bloom falcon cohere
    gemma2 gemma4_text
    mixtral qwen3_moe deepseek_v3 gpt_oss longcat_flash
    qwen3_next nemotron_h recurrent_gemma kimi_linear mamba2 rwkv
    gemma3 qwen3_vl qwen3_5 llava
    gemma3n_text deepseek_v4 mllama paligemma"""

# What models are refused with.
REFUSED = {
    "gemma3n_text": "the states before its block 0 have the shape (4, 2, 2, 32), not (2, 2, 32)",
    "deepseek_v4": "the states before its block 0 have the shape (2, 2, 4, 32), not (2, 2, 32)",
    "hy_v4": "the states before its block 0 have the shape (2, 2, 4, 32), not (2, 2, 32)",
    "qwen4_exp_text": "the states before its block 0 have the shape (2, 2, 128), not (2, 2, 32)",
    "mllama": "text alone does not go through block 1 of its blocks 0 to 3",
    "paligemma": "its tokens see later ones",
}

# Of every model. Families call the same thing by many names, and pass over what they do not know.
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
    "sliding_window": 16,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
TOWER = {  # as deep as the text model
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
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
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
# Attention to the tokens that an index finds; of these there are more than a row has, as in models
# of usual size: among fewer, ties of scores are broken by how long the longest row of a batch is.
INDEXED = {"index_head_dim": 8, "index_n_heads": 4, "index_topk": 512}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
MAMBA = {"state_size": 8, "time_step_rank": 4, "mamba_d_state": 8, "mamba_dt_rank": 4}
MAMBA2 = {
    "mamba_d_state": 8,
    "mamba_expand": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}
CONVOLUTIONS = {"layer_types": ["conv", "full_attention", "conv"], "block_ff_dim": 64}
SHARED_KEYS = {  # the last two blocks read the keys and values of the first two
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "global_head_dim": 8,
    "pad_token_id": 0,
}
GEMMA = {"query_pre_attn_scalar": 8, "sliding_window_pattern": 2}
ROTATED = {
    "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
}
ENCODER_DECODER = {
    "d_model": WIDTH,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
}


def _see(text: dict[str, Any], tower: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Sizes of a model that reads images: of its text model, and of its vision tower."""
    return {"text_config": {**SIZES, **text}, "vision_config": {**TOWER, **(tower or {})}, **more}


POSITIONS = {"num_position_embeddings": 16}
LLAMA, QWEN = {"model_type": "llama"}, {"model_type": "qwen2"}
LLAMA4 = {**EXPERTS, "intermediate_size_mlp": 64, "attention_chunk_size": 32}

# Beside SIZES, by family, and without those that are `...`; all of those that read images.
OWN_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": 64},
    "gpt-sw3": {"n_inner": 64},
    "gpt_bigcode": {"n_inner": 64},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "mpt": {"d_model": WIDTH, "n_heads": 4, "n_layers": 3, "max_seq_len": 512},
    "falcon": {"alibi": False, "head_dim": ...},
    "granite": {"logits_scaling": 3.0},
    "minicpm3": LATENT,
    "youtu": LATENT,
    "ctrl": {"dff": 64},
    "bart": {**ENCODER_DECODER, **TOKENS},
    "bert": {"is_decoder": True, **TOKENS},
    "roberta": {"is_decoder": True, **TOKENS},
    "gemma2": {**GEMMA, "final_logit_softcapping": 2.0},
    "gemma3_text": GEMMA,
    "vaultgemma": GEMMA,
    "gpt_neo": {
        "attention_types": [[["global", "local"], 2]],
        "num_layers": 4,
        "num_hidden_layers": 4,
        "window_size": 16,
    },
    "cwm": TOKENS,
    "modernbert-decoder": {
        **TOKENS,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
    },
    "gemma4_text": SHARED_KEYS,
    "gemma4_unified_text": SHARED_KEYS,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "deepseek_v32": {**LATENT, **INDEXED},
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": {**LATENT, **INDEXED},
    "axk1": LATENT,
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1},
    "dbrx": {
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
    "jetmoe": {"kv_channels": 8},
    "minimax": {"block_size": 16},
    "minimax_m3_vl_text": INDEXED,
    "hunyuan_v1_moe": {"moe_topk": 2},
    "longcat_flash": {
        **LATENT,
        "ffn_hidden_size": 64,
        "expert_ffn_hidden_size": 16,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "num_layers": 3,
        "num_hidden_layers": 6,
    },
    "lfm2_moe": CONVOLUTIONS,
    "llama4_text": LLAMA4,
    "doge": {"keep_window_size": 512},
    "jamba": {
        **EXPERTS,
        **MAMBA,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "qwen3_next": {**EXPERTS, **LINEAR},
    "qwen3_5_text": LINEAR,
    "qwen3_5_moe_text": {**EXPERTS, **LINEAR},
    "nemotron_h": {
        **EXPERTS,
        "ssm_state_size": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 1,
        "chunk_size": 16,
        "layers_block_type": ["mamba", "attention", "moe", "mamba"],
        "num_hidden_layers": 4,
        "use_mamba_kernels": False,
    },
    "lfm2": CONVOLUTIONS,
    "recurrent_gemma": {
        "lru_width": WIDTH,
        "attention_window_size": 16,
        "block_types": ["recurrent", "attention", "recurrent"],
    },
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 64},
    "bamba": {**MAMBA2, "attn_layer_indices": [1]},
    "granitemoehybrid": {**EXPERTS, **MAMBA2, "layer_types": ["mamba", "attention", "mamba"]},
    "zamba2": {
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
    "olmo_hybrid": LINEAR,
    "kimi_linear": {**EXPERTS, **LATENT, **LINEAR},
    "bailing_hybrid": {**EXPERTS, **LATENT},
    "mamba": MAMBA,
    "falcon_mamba": MAMBA,
    "mamba2": {
        "state_size": 8,
        "num_heads": 4,
        "head_dim": 16,
        "n_groups": 1,
        "chunk_size": 16,
        "expand": 2,
    },
    "rwkv": {"attention_hidden_size": WIDTH},
    "gemma3": _see(GEMMA, mm_tokens_per_image=4, image_token_index=299),
    "gemma4": _see(SHARED_KEYS, audio_config=None),
    "qwen2_vl": _see(ROTATED, {"embed_dim": WIDTH}),
    "qwen2_5_vl": _see(ROTATED, {"fullatt_block_indexes": [1]}),
    "qwen3_vl": _see(ROTATED, {**POSITIONS, "deepstack_visual_indexes": [1]}),
    "qwen3_vl_moe": _see({**EXPERTS, **ROTATED}, {**POSITIONS, "deepstack_visual_indexes": [1]}),
    "qwen3_5": _see(LINEAR, POSITIONS),
    "qwen3_5_moe": _see({**EXPERTS, **LINEAR}, POSITIONS),
    "llava": _see(LLAMA, {"model_type": "clip_vision_model"}),
    "llava_onevision": _see(QWEN, {"model_type": "siglip_vision_model"}),
    "mistral3": _see({"model_type": "mistral"}, {"model_type": "pixtral", "head_dim": 8}),
    "internvl": _see(QWEN, {"image_size": [28, 28], "patch_size": [14, 14]}),
    "smolvlm": _see(LLAMA),
    "idefics3": _see(LLAMA),
    "llama4": _see(
        LLAMA4,
        {
            "vision_output_dim": WIDTH,
            "projector_input_dim": WIDTH,
            "projector_output_dim": WIDTH,
        },
    ),
    "glm4v": _see(ROTATED),
    "lfm2_vl": _see(
        {"model_type": "lfm2", **CONVOLUTIONS},
        {"model_type": "siglip2_vision_model", "num_patches": 16},
    ),
    "aria": _see(EXPERTS),
    "kimi_k25": _see({**EXPERTS, **LATENT}),
    "mistral_large4": _see({**EXPERTS, **LATENT}),
    "step3p7": _see({**EXPERTS, **TOKENS}),
    "gemma3n_text": {
        **SHARED_KEYS,
        "laurel_rank": 4,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "deepseek_v4": {**EXPERTS, **LATENT, **INDEXED},
    "hy_v4": {**EXPERTS, **LATENT, **INDEXED},
    "qwen4_exp_text": {**EXPERTS, **LATENT, **INDEXED},
    "mllama": _see({**TOKENS, "cross_attention_layers": [1], "num_hidden_layers": 4}),
    "paligemma": _see(
        {"model_type": "gemma", "sliding_window": None},
        {"projection_dim": WIDTH},
        projection_dim=WIDTH,
    ),
}


def list_families(refused: bool = False) -> list[str]:
    """Those that are audited, or those that are refused; only the quick ones but where all tests
    run.
    """
    names = " ".join(FAMILIES.values()) if EVERY_TEST else QUICK
    return [name for name in names.split() if (name in REFUSED) == refused]


def build_family(name: str) -> PreTrainedModel:
    """A random model of 3 or 4 blocks."""
    torch.manual_seed(0)
    model: PreTrainedModel
    if name in READ_IMAGES:
        config = AutoConfig.for_model(name, **OWN_SIZES.get(name, _see({})))
        model = AutoModelForImageTextToText.from_config(config)
        return model.eval()
    sizes = {**SIZES, **OWN_SIZES.get(name, {})}
    if name in FAMILIES["mixture of experts"].split():
        sizes = {**EXPERTS, **sizes}
    kept = {size: value for size, value in sizes.items() if value is not ...}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **kept))
    return model.eval()
