use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::card::Architecture;

fn card(config: Value) -> ModelCard {
    ModelCard::from_config("test", &config).unwrap()
}

/// Shapes of a model small enough to count by hand.
fn tiny() -> Value {
    json!({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4,
           "num_key_value_heads": 2, "intermediate_size": 16, "vocab_size": 10, "torch_dtype": "bfloat16"})
}

fn with(mut config: Value, more: Value) -> Value {
    let (Value::Object(config_keys), Value::Object(more)) = (&mut config, more) else { panic!("objects") };
    config_keys.extend(more);
    config
}

#[test]
fn a_dense_model_is_counted_as_by_hand() {
    let card = card(tiny());
    // Head 2 wide: q and o 8x8, k and v 8x4; three 8x16 MLP matrices; two norms of 8.
    let layer = 2 * 64 + 2 * 32 + 3 * 128 + 2 * 8;
    assert_eq!(card.params, f64::from(2 * layer + 8 + 2 * 80));
    assert_eq!(card.active_params, card.params);
    assert_eq!(card.kv_bytes_per_token, f64::from(2 * 2 * 4 * 2));
    assert_eq!((card.architecture, card.bytes_per_weight, card.ssm_share), (Architecture::Dense, 2.0, 0.0));
}

#[test]
fn tied_embeddings_count_once_and_dtype_sets_the_bytes() {
    let tied = card(with(tiny(), json!({"tie_word_embeddings": true, "torch_dtype": "float32"})));
    assert_eq!(card(tiny()).params - tied.params, 80.0);
    assert_eq!(tied.bytes_per_weight, 4.0);
}

#[test]
fn experts_count_in_full_for_memory_and_by_choice_for_a_token() {
    let moe = card(with(
        tiny(),
        json!({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 5}),
    ));
    assert_eq!(moe.architecture, Architecture::Moe);
    let one_expert = 2.0 * 3.0 * 8.0 * 5.0;
    assert_eq!(moe.params - moe.active_params, 3.0 * one_expert);
    assert_eq!((moe.num_experts, moe.experts_per_token), (4.0, 1.0));
    let lead = card(with(
        tiny(),
        json!({"n_routed_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 5, "n_shared_experts": 2,
               "first_k_dense_replace": 1}),
    ));
    // One layer routes: 4 experts + 2 shared of width 5 and the router, instead of a plain MLP of width 16.
    assert_eq!(lead.params - card(tiny()).params, 6.0 * 3.0 * 40.0 + 32.0 - 3.0 * 128.0);
}

#[test]
fn latent_attention_caches_one_latent_and_one_rotary_key() {
    let card = card(with(
        tiny(),
        json!({"kv_lora_rank": 6, "qk_rope_head_dim": 2, "qk_nope_head_dim": 3, "v_head_dim": 3, "q_lora_rank": null}),
    ));
    assert_eq!(card.kv_bytes_per_token, f64::from(2 * (6 + 2) * 2));
}

