//! Importers on headers as others write them, and on their real files where those are at hand.

use std::path::PathBuf;

use super::*;
use crate::schema::{EnergySource, Phase};

/// The measured rows of others lie beside the checkout on a developer's machine, never in it.
fn measured(name: &str) -> Option<PathBuf> {
    let mut places = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data")];
    places.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    places.extend(std::env::var_os("ENERGYLENS_DATA").map(PathBuf::from));
    let found = places.into_iter().map(|p| p.join(name)).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not there; set ENERGYLENS_DATA to the directory that holds it");
    }
    found
}

#[test]
fn the_measured_files_of_others_come_in_whole() {
    let table = [
        ("splitwise.csv", Format::Splitwise, 260),
        ("mlenergy_v2.csv", Format::MlenergyV2, 356),
        ("anl_bench_power.csv", Format::AnlBench, 48),
    ];
    for (name, format, expected) in table {
        let Some(path) = measured(name) else { continue };
        let dataset = import(&path, format).unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = dataset.rejected.first().map(ToString::to_string);
        assert_eq!(dataset.rows.len(), expected, "{name}: {first:?}");
        assert!(!dataset.notes.is_empty(), "{name}");
    }
}

fn imported(format: Format, text: &str) -> Result<Dataset, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.csv");
    std::fs::write(&path, text).unwrap();
    import(&path, format)
}

const SPLITWISE: &str = "source,run_id,model,gpu,n_gpus,tp,batch,batch_kind,input_tokens,output_tokens,energy_j,\
    energy_scope,time_s,ttft_s,itl_s\n";

#[test]
fn splitwise_rows_without_energy_are_left_out_and_names_are_ours() {
    let text = format!(
        "{SPLITWISE}s,0,llama2-70b,a100-80gb,2,2,1,exact static batch,512,128,4200,all,7.0,0.2,0.055\n\
         s,1,bloom-176b,h100-80gb,8,8,1,exact static batch,512,128,,,4.5,0.1,0.03\n"
    );
    let dataset = imported(Format::Splitwise, &text).unwrap();
    let row = &dataset.rows[0];
    assert_eq!((row.model.as_str(), row.gpu_model.as_str()), ("meta-llama/Llama-2-70b-hf", "A100-SXM4-80GB"));
    assert_eq!((row.num_gpus, row.tensor_parallel, row.pipeline_parallel, row.phase), (2, 2, 1, Phase::Total));
    assert_eq!((row.energy_j, row.duration_s, row.mean_tpot_s), (Some(4200.0), Some(7.0), Some(0.055)));
    assert_eq!((&row.engine, row.source, dataset.rows.len()), (&None, EnergySource::Imported, 1));
    assert!(dataset.notes.iter().any(|n| n == "1 of 2 rows carry no energy and were left out"), "{:?}", dataset.notes);
}

#[test]
fn mlenergy_energy_per_request_becomes_that_of_the_mean_batch() {
    let text = "run_id,task,model,gpu,n_gpus,tp,pp,batch,output_tokens,energy_j,itl_s,engine,avg_batch_size\n\
         a,llm_text_generation/chat,google/gemma-2-27b-it,A100-SXM4-40GB,4,4,1,128,392.5,230,0.11,vLLM,100.5\n\
         b,mllm_text_generation/chat,v/lm-7b,H100,1,1,1,64,90,50,0.02,vLLM,60\n";
    let dataset = imported(Format::MlenergyV2, text).unwrap();
    let row = &dataset.rows[0];
    assert_eq!((row.energy_j, row.batch_size, row.input_tokens), (Some(230.0 * 100.5), 100.5, None));
    assert_eq!(dataset.rows[1].architecture.as_deref(), Some("vlm"));
}

#[test]
fn anl_rows_on_several_gpus_are_refused_since_nobody_knows_how_they_were_used() {
    let text = "run_id,model,gpu,n_gpus,batch,input_tokens,output_tokens,energy_j,time_s,engine\n\
         0,meta-llama/Llama-2-7b-hf,Nvidia A100 GPU,1,16,1024,1024,7339,25.05,vLLM\n\
         1,meta-llama/Llama-2-7b-hf,Nvidia A100 GPU,2,16,1024,1024,7339,25.05,vLLM\n";
    let dataset = imported(Format::AnlBench, text).unwrap();
    assert_eq!(dataset.rows[0].gpu_model, "A100");
    assert_eq!((dataset.rejected[0].line, dataset.rejected[0].column.as_deref()), (2, Some("n_gpus")));
}

#[test]
fn a_file_of_another_format_says_which() {
    let ours = "model,gpu_model,num_gpus,tensor_parallel,pipeline_parallel,batch_size,input_tokens,output_tokens,energy_j\n\
         m,A100,1,1,1,1,512,128,900\n";
    let got = imported(Format::Splitwise, ours).unwrap_err().to_string();
    assert!(got.contains("import it with --from energylens"), "{got}");
    assert!(imported(Format::Energylens, ours).is_ok());
    let got = imported(Format::AnlBench, SPLITWISE).unwrap_err().to_string();
    assert!(got.contains("engine is missing") && got.contains("import it with --from splitwise"), "{got}");
    assert!("mlenergy".parse::<Format>().unwrap_err().contains("mlenergy-v2"));
}

/// Of measured rows in another unit most must look wrong: with durations, and by size alone.
#[test]
fn measured_rows_in_another_unit_are_noticed() {
    let table = [
        ("splitwise.csv", Format::Splitwise, [1e6, 1e3, 1e-3, 1.0 / 3600.0, 1.0 / 3.6e6].as_slice()),
        ("mlenergy_v2.csv", Format::MlenergyV2, &[1e6, 1e3, 1e-3, 1.0 / 3600.0, 1.0 / 3.6e6]),
    ];
    for (name, format, factors) in table {
        let Some(path) = measured(name) else { continue };
        let rows = import(&path, format).unwrap().rows;
        for factor in factors {
            for keeps_duration in [true, false] {
                let noticed = rows.iter().filter(|row| {
                    let duration_s = row.duration_s.filter(|_| keeps_duration);
                    let slipped = Row { energy_j: row.energy_j.map(|e| e * factor), duration_s, ..(*row).clone() };
                    check::row(&slipped).is_err()
                });
                let share = noticed.count() as f64 / rows.len() as f64;
                assert!(share > 0.5, "{name} x {factor}, durations {keeps_duration}: {share}");
            }
        }
    }
}