#[test]
fn hybrid_layers_are_found_in_every_notation() {
    let ssm = json!({"mamba_d_state": 4, "mamba_d_conv": 2, "mamba_expand": 2, "mamba_dt_rank": 1});
    let notations = [
        json!({"attn_layer_period": 2, "attn_layer_offset": 1}),
        json!({"attn_layer_indices": [1]}),
        json!({"layer_types": ["mamba", "attention"]}),
        json!({"layers_block_type": ["attention", "mamba"]}),
    ];
    for notation in notations {
        let card = card(with(with(tiny(), ssm.clone()), notation.clone()));
        assert_eq!((card.architecture, card.ssm_share), (Architecture::Hybrid, 0.5), "{notation}");
        assert_eq!(card.kv_bytes_per_token, 16.0, "{notation}");
    }
    let pattern = card(with(with(tiny(), ssm), json!({"hybrid_override_pattern": "M-M*"})));
    assert_eq!(pattern.n_layers, 4.0);
    assert!((pattern.ssm_share - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn layer_lists_of_attention_kinds_leave_a_dense_model() {
    let card = card(with(tiny(), json!({"layer_types": ["full_attention", "sliding_attention"]})));
    assert_eq!(card.architecture, Architecture::Dense);
}

#[test]
fn quantised_matrices_shrink_and_embeddings_do_not() {
    let plain = card(tiny());
    let embedding = 160.0;
    let awq = card(with(tiny(), json!({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}})));
    let expected = ((plain.params - embedding) * (0.5 + 2.5 / 128.0) + embedding * 2.0) / plain.params;
    assert!((awq.bytes_per_weight - expected).abs() < 1e-12, "{}", awq.bytes_per_weight);
    let fp8 = card(with(tiny(), json!({"quantization_config": {"quant_method": "fp8"}})));
    assert!((fp8.bytes_per_weight - (plain.params + embedding) / plain.params).abs() < 1e-12);
}

#[test]
fn a_nested_language_model_takes_the_defaults_of_its_class() {
    let vlm = card(json!({"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064},
                          "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}}));
    assert_eq!((vlm.architecture, vlm.n_layers, vlm.hidden_size), (Architecture::Vlm, 32.0, 4096.0));
    assert!((vlm.params / 7.063e9 - 1.0).abs() < 0.02, "{}", vlm.params);
}

#[test]
fn a_missing_key_is_named() {
    for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"] {
        let mut config = tiny();
        config.as_object_mut().unwrap().remove(key);
        let message = ModelCard::from_config("x", &config).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains("no key"), "{message}");
    }
}

#[test]
fn a_wrong_value_is_shown_with_what_was_expected() {
    for wrong in [json!("8"), json!(-8), json!(0), json!(2.5), json!(1e300), json!([8])] {
        let message =
            ModelCard::from_config("x", &with(tiny(), json!({"hidden_size": wrong}))).unwrap_err().to_string();
        assert!(message.starts_with("model configuration key `hidden_size` is "), "{message}");
    }
    assert!(ModelCard::from_config("x", &json!([1])).unwrap_err().to_string().contains("is a list"));
}

#[test]
fn a_directory_or_a_file_will_do_and_errors_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny-model");
    std::fs::create_dir(&model).unwrap();
    let missing = ModelCard::from_hugging_face(&model, None).unwrap_err().to_string();
    assert!(missing.contains("tiny-model/config.json"), "{missing}");
    std::fs::write(model.join("config.json"), tiny().to_string()).unwrap();
    assert_eq!(ModelCard::from_hugging_face(&model, None).unwrap().model, "tiny-model");
    assert_eq!(ModelCard::from_hugging_face(&model.join("config.json"), Some("a/b")).unwrap().model, "a/b");
    let named = with(tiny(), json!({"_name_or_path": "org/name"}));
    std::fs::write(model.join("config.json"), named.to_string()).unwrap();
    assert_eq!(ModelCard::from_hugging_face(&model, None).unwrap().model, "org/name");
    std::fs::write(model.join("config.json"), "{").unwrap();
    assert!(ModelCard::from_hugging_face(&model, None).unwrap_err().to_string().ends_with("is not JSON"));
}

const KEYS: [&str; 30] = [
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "torch_dtype",
    "num_local_experts",
    "num_experts_per_tok",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "attn_layer_period",
    "attn_layer_offset",
    "layer_types",
    "hybrid_override_pattern",
    "mamba_d_state",
    "mamba_n_heads",
    "mamba_d_head",
    "vision_config",
    "text_config",
    "quantization_config",
    "ssm_cfg",
    "moe_layer_freq",
    "expert_layer_period",
    "first_k_dense_replace",
    "mlp_only_layers",
    "head_dim",
];

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..200_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "llama", "mamba2", "zamba2", "jamba", "M-*E", "falcon", "float16", "mamba", "\u{fffd}"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_gives_a_sound_card_or_an_error(
        base in any::<bool>(),
        changes in prop::collection::vec((prop::sample::select(KEYS.to_vec()), any_value()), 0..8),
    ) {
        let mut config = if base { tiny() } else { json!({}) };
        for (key, value) in changes {
            config[key] = value;
        }
        if let Ok(card) = ModelCard::from_config("any", &config) {
            let finite = [card.params, card.active_params, card.kv_bytes_per_token, card.bytes_per_weight, card.hidden_size];
            prop_assert!(finite.iter().all(|v| v.is_finite() && *v >= 0.0), "{card:?}");
            prop_assert!(card.active_params <= card.params && card.active_params > 0.0, "{card:?}");
            prop_assert!((0.0..=1.0).contains(&card.ssm_share), "{card:?}");
            prop_assert!(card.experts_per_token <= card.num_experts, "{card:?}");
        }
    }

    #[test]
    fn any_value_as_a_whole_configuration_is_no_panic(value in any_value()) {
        let _ = ModelCard::from_config("any", &value);
    }
}
